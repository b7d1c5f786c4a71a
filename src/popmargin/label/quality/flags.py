"""Annotators whose labels deserve a look, with the reasons; nothing is left out because of them."""

from collections.abc import Mapping, Sequence

import numpy as np

from popmargin.label.quality.annotator_row import AnnotatorRow
from popmargin.label.quality.habits import Habits
from popmargin.report.metrics import has_bounds, number
from popmargin.statistics.intervals import binomial_interval

MANY = 10
"""Labels that somebody has given before the speed says anything."""
HASTE = 0.25
"""Share of the other people's median time below which a median time is flagged."""
GLANCE = 1.0
"""Seconds in which nobody reads two responses."""
CHANCE = 0.2
"""Agreement beyond chance that is hardly any ("slight": Landis and Koch 1977)."""

RARE = 0.001
"""Expected number of runs of one side as long as somebody's longest, below which it is flagged."""
ONE_SIDE = 0.6
"""Share of one side of the screen that is flagged, if the whole interval is above it."""
HURRY = 1 / 3
"""Share of the first median time below which the last one is flagged."""


def flags_of(rows: Sequence[AnnotatorRow], habits: Mapping[str, Habits] | None = None) -> dict[str, list[str]]:
    """Name of each flagged annotator -> reasons, as phrases.

    People are flagged for a median time below `GLANCE`, or below `HASTE` of the other people's median, after `MANY`
    labels; everybody for a κ whose whole interval is below `CHANCE`, so not for having few labels. With `habits`,
    people are also flagged for a run of one side that a coin hardly gives (`RARE`), for preferring one (`ONE_SIDE`),
    and for times that fell below `HURRY` of the first ones.
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
        reasons += _habit_reasons(row, (habits or {}).get(row.name))
        if reasons:
            found[row.name] = reasons
    return found


def _habit_reasons(row: AnnotatorRow, habits: Habits | None) -> list[str]:
    if habits is None or row.kind != "person":
        return []
    reasons: list[str] = []
    if 0 < habits.by_chance < RARE:
        reasons.append(f"chose the same side {habits.run} times in a row")
    for side, count in (("left", habits.left), ("right", habits.decided - habits.left)):
        share = binomial_interval(count, habits.decided)
        if share.low > ONE_SIDE:
            reasons.append(f"chose the {side} side in {number(share.estimate, 0, share=True)} of answers")
    if habits.last_seconds < HURRY * habits.first_seconds:
        first, last = number(habits.first_seconds, 1), number(habits.last_seconds, 1)
        reasons.append(f"hurries: the median time fell from {first} to {last} s")
    return reasons
