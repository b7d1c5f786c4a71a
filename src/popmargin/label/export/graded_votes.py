"""What a grade is worth: how often answers of each grade are right, and soft labels from it (ours).

An answer about two responses may say that one is slightly, clearly or much better (1 to 3). Suppose an answer of grade
g is right with probability p(g), and answers to an item err independently. With d = 2p − 1, two answers of grades g and
h agree with probability (1 + d(g)·d(h)) / 2, and an answer agrees with a known one with probability (1 + d(g)) / 2.
Agreement therefore tells p, without anybody knowing which answers are right.

Axis suffix G: values of d on a grid.
"""

import functools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from popmargin.errors import DataError
from popmargin.statistics.intervals import Interval

GRADES = (1, 2, 3)
_KNOWN = 4
"""Beside the grades: an answer that is right."""
_STEPS = 40
_SUREST = 0.99
"""The most that one answer counts."""


@dataclass(frozen=True, kw_only=True)
class GradeCalibration:
    """How often answers of each grade are right.

    Attributes:
        right: the share, by grade, with its 95% interval.
        answers: answers of each grade.
        overlap: items on which people's graded answers were compared with each other.
        gold: answers that were compared with a known one.
        repeats: repeated answers that were compared with the first one; they count only if there is nothing else, since
            a person repeats errors, too.
    """

    right: Mapping[int, Interval]
    answers: Mapping[int, int]
    overlap: int
    gold: int
    repeats: int

    @property
    def any_grade(self) -> float:
        """The share of right answers over all grades, for answers without one."""
        total = sum(self.answers.values())
        return sum(self.right[grade].estimate * count for grade, count in self.answers.items()) / total

    def note(self) -> str:
        """What was found, in a sentence."""
        names = {1: "slightly", 2: "clearly", 3: "much"}
        shares = ", ".join(
            f"{names[grade]} {found.estimate:.0%} ({found.low:.0%} to {found.high:.0%}, {self.answers[grade]} answers)"
            for grade, found in self.right.items()
        )
        used = {"items with several answers": self.overlap, "known answers": self.gold, "repeats": self.repeats}
        sources = ", ".join(f"{count} {name}" for name, count in used.items() if count)
        return f"share of right answers by grade: {shares}; from {sources}"


def calibrate_grades(labels: Any) -> GradeCalibration:
    """The share of right answers of each grade, from overlap, gold items or repeats.

    It is the mean of a posterior under which all shares with slightly ≤ clearly ≤ much are equally likely before: with
    few comparisons it stays near 62%, 75% and 88%, and a higher grade is never worth less than a lower one. An item's n
    answers count as n / 2 comparisons. Ties and models are left out.

    Args:
        labels: as of `LabelStore.labels`, with kind, item, assignment, annotator_kind, verdict, grade, gold, repeat_of.

    Raises:
        DataError: no answer has a grade, or none can be compared.
    """
    rows = [row for row in labels.to_pylist() if _is_graded(row)]
    first_time = [row for row in rows if row["repeat_of"] is None]
    answers = {grade: sum(row["grade"] == grade for row in first_time) for grade in GRADES}
    if not first_time:
        raise DataError("No answer has a grade. Ask for grades in a project of its own (--kind preference --grades).")
    agree, differ = np.zeros((5, 5)), np.zeros((5, 5))
    by_item: defaultdict[int, list[Any]] = defaultdict(list)
    gold = 0
    for row in first_time:
        if row["gold"] in ("first", "second"):
            gold += 1
            (agree if row["verdict"] == row["gold"] else differ)[row["grade"], _KNOWN] += 1
        else:
            by_item[row["item"]].append(row)
    shared = [several for several in by_item.values() if len(several) > 1]
    for several in shared:
        for place, one in enumerate(several):
            for other in several[:place]:
                table = agree if one["verdict"] == other["verdict"] else differ
                table[one["grade"], other["grade"]] += 1 / (len(several) - 1)
    repeats = 0
    if not gold and not shared:
        before = {row["assignment"]: row for row in first_time}
        for row in rows:
            first = before.get(row["repeat_of"])
            if first is not None:
                repeats += 1
                (agree if row["verdict"] == first["verdict"] else differ)[row["grade"], first["grade"]] += 1
    if not gold and not shared and not repeats:
        raise DataError(
            "Grades cannot be calibrated: no item has graded answers by two people, none is known, and none was "
            "repeated. Use --overlap 2 or --repeat-share 0.1 for a part of the items, or export with --votes whole."
        )
    right = _posterior(agree, differ)
    return GradeCalibration(right=right, answers=answers, overlap=len(shared), gold=gold, repeats=repeats)


def _is_graded(row: Mapping[str, Any]) -> bool:
    return row["kind"] == "preference" and row["annotator_kind"] == "person" and row["grade"] is not None


@functools.cache
def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Values of d (G,), and which triples of them are in order (G, G, G)."""
    values = (np.arange(_STEPS) + 0.5) / _STEPS
    one, two, three = np.ogrid[:_STEPS, :_STEPS, :_STEPS]
    return values, (one <= two) & (two <= three)


def _posterior(agree: np.ndarray, differ: np.ndarray) -> dict[int, Interval]:
    values_G, ordered_GGG = _grid()
    axes = {
        1: values_G[:, None, None],
        2: values_G[None, :, None],
        3: values_G[None, None, :],
        _KNOWN: np.ones((1, 1, 1)),
    }
    fit = np.where(ordered_GGG, 0.0, -np.inf)
    for one, other in zip(*np.nonzero(agree + differ), strict=True):
        product = axes[int(one)] * axes[int(other)]
        fit = fit + agree[one, other] * np.log1p(product) + differ[one, other] * np.log1p(-product)
    weight = np.exp(fit - fit.max())
    weight /= weight.sum()
    found: dict[int, Interval] = {}
    for grade in GRADES:
        marginal = weight.sum(axis=tuple(axis for axis in range(3) if axis != grade - 1))
        below = np.cumsum(marginal)
        low, high = (float(values_G[np.searchsorted(below, end)]) for end in (0.025, 0.975))
        found[grade] = Interval(*((1 + d) / 2 for d in (float(marginal @ values_G), low, high)))
    return found


def graded_probabilities(labels: Any, calibration: GradeCalibration) -> Any:
    """The labels with the calibrated probability of an answer as its confidence; a person's answer without grade and
    confidence has that of all grades."""
    names = ("kind", "annotator_kind", "verdict", "grade", "confidence")
    confidences: list[float | None] = []
    for kind, who, verdict, grade, confidence in zip(*(labels[name].to_pylist() for name in names), strict=True):
        known = confidence
        if kind == "preference" and verdict in ("first", "second"):
            if grade is not None:
                known = calibration.right[grade].estimate
            elif who == "person" and confidence is None:
                known = calibration.any_grade
        confidences.append(known)
    place = labels.column_names.index("confidence")
    return labels.set_column(place, "confidence", pa.array(confidences, pa.float64()))


def together(probabilities: list[float]) -> float:
    """The probability that chosen is better, from independent answers, each with its own.

    Example:
        >>> round(together([0.8]), 3), round(together([0.8, 0.8]), 3), round(together([0.8, 0.5, 0.2]), 3)
        (0.8, 0.941, 0.5)
    """
    bounded = np.clip(probabilities, 1 - _SUREST, _SUREST)
    return float(1 / (1 + np.exp(-np.log(bounded / (1 - bounded)).sum())))


def mean_grades(labels: Any) -> dict[str, float]:
    """Preference id -> mean grade of people's answers, positive where chosen is better, 0 for a tie; only of those that
    have a graded answer."""
    said: defaultdict[str, list[int]] = defaultdict(list)
    graded: set[str] = set()
    for row in labels.to_pylist():
        if row["kind"] != "preference" or row["annotator_kind"] != "person" or row["repeat_of"] is not None:
            continue
        if row["verdict"] == "tie":
            said[row["first"]].append(0)
        elif _is_graded(row):
            said[row["first"]].append(row["grade"] if row["verdict"] == "first" else -row["grade"])
            graded.add(row["first"])
    return {key: sum(said[key]) / len(said[key]) for key in said if key in graded}
