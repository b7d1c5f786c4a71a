"""Training items: gold items that come first, tell the known answer, and decide who goes on to the others."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, update

from popmargin.label.store.gold_answers import rightness
from popmargin.label.store.sql_tables import annotator, assignment, item, label


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How an annotator did in training.

    Attributes:
        given: training items so far.
        answered: of these.
        right: of these, with the known answer the first time (see `gold_answers.rightness`); what is changed after the
            feedback does not count.
    """

    given: int = 0
    answered: int = 0
    right: float = 0.0

    @property
    def share(self) -> float:
        """Right among the answered."""
        return self.right / self.answered if self.answered else 0.0


def trained(connection: Connection, number: int, who: int | None = None) -> dict[int, Trained]:
    """Annotator -> how they did, for those of a project who have got training items; or for one of them."""
    first = (label.c.assignment == assignment.c.id) & (label.c.revision == 1)
    query = (
        select(assignment.c.annotator, label.c.id, label.c.verdict, item.c.gold)
        .join_from(assignment, item, item.c.id == assignment.c.item)
        .outerjoin(label, first)
        .where(assignment.c.project == number, assignment.c.training)
    )
    found: dict[int, Trained] = {}
    for row in connection.execute(query if who is None else query.where(assignment.c.annotator == who)):
        had, answered = found.get(row.annotator, Trained()), row.id is not None
        right = rightness(row.verdict, row.gold) if answered and row.gold is not None else 0.0
        found[row.annotator] = Trained(given=had.given + 1, answered=had.answered + answered, right=had.right + right)
    return found


def qualify(connection: Connection, person: Any, *, more: bool) -> None:
    """After a training answer: hold an annotator who has answered all of them and got too few right.

    Args:
        connection: of the transaction.
        person: as of `assign.lock_annotator`.
        more: whether there are more training items for them.
    """
    if person.passing is None or person.held is not None or more:
        return
    tried = trained(connection, person.project, person.id)[person.id]
    if tried.answered == tried.given:
        held = tried.right < person.passing * tried.answered - 1e-9  # shares of comparisons are no exact numbers
        connection.execute(update(annotator).where(annotator.c.id == person.id).values(held=held))
