"""Items on which people disagree, for adjudicators, and the votes on them."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, cast, false, func, select
from sqlalchemy.types import Integer

from popmargin.data.conversation import Text
from popmargin.data.questions import Verdict
from popmargin.label.store.records import Wrong
from popmargin.label.store.sql_tables import annotator, assignment, item, label, preference

CURRENT = (label.c.assignment == assignment.c.id) & (label.c.revision == assignment.c.revision)
_RATING_GAP = 2
"""Points between two ratings of a response from which they disagree: neighbours on a scale are no dispute."""


@dataclass(frozen=True, kw_only=True)
class Vote:
    """What one person said of a disputed item."""

    verdict: Verdict
    wrong: Wrong | None
    note: str


def disputed(number: int) -> Select[Any]:
    """Items of a project that have all their labels, on which people disagree, and that nobody has adjudicated.

    People whose labels do not count have no say, nor has who cannot tell; ratings disagree from two points on.
    Rankings are never disputed: people seldom give the same order.
    """
    rating = cast(label.c.verdict, Integer)
    spread = func.max(rating) - func.min(rating)
    asked = _votes().join(item, item.c.id == assignment.c.item)
    votes = asked.where(assignment.c.project == number).group_by(assignment.c.item)
    apart = votes.where(item.c.kind.not_in(("rating", "rank"))).having(func.count(func.distinct(label.c.verdict)) > 1)
    far = votes.where(item.c.kind == "rating", label.c.verdict != "unsure").having(spread >= _RATING_GAP)
    decided = select(assignment.c.item).where(
        assignment.c.project == number, assignment.c.adjudicates, assignment.c.state.in_(("leased", "done"))
    )
    return select(item.c.id).where(
        item.c.project == number,
        item.c.gold.is_(None),
        item.c.taken >= item.c.overlap,
        item.c.id.in_(apart) | item.c.id.in_(far),
        item.c.id.not_in(decided),
    )


def contested_item() -> ColumnElement[bool]:
    """Whether people disagree on an item of the table, decided or not; one item at a time, by the index of its labels.

    As in `disputed`: ratings disagree from two points on.
    """
    votes = _votes().where(assignment.c.item == item.c.id).correlate(item)
    rating = cast(label.c.verdict, Integer)
    verdicts = votes.with_only_columns(func.count(func.distinct(label.c.verdict))).scalar_subquery()
    spread = votes.with_only_columns(func.max(rating) - func.min(rating)).scalar_subquery()
    return case(
        (item.c.kind == "rating", func.coalesce(spread, 0) >= _RATING_GAP),
        (item.c.kind == "rank", false()),
        else_=verdicts > 1,
    )


def _votes() -> Select[Any]:
    """The items of the current votes of people."""
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
            label.c.verdict != "unsure",
        )
    )


def votes_on(connection: Connection, number: int) -> list[Vote]:
    """The votes of people on an item, without their names, in an order that tells nobody who said what."""
    rows = connection.execute(
        _votes()
        .with_only_columns(label.c.verdict, label.c.wrong, label.c.note)
        .where(assignment.c.item == number)
        .order_by(label.c.verdict, label.c.note)
    )
    return [Vote(verdict=row.verdict, wrong=row.wrong, note=row.note) for row in rows]


def count_disputed(connection: Connection, number: int) -> int:
    """How many items of a project wait for an adjudicator."""
    return connection.execute(select(func.count()).select_from(disputed(number).subquery())).scalar_one()


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
        select(item.c.id, item.c.taken, one.c.prompt, other.c.prompt.label("second"))
        .join_from(item, one, one.c.id == item.c.first)
        .outerjoin(other, other.c.id == item.c.second)
        .where(item.c.id.in_(disputed(number)))
        .order_by(item.c.position)
        .limit(limit)
    )
    return [
        Disputed(
            item=row.id,
            prompts=tuple(json.loads(text) for text in (row.prompt, row.second) if text is not None),
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
