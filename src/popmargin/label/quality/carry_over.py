"""Whether a preference that stays on the screen from the task before is chosen more often for it: the order effect."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from popmargin.statistics.intervals import Interval, binomial_interval


@dataclass(frozen=True)
class CarryOver:
    """Answers to tasks that kept one preference of the annotator's task before.

    Attributes:
        tasks: decided ones.
        stayed: share in which the preference that stayed was chosen; ½ if staying has no effect, since the order of a
            chain is random.
    """

    tasks: int
    stayed: Interval


def carry_over(rows: Sequence[Mapping[str, Any]]) -> CarryOver | None:
    """The order effect of chained tasks among people; None without such tasks.

    Neighbouring answers are not independent: who wins against a stronger one stays and meets the next. This makes the
    share vary less than that of independent answers, so the interval is not too narrow.

    Args:
        rows: of a table of labels, as of `LabelStore.labels`, without repeats.

    Example:
        >>> row = {"kind": "pop", "annotator_kind": "person", "annotator": "ann", "verdict": "first", "assignment": 1}
        >>> rows = [row | {"first": "a", "second": "b"}, row | {"first": "b", "second": "c", "assignment": 2}]
        >>> carry_over(rows).stayed.estimate
        1.0
    """
    people: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["kind"] == "pop" and row["annotator_kind"] == "person":
            people.setdefault(row["annotator"], []).append(row)
    won = tasks = 0
    for own in people.values():
        own.sort(key=lambda row: row["assignment"])
        for before, now in itertools.pairwise(own):
            shared = {before["first"], before["second"]} & {now["first"], now["second"]}
            if len(shared) == 1 and now["verdict"] in ("first", "second"):
                tasks += 1
                won += now[now["verdict"]] in shared
    return CarryOver(tasks, binomial_interval(won, tasks)) if tasks else None
