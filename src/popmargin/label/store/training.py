"""Training items: gold items that come first, tell the known answer, and decide who goes on to the others."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select, update

from popmargin.label.store.sql_tables import annotator, assignment, item, label


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How an annotator did in training.

    Attributes:
        given: training items so far.
        answered: of these.
        right: of these, with the known answer the first time; what is changed after the feedback does not count.
    """

    given: int = 0
    answered: int = 0
    right: int = 0


def trained(connection: Connection, number: int) -> dict[int, Trained]:
    """Annotator -> how they did, for those of a project who have got training items."""
    first = (label.c.assignment == assignment.c.id) & (label.c.revision == 1)
    right = func.sum(func.coalesce(label.c.verdict == item.c.gold, False).cast(label.c.revision.type))
    rows = connection.execute(
        select(assignment.c.annotator, func.count(), func.count(label.c.id), right)
        .join_from(assignment, item, item.c.id == assignment.c.item)
        .outerjoin(label, first)
        .where(assignment.c.project == number, assignment.c.training)
        .group_by(assignment.c.annotator)
    )
    return {who: Trained(given=given, answered=answered, right=int(good or 0)) for who, given, answered, good in rows}


def qualify(connection: Connection, person: Any, *, more: bool) -> None:
    """After a training answer: hold an annotator who has answered all of them and got too few right.

    Args:
        connection: of the transaction.
        person: as of `assign.lock_annotator`.
        more: whether there are more training items for them.
    """
    if person.passing is None or person.held is not None or more:
        return
    tried = trained(connection, person.project)[person.id]
    if tried.answered == tried.given:
        held = tried.right < person.passing * tried.answered
        connection.execute(update(annotator).where(annotator.c.id == person.id).values(held=held))
