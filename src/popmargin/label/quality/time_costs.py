"""The cost of labels: people's time per label of each kind, and ratings next to PoP labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from popmargin.data.questions import KINDS, RATINGS
from popmargin.statistics.intervals import UNDEFINED, Interval
from popmargin.statistics.medians import median_interval, ratio_of_medians


@dataclass(frozen=True)
class Pace:
    """Times in seconds.

    Attributes:
        labels: number timed: labels, or preferences with two ratings.
        people: number of people timed.
        median: with its interval by items (preferences), as several people may have labelled one.
        quarters: first and third quartile.
        per_hour: number per hour at the median time.
    """

    labels: int
    people: int
    median: Interval
    quarters: tuple[float, float]
    per_hour: float


@dataclass(frozen=True)
class Paces:
    """Times of people's labels; repeated items and answers that were changed have none.

    Attributes:
        kinds: a label of each kind that has times.
        strength: both ratings of a preference, which make its strength; None without such preferences.
        ratio: median time of a PoP label divided by that of a rating.
        strength_ratio: the same divided by the median time of both ratings of a preference.
        both: people who were timed at PoP labels and at ratings.
    """

    kinds: dict[str, Pace] = field(default_factory=dict[str, Pace])
    strength: Pace | None = None
    ratio: Interval = UNDEFINED
    strength_ratio: Interval = UNDEFINED
    both: int = 0


@dataclass(frozen=True)
class _Times:
    """Seconds of some answers, who gave them, and their median."""

    seconds: np.ndarray
    people: set[str]
    median: Interval

    @staticmethod
    def of(seconds: Sequence[float], clusters: Sequence[Any], people: set[str]) -> "_Times":
        values = np.array(seconds)
        return _Times(values, people, median_interval(values, clusters))

    @property
    def pace(self) -> Pace:
        median = self.median.estimate
        low, high = (float(np.percentile(self.seconds, end)) for end in (25, 75))
        per_hour = 3600 / median if median else np.inf
        return Pace(len(self.seconds), len(self.people), self.median, (low, high), per_hour)


def paces(rows: Sequence[Mapping[str, Any]]) -> Paces:
    """Times of labels.

    Args:
        rows: labels as of `LabelStore.labels`, without those of repeated items.
    """
    timed = [row for row in rows if row["annotator_kind"] == "person" and row["seconds"] is not None]
    found: dict[str, _Times] = {}
    for kind in KINDS:
        own = [row for row in timed if row["kind"] == kind]
        if own:
            people = {row["annotator"] for row in own}
            found[kind] = _Times.of([row["seconds"] for row in own], [row["item"] for row in own], people)
    strength = _strengths([row for row in timed if row["kind"] == "rating" and row["verdict"] in RATINGS])
    pop, rating = found.get("pop"), found.get("rating")
    return Paces(
        kinds={kind: times.pace for kind, times in found.items()},
        strength=None if strength is None else strength.pace,
        ratio=_ratio(pop, rating),
        strength_ratio=_ratio(pop, strength),
        both=len(pop.people & rating.people) if pop is not None and rating is not None else 0,
    )


def _strengths(rows: Sequence[Mapping[str, Any]]) -> _Times | None:
    """Times of both ratings of a preference, each the mean over the people who gave it."""
    given: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        given.setdefault(row["first"], {}).setdefault(row["response"], []).append(row["seconds"])
    whole = {
        key: sum(float(np.mean(side)) for side in sides.values()) for key, sides in given.items() if len(sides) == 2
    }
    people = {row["annotator"] for row in rows if row["first"] in whole}
    return _Times.of(list(whole.values()), list(whole), people) if whole else None


def _ratio(pop: _Times | None, other: _Times | None) -> Interval:
    """Ratio of the medians, treating answers as independent."""
    return UNDEFINED if pop is None or other is None else ratio_of_medians(pop.median, other.median)
