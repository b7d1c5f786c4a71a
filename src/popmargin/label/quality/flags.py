"""Annotators whose labels deserve a look, with the reasons; nothing is left out because of them."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from popmargin.report.metrics import has_bounds, number
from popmargin.statistics.intervals import Interval

MANY = 10
"""Labels that somebody has given before the speed says anything."""
HASTE = 0.25
"""Share of the other people's median time below which a median time is flagged."""
GLANCE = 1.0
"""Seconds in which nobody reads two responses."""
CHANCE = 0.2
"""Agreement beyond chance that is hardly any ("slight": Landis and Koch 1977)."""


class Measured(Protocol):
    """What is read of a row of `annotator_quality` or `rating_quality`."""

    @property
    def name(self) -> str:
        """Of the annotator."""
        ...

    @property
    def kind(self) -> str:
        """Of the annotator."""
        ...

    @property
    def labels(self) -> int:
        """Number of labels."""
        ...

    @property
    def seconds(self) -> float:
        """Median time per label."""
        ...

    @property
    def kappa(self) -> Interval:
        """Cohen's κ with the other people."""
        ...


def flags_of(rows: Sequence[Measured]) -> dict[str, list[str]]:
    """Name of each flagged annotator -> reasons, as phrases.

    People are flagged for a median time below `GLANCE`, or below `HASTE` of the other people's median, after `MANY`
    labels; everybody for a κ whose whole interval is below `CHANCE`, so not for having few labels.
    """
    found: dict[str, list[str]] = {}
    people = [row for row in rows if row.kind == "person"]
    for row in rows:
        reasons: list[str] = []
        others = [one.seconds for one in people if one is not row and one.seconds == one.seconds]
        usual = float(np.median(others)) if others else float("nan")
        if row.kind == "person" and row.labels >= MANY and (row.seconds < GLANCE or row.seconds < HASTE * usual):
            compared = f", the others' is {number(usual, 1)} s" if others else ""
            reasons.append(f"fast: the median time is {number(row.seconds, 2)} s{compared}")
        if has_bounds(row.kappa) and row.kappa.high < CHANCE:
            low, high = number(row.kappa.low, 2), number(row.kappa.high, 2)
            reasons.append(f"agrees hardly more than by chance: κ is {number(row.kappa.estimate, 2)} ({low} to {high})")
        if reasons:
            found[row.name] = reasons
    return found
