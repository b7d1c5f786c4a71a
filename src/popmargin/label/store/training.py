"""Training items: gold items that come first, tell the known answer, and decide who goes on to the others."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, update

from popmargin.label.store.criteria import load_verdicts
from popmargin.label.store.gold_answers import rightness
from popmargin.label.store.known import known_of
from popmargin.label.store.sql_tables import annotator, assignment, item, label
from popmargin.label.store.verdict_on import question_names


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How an annotator did in training.

    Attributes:
        given: training items so far.
        answered: of these.
        asked: known answers of the answered ones: one an item, or one for each criterion whose answer is known.
        right: of these, given the first time (see `gold_answers.rightness`); what is changed after the feedback does
            not count.
    """

    given: int = 0
    answered: int = 0
    asked: int = 0
    right: float = 0.0

    @property
    def share(self) -> float:
        """Right among the known answers of those that were answered."""
        return self.right / self.asked if self.asked else 0.0


def trained(connection: Connection, number: int, who: int | None = None) -> dict[int, Trained]:
    """Annotator -> how they did, for those of a project who have got training items; or for one of them."""
    first = (label.c.assignment == assignment.c.id) & (label.c.revision == 1)
    columns = assignment.c.annotator, item.c.gold, item.c.gold_criteria, label.c.id, label.c.verdict, label.c.criteria
    query = (
        select(*columns)
        .join_from(assignment, item, item.c.id == assignment.c.item)
        .outerjoin(label, first)
        .where(assignment.c.project == number, assignment.c.training)
    )
    names, found = question_names(connection, number), dict[int, Trained]()
    for row in connection.execute(query if who is None else query.where(assignment.c.annotator == who)).all():
        had, answered = found.get(row.annotator, Trained()), row.id is not None
        known = known_of(row.gold, row.gold_criteria, names) if answered else {}
        said = {names[0]: row.verdict, **load_verdicts(row.criteria)}
        right = sum(rightness(said.get(name), verdict) for name, verdict in known.items())
        found[row.annotator] = Trained(
            given=had.given + 1,
            answered=had.answered + answered,
            asked=had.asked + len(known),
            right=had.right + right,
        )
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
        held = tried.right < person.passing * tried.asked - 1e-9  # shares of comparisons are no exact numbers
        connection.execute(update(annotator).where(annotator.c.id == person.id).values(held=held))
