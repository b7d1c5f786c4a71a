"""Items on which people disagree, for adjudicators, and the votes on them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, cast, func, or_, select
from sqlalchemy.types import Integer

from popmargin.data.conversation import Text
from popmargin.data.questions import RANKED, Verdict
from popmargin.label.store.criteria import load_verdicts
from popmargin.label.store.ranked_items import load_others
from popmargin.label.store.records import Wrong
from popmargin.label.store.sql_tables import annotator, assignment, item, label, preference
from popmargin.label.store.verdict_on import answers_in

CURRENT = (label.c.assignment == assignment.c.id) & (label.c.revision == assignment.c.revision)
_RATING_GAP = 2
"""Points between two ratings of a response from which they disagree: neighbours on a scale are no dispute."""


@dataclass(frozen=True, kw_only=True)
class Vote:
    """What one person said of a disputed item; `criteria` has the verdicts on the criteria after the first."""

    verdict: Verdict
    wrong: Wrong | None
    note: str
    criteria: Mapping[str, Verdict]


def disputed(number: int, answers: Iterable[ColumnElement[Any]]) -> Select[Any]:
    """Items of a project that have all their labels, on which people disagree, and that nobody has adjudicated.

    People whose labels do not count have no say, nor has who cannot tell; ratings disagree from two points on, and
    rankings where people are of different minds about at least half of the comparisons (see `_apart`). With several
    criteria, they disagree on an item if they do on any of these.

    Args:
        number: of the project.
        answers: what is compared, as of `verdict_on.answers_in`.
    """
    decided = select(assignment.c.item).where(
        assignment.c.project == number, assignment.c.adjudicates, assignment.c.state.in_(("leased", "done"))
    )
    contested: list[ColumnElement[bool]] = []
    for said in answers:
        rating = cast(said, Integer)
        spread = func.max(rating) - func.min(rating)
        asked = _votes(said).join(item, item.c.id == assignment.c.item)
        votes = asked.where(assignment.c.project == number).group_by(assignment.c.item)
        apart = votes.where(item.c.kind.not_in(("rating", "rank"))).having(func.count(func.distinct(said)) > 1)
        far = votes.where(item.c.kind == "rating").having(spread >= _RATING_GAP)
        ranked = votes.where(item.c.kind == "rank").having(_apart(said))
        contested += [item.c.id.in_(apart), item.c.id.in_(far), item.c.id.in_(ranked)]
    return select(item.c.id).where(
        item.c.project == number,
        item.c.gold.is_(None),
        item.c.taken >= item.c.overlap,
        or_(*contested),
        item.c.id.not_in(decided),
    )


def contested_item(answers: Iterable[ColumnElement[Any]]) -> ColumnElement[bool]:
    """Whether people disagree on an item of the table, decided or not; one item at a time, by the index of its labels.

    As in `disputed`: ratings disagree from two points on, rankings on half of the comparisons, and any criterion is
    enough.
    """
    found: list[ColumnElement[bool]] = []
    for said in answers:
        votes = _votes(said).where(assignment.c.item == item.c.id).correlate(item)
        rating = cast(said, Integer)
        verdicts = votes.with_only_columns(func.count(func.distinct(said))).scalar_subquery()
        spread = votes.with_only_columns(func.max(rating) - func.min(rating)).scalar_subquery()
        ranked = votes.with_only_columns(_apart(said)).scalar_subquery()
        found.append(
            case(
                (item.c.kind == "rating", func.coalesce(spread, 0) >= _RATING_GAP),
                (item.c.kind == "rank", ranked),
                else_=verdicts > 1,
            )
        )
    return or_(*found)


def _apart(said: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether orders of an item differ on at least half of its comparisons; of two orders: whether Kendall's τ ≤ 0.

    An order of m is 2m − 1 characters, so that half of its m(m − 1)/2 comparisons are (length² − 1)/16.
    """
    before = [
        case((said.like(f"%{one}%{other}%"), 1), else_=0) for one, other in combinations(range(1, RANKED[-1] + 1), 2)
    ]
    differ = sum((func.max(one) - func.min(one) for one in before[1:]), func.max(before[0]) - func.min(before[0]))
    length = func.max(func.length(said))
    return func.coalesce(16 * differ >= length * length - 1, False)


def _votes(said: ColumnElement[Any]) -> Select[Any]:
    """The items of the current votes of people, on the question that is answered there."""
    return _people().where(said.is_not(None), said != "unsure")


def _people() -> Select[Any]:
    """The items of the current labels of people."""
    return (
        select(assignment.c.item)
        .join_from(assignment, label, CURRENT)
        .join(annotator, annotator.c.id == assignment.c.annotator)
        .where(
            assignment.c.state == "done",
            ~assignment.c.is_repeat,
            assignment.c.adjudicates.is_not(True),
            annotator.c.kind == "person",
            annotator.c.discarded.is_not(True),
            label.c.verdict.is_not(None),
        )
    )


def votes_on(connection: Connection, number: int) -> list[Vote]:
    """The votes of people on an item, without their names, in an order that tells nobody who said what.

    Who cannot tell has none; with several criteria, who cannot tell on all of them.
    """
    rows = connection.execute(
        _people()
        .with_only_columns(label.c.verdict, label.c.wrong, label.c.note, label.c.criteria)
        .where(assignment.c.item == number)
        .order_by(label.c.verdict, label.c.criteria, label.c.note)
    )
    votes = [
        Vote(verdict=row.verdict, wrong=row.wrong, note=row.note, criteria=load_verdicts(row.criteria)) for row in rows
    ]
    return [vote for vote in votes if {vote.verdict, *vote.criteria.values()} != {"unsure"}]


def count_disputed(connection: Connection, number: int) -> int:
    """How many items of a project wait for an adjudicator."""
    return _count(connection, number, answers_in(connection, number).values())


def disputed_by_criterion(connection: Connection, number: int) -> dict[str, int]:
    """Criterion -> how many items wait for an adjudicator since people disagree on it; empty for a single question."""
    answers = answers_in(connection, number)
    return {name: _count(connection, number, [said]) for name, said in answers.items() if name}


def _count(connection: Connection, number: int, answers: Iterable[ColumnElement[Any]]) -> int:
    return connection.execute(select(func.count()).select_from(disputed(number, answers).subquery())).scalar_one()


@dataclass(frozen=True, kw_only=True)
class Disputed:
    """An item that waits for an adjudicator.

    Attributes:
        prompts: of its preferences.
        votes: how many people have judged it.
    """

    item: int
    prompts: tuple[Text, ...]
    votes: int


def disputed_items(connection: Connection, number: int, limit: int) -> list[Disputed]:
    """The first items of a project that wait for an adjudicator, in its order."""
    one, other = preference.alias("one"), preference.alias("other")
    rows = connection.execute(
        select(item.c.id, item.c.taken, item.c.others, one.c.prompt, other.c.prompt.label("second"))
        .join_from(item, one, one.c.id == item.c.first)
        .outerjoin(other, other.c.id == item.c.second)
        .where(item.c.id.in_(disputed(number, answers_in(connection, number).values())))
        .order_by(item.c.position)
        .limit(limit)
    ).all()
    ranked = {key for row in rows for key in load_others(row.others)}
    texts = {
        row.key: row.prompt
        for row in connection.execute(
            select(preference.c.key, preference.c.prompt).where(
                preference.c.project == number, preference.c.key.in_(ranked)
            )
        )
    }
    return [
        Disputed(
            item=row.id,
            prompts=tuple(
                json.loads(text)
                for text in (row.prompt, row.second, *(texts[key] for key in load_others(row.others)))
                if text is not None
            ),
            votes=row.taken,
        )
        for row in rows
    ]


def settled(number: int) -> Select[tuple[int]]:
    """Items of a project that an adjudicator, whose labels count, has decided."""
    return (
        select(assignment.c.item)
        .join_from(assignment, label, CURRENT)
        .join(annotator, annotator.c.id == assignment.c.annotator)
        .where(
            assignment.c.project == number,
            assignment.c.adjudicates,
            annotator.c.discarded.is_not(True),
            label.c.verdict.is_not(None),
            label.c.verdict != "unsure",
        )
    )
