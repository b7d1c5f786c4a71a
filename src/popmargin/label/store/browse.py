"""Looking through the items of a project: a page of them in order, by state and words, with everybody's labels."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import JSON, ColumnElement, Connection, cast, func, or_, select, text

from popmargin.data.questions import Kind, PreferenceText, Side, Verdict
from popmargin.errors import ConfigError, DataError, did_you_mean
from popmargin.label.store.criteria import load_criteria, names_in
from popmargin.label.store.disputes import CURRENT, contested_item
from popmargin.label.store.image_rows import known_images
from popmargin.label.store.items import preference_text
from popmargin.label.store.known import known_of
from popmargin.label.store.ranked_items import load_others
from popmargin.label.store.records import ShownImage, State, Wrong
from popmargin.label.store.sql_tables import annotator, assignment, item, label, preference, project
from popmargin.label.store.verdict_on import answers_in

ItemState = Literal["open", "done", "disputed", "skipped", "notes"]
"""open: labels are wanted. done: it has all its labels. disputed: people disagree, decided or not. skipped: by somebody
who has not answered since. notes: a label that stands has one."""
_ONE, _OTHER, _RANKED = preference.alias("one"), preference.alias("other"), preference.alias("ranked")
_WINDOW = 5_000
"""Items that are searched in one go."""
_NOTED = text("label.note <> ''")
"""The condition of the index of notes, which a database uses only if a query repeats it."""


@dataclass(frozen=True, kw_only=True)
class GivenLabel:
    """What one annotator says of an item, or that they skipped it.

    Attributes:
        verdict: None if it was skipped or taken back, or is open.
        counts: False for those of discarded annotators.
        decides: of an adjudicator.
        again: a repeated item, or gold in training.
    """

    annotator: str
    kind: str
    state: State
    verdict: Verdict | None
    wrong: Wrong | None = None
    grade: int | None = None
    confidence: float | None = None
    note: str = ""
    seconds: float | None = None
    revision: int = 0
    at: datetime | None = None
    counts: bool = True
    decides: bool = False
    again: bool = False


@dataclass(frozen=True, kw_only=True)
class BrowsedItem:
    """An item with its texts and labels.

    Attributes:
        position: its place among the items of the project, from 0.
        gold: the known answer, under an empty name, or those by criterion.
        done, wanted: labels of people that it has, and how many it needs; None for a gold item, which everybody gets.
        disputed: people disagree.
        decided: an adjudicator has decided it.
        others: all columns of its preferences besides the texts and numbers of the schema.
        ranked: the preferences of a ranking after the first.
    """

    id: int
    position: int
    kind: Kind
    first: PreferenceText
    second: PreferenceText | None
    response: Side | None
    gold: Mapping[str, Verdict]
    done: int
    wanted: int | None
    disputed: bool = False
    labels: Sequence[GivenLabel] = ()
    images: Mapping[str, ShownImage] | None = None
    others: tuple[Mapping[str, Any], ...] = field(default=())
    ranked: tuple[PreferenceText, ...] = ()

    @property
    def decided(self) -> bool:
        """Whether an adjudicator has decided it."""
        return any(given.decides and given.verdict not in (None, "unsure") for given in self.labels)


@dataclass(frozen=True, kw_only=True)
class BrowsedPage:
    """Some items.

    Attributes:
        last: where the next page goes on; None if there is no more.
    """

    items: list[BrowsedItem]
    last: int | None


def browse(
    connection: Connection,
    number: int,
    *,
    state: ItemState | None = None,
    words: str = "",
    after: int = 0,
    limit: int = 50,
    seconds: float = 1.0,
) -> BrowsedPage:
    """Items of a project in their order.

    Args:
        connection: to read from.
        number: id of the project.
        state: only those in this state; None for all.
        words: only those with this text in a prompt or response, whatever the case; the id of a preference, or # and
            the number of an item, gives these.
        after: `BrowsedPage.last` of the page before.
        limit: at most so many.
        seconds: after which a search stops, to go on from there.

    Raises:
        ConfigError: an unknown state.
    """
    if state is not None and state not in get_args(ItemState):
        raise ConfigError(f"state is {state!r}. {did_you_mean(str(state), get_args(ItemState))}")
    query = select(item.c.id).where(item.c.project == number).order_by(item.c.id)
    if state is not None:
        query = query.where(_in_state(connection, number, state))
    words = words.strip()
    named = _named(connection, number, words) if words else None
    if not words or named is not None:
        query = query if named is None else query.where(named)
        found = connection.execute(query.where(item.c.id > after).limit(limit + 1)).scalars().all()
        more = len(found) > limit
    else:
        found, after, more = _search(connection, number, query, words, after, limit, seconds)
    shown = found[:limit]
    last = (shown[-1] if len(shown) == limit or not words else after) if more else None
    return BrowsedPage(items=load_items(connection, number, shown), last=last)


def _named(connection: Connection, number: int, words: str) -> ColumnElement[bool] | None:
    """The items that the words name: by their number, or by the id of a preference; None if they are a text."""
    if words.startswith("#") and words[1:].isdecimal() and len(words) < 17:
        return item.c.id == int(words[1:])
    key = (preference.c.project == number) & (preference.c.key == words)
    row = connection.execute(select(preference.c.id).where(key)).scalar()
    ranked = item.c.others.contains(json.dumps(words, ensure_ascii=False), autoescape=True)
    return None if row is None else (item.c.first == row) | (item.c.second == row) | ranked


def _search(
    connection: Connection, number: int, query: Any, words: str, after: int, limit: int, seconds: float
) -> tuple[list[int], int, bool]:
    """Items with these words after one, up to where the search stopped, and whether there may be more."""
    newest = connection.execute(select(func.max(item.c.id)).where(item.c.project == number)).scalar() or 0
    query = (
        query.join_from(item, _ONE, _ONE.c.id == item.c.first)
        .outerjoin(_OTHER, _OTHER.c.id == item.c.second)
        .where(_holds(words, connection.dialect.name))
    )
    found, end = list[int](), time.monotonic() + seconds
    while after < newest:
        window = (item.c.id > after) & (item.c.id <= after + _WINDOW)
        found += connection.execute(query.where(window).limit(limit + 1 - len(found))).scalars().all()
        if len(found) > limit:
            return found, found[limit - 1], True
        after += _WINDOW
        if time.monotonic() > end:
            break
    return found, after, after < newest


def _in_state(connection: Connection, number: int, state: ItemState) -> ColumnElement[bool]:
    if state == "open":
        return item.c.gold.is_(None) & (item.c.taken < item.c.overlap)
    if state == "done":
        return item.c.gold.is_(None) & (item.c.taken >= item.c.overlap)
    if state == "disputed":
        return contested_item(answers_in(connection, number).values())
    if state == "skipped":
        # By annotator, then state: that is an index.
        people = select(annotator.c.id).where(annotator.c.project == number)
        skipped = select(assignment.c.item).where(assignment.c.annotator.in_(people), assignment.c.state == "skipped")
        return item.c.id.in_(skipped)
    ever = select(label.c.assignment).where(_NOTED)  # by the index of notes, which are few
    noted = (
        select(assignment.c.item)
        .join_from(assignment, label, CURRENT)
        .where(assignment.c.id.in_(ever), assignment.c.project == number, _NOTED, label.c.verdict.is_not(None))
    )
    return item.c.id.in_(noted)


def _holds(words: str, dialect: str) -> ColumnElement[bool]:
    """Whether the texts of an item's preferences hold these words."""
    stored = json.dumps(words, ensure_ascii=False)[1:-1]  # as in the database

    def holds(table: Any) -> ColumnElement[bool]:
        columns = [table.c[name] for name in ("prompt", "chosen", "rejected")]
        if dialect == "sqlite":  # whose LIKE ignores the case of ASCII letters without making copies
            return or_(*(column.contains(stored, autoescape=True) for column in columns))
        return or_(*(column.icontains(stored, autoescape=True) for column in columns))

    if dialect == "sqlite":
        key: Any = func.json_each(item.c.others).table_valued("value").c.value
    else:
        key = func.json_array_elements_text(cast(item.c.others, JSON)).column_valued()
    # By the index of ids, preference after preference of the ranking.
    ranked = select(_RANKED.c.id).where(_RANKED.c.project == item.c.project, _RANKED.c.key == key, holds(_RANKED))
    return or_(holds(_ONE), holds(_OTHER), item.c.others.is_not(None) & ranked.correlate(item).exists())


def load_items(connection: Connection, number: int, numbers: Sequence[int]) -> list[BrowsedItem]:
    """The items of these ids, in this order.

    Raises:
        DataError: the project has no such item.
    """
    names = ("key", "prompt", "chosen", "rejected", "extra", "annotator")
    query = (
        select(
            item,
            project.c.images,
            project.c.criteria,
            contested_item(answers_in(connection, number).values()).label("disputed"),
            *(_ONE.c[name].label(f"one_{name}") for name in names),
            *(_OTHER.c[name].label(f"other_{name}") for name in names),
        )
        .join_from(item, _ONE, _ONE.c.id == item.c.first)
        .outerjoin(_OTHER, _OTHER.c.id == item.c.second)
        .join(project, project.c.id == item.c.project)
        .where(item.c.id.in_(numbers))
    )
    rows = {row.id: row for row in connection.execute(query) if row.project == number}
    for one in numbers:
        if one not in rows:
            raise DataError(f"Project {number} has no item {one}.")
    given = _labels(connection, numbers)
    return [_item(connection, rows[one], given.get(one, [])) for one in numbers]


def _item(connection: Connection, row: Any, labels: Sequence[GivenLabel]) -> BrowsedItem:
    first = preference_text(row.one_key, row.one_prompt, row.one_chosen, row.one_rejected)
    second = None
    if row.other_key is not None:
        second = preference_text(row.other_key, row.other_prompt, row.other_chosen, row.other_rejected)
    rest = _ranked(connection, row.project, load_others(row.others))
    ranked = tuple(preference_text(one.key, one.prompt, one.chosen, one.rejected) for one in rest)
    both = [side for side in (first, second, *ranked) if side is not None]
    named = {name for side in both for name in (side.chosen, side.rejected) if isinstance(name, str)}
    extras = [(row.one_extra, row.one_annotator), (row.other_extra, row.other_annotator)]
    extras = extras[: 1 if second is None else 2] + [(one.extra, one.annotator) for one in rest]
    return BrowsedItem(
        id=row.id,
        position=row.position,
        kind=row.kind,
        first=first,
        second=second,
        response=row.response,
        gold=known_of(row.gold, row.gold_criteria, names_in(load_criteria(row.criteria))),
        done=row.taken,
        wanted=None if row.gold is not None else row.overlap,
        disputed=bool(row.disputed),
        labels=labels,
        images=known_images(connection, sorted(named)) if row.images else None,
        ranked=ranked,
        others=tuple(
            (json.loads(extra) if extra else {}) | ({"annotator": who} if who else {}) for extra, who in extras
        ),
    )


def _ranked(connection: Connection, number: int, keys: Sequence[str]) -> list[Any]:
    """The rows of preferences of a project, in this order."""
    found = {row.key: row for row in connection.execute(
        select(preference).where(preference.c.project == number, preference.c.key.in_(keys)))}  # fmt: skip
    return [found[key] for key in keys]


def _labels(connection: Connection, numbers: Sequence[int]) -> dict[int, list[GivenLabel]]:
    """What everybody says of these items, in the order in which they got them."""
    query = (
        select(
            assignment.c.item, assignment.c.state, assignment.c.is_repeat, assignment.c.training,
            assignment.c.adjudicates, annotator.c.name, annotator.c.kind, annotator.c.discarded, label.c.verdict,
            label.c.wrong, label.c.grade, label.c.confidence, label.c.note, label.c.seconds, label.c.revision,
            label.c.created_at,
        )
        .join_from(assignment, annotator, annotator.c.id == assignment.c.annotator)
        .outerjoin(label, CURRENT)
        .where(assignment.c.item.in_(numbers))
        .order_by(assignment.c.id)
    )  # fmt: skip
    found: dict[int, list[GivenLabel]] = {}
    for row in connection.execute(query):
        found.setdefault(row.item, []).append(
            GivenLabel(
                annotator=row.name,
                kind=row.kind,
                state=row.state,
                verdict=row.verdict if row.state == "done" else None,
                wrong=row.wrong,
                grade=row.grade,
                confidence=row.confidence,
                note=row.note or "",
                seconds=row.seconds,
                revision=row.revision or 0,
                at=row.created_at,
                counts=not row.discarded,
                decides=bool(row.adjudicates),
                again=bool(row.is_repeat),
            )
        )
    return found
