"""How labels change over time: agreement and seconds by blocks of labels and by day, and a test of their trends.

Axis suffixes: L labels, N items, K verdicts, C summed columns.
"""

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow.compute

from popmargin.data.questions import is_order
from popmargin.statistics.intervals import UNDEFINED, Interval
from popmargin.statistics.jackknife import share_of_sums, without_rows
from popmargin.statistics.medians import median_interval

pc: Any = pyarrow.compute
COLUMNS = ("assignment", "item", "annotator", "annotator_kind", "verdict", "seconds", "repeat_of", "created_at")
"""Columns of a table of labels that `drift_of` reads."""
_HUNDRED = 100
_BLOCKS = 12
_FEWEST = 30  # labels from which a trend is read


@dataclass(frozen=True)
class Block:
    """People's labels of one stretch of time.

    Attributes:
        first, last: number of the first and the last label, from 1.
        start: when its first label was given.
        agreement: with the majority of the other people on the item.
        seconds: median.
    """

    first: int
    last: int
    start: datetime
    agreement: Interval
    seconds: Interval


@dataclass(frozen=True)
class Day:
    """People's labels of one day.

    Attributes:
        day: in UTC, such as 2026-01-31.
        labels: how many.
        people: of how many.
        agreement, seconds: as of a block.
    """

    day: str
    labels: int
    people: int
    agreement: Interval
    seconds: Interval


@dataclass(frozen=True)
class Drift:
    """People's labels in the order in which they were given.

    Attributes:
        blocks: of a hundred labels, or several hundred.
        days: on which somebody labelled; empty if that was one day.
        agreement: change from the first to the last label, on a straight line; p of no change.
        seconds: last median as a multiple of the first, within people, on a straight line of logarithms; p of 1.
    """

    blocks: list[Block]
    agreement: Interval
    seconds: Interval
    days: list[Day] = field(default_factory=list[Day])


def drift_of(labels: Any) -> Drift | None:
    """Trends of people's first answers; None with fewer than 30 of them.

    Args:
        labels: as of `LabelStore.labels`, with `COLUMNS`.
    """
    first_time = pc.and_(pc.equal(labels["annotator_kind"], "person"), pc.is_null(labels["repeat_of"]))
    own = labels.filter(first_time).sort_by([("created_at", "ascending"), ("assignment", "ascending")])
    if own.num_rows < _FEWEST:
        return None
    time_L = np.linspace(0.0, 1.0, own.num_rows)
    item_L = np.unique(own["item"].to_numpy(), return_inverse=True)[1]
    hits_L2 = _hits(own, item_L)
    seconds_L = own["seconds"].to_numpy()
    starts = own["created_at"].to_pylist()
    size = _HUNDRED * max(1, math.ceil(own.num_rows / _HUNDRED / _BLOCKS))
    blocks: list[Block] = []
    for first in range(0, own.num_rows, size):
        part = slice(first, min(first + size, own.num_rows))
        blocks.append(Block(first + 1, part.stop, starts[first], *_figures(item_L, hits_L2, seconds_L, part)))
    days = _days(own, starts, item_L, hits_L2, seconds_L)
    return Drift(blocks, _trend(item_L, time_L, hits_L2), _pace(own, item_L, time_L, seconds_L), days)


def _days(
    own: Any, starts: list[datetime], item_L: np.ndarray, hits_L2: np.ndarray, seconds_L: np.ndarray
) -> list[Day]:
    """The days in UTC, of labels in the order of their times."""
    day_L = np.array([start.astimezone(UTC).date().isoformat() for start in starts])
    who_L = np.array(own["annotator"].to_pylist())
    names, first_D = np.unique(day_L, return_index=True)
    if len(names) == 1:
        return []
    days: list[Day] = []
    for name, first, stop in zip(names.tolist(), first_D, [*first_D[1:], len(day_L)], strict=True):
        part = slice(first, stop)
        figures = _figures(item_L, hits_L2, seconds_L, part)
        days.append(Day(name, int(stop - first), len(np.unique(who_L[part])), *figures))
    return days


def _figures(item_L: np.ndarray, hits_L2: np.ndarray, seconds_L: np.ndarray, part: slice) -> tuple[Interval, Interval]:
    """Agreement and median seconds of some labels."""
    timed = ~np.isnan(seconds_L[part])
    median = UNDEFINED
    if timed.any():
        median = median_interval(seconds_L[part][timed], item_L[part][timed].tolist())
    return share_of_sums(_by_item(item_L[part], hits_L2[part])), median


def _hits(own: Any, item_L: np.ndarray) -> np.ndarray:
    """What an answer scores against the other people's most frequent ones, and whether there are any (L, 2).

    Orders of several preferences score nothing: people seldom give the same one.
    """
    codes = pc.dictionary_encode(own["verdict"].combine_chunks())
    verdict_L = codes.indices.to_numpy()
    kinds, items = len(codes.dictionary), int(item_L.max()) + 1
    decided_L = np.array([name != "unsure" and not is_order(name) for name in codes.dictionary.to_pylist()])[verdict_L]
    counts_NK = np.bincount(item_L[decided_L] * kinds + verdict_L[decided_L], minlength=items * kinds)
    others_LK = counts_NK.reshape(items, kinds)[item_L]
    others_LK[np.arange(len(item_L)), verdict_L] -= decided_L
    modes_LK = (others_LK == others_LK.max(axis=1, keepdims=True)) & (others_LK > 0)
    known_L = decided_L & modes_LK.any(axis=1)
    score_L = modes_LK[np.arange(len(item_L)), verdict_L] / np.maximum(modes_LK.sum(axis=1), 1)
    return np.stack([score_L * known_L, known_L], axis=1)


def _by_item(item_L: np.ndarray, columns_LC: np.ndarray) -> np.ndarray:
    """Sums over the labels of each item."""
    _, item_L = np.unique(item_L, return_inverse=True)
    return np.stack([np.bincount(item_L, column) for column in columns_LC.T], axis=1)


def _trend(item_L: np.ndarray, time_L: np.ndarray, hits_L2: np.ndarray) -> Interval:
    """Least squares of agreement on time, with the jackknife over items."""
    hit_L, known_L = hits_L2.T
    columns = np.stack([known_L, time_L * known_L, time_L**2 * known_L, hit_L, time_L * hit_L], axis=1)

    def slope(sums_rC: np.ndarray) -> np.ndarray:
        n, x, xx, y, xy = np.moveaxis(sums_rC, -1, 0)
        return (n * xy - x * y) / (n * xx - x**2)

    if known_L.sum() < _FEWEST:
        return UNDEFINED
    return without_rows(_by_item(item_L, columns), slope).interval(null=0.0)


def _pace(own: Any, item_L: np.ndarray, time_L: np.ndarray, seconds_L: np.ndarray) -> Interval:
    """Least squares of log seconds on time, within people: those who are slower may have come later."""
    timed_L = seconds_L > 0  # also not nan
    if timed_L.sum() < _FEWEST:
        return UNDEFINED
    who = pc.dictionary_encode(own["annotator"].combine_chunks()).indices.to_numpy()[timed_L]
    count = np.bincount(who)
    x, y = time_L[timed_L], np.log(seconds_L[timed_L])
    x, y = (value - (np.bincount(who, value) / np.maximum(count, 1))[who] for value in (x, y))
    sums = _by_item(item_L[timed_L], np.stack([x * y, x * x], axis=1))
    found = without_rows(sums, lambda sums_rC: sums_rC[..., 0] / sums_rC[..., 1]).interval(null=0.0)
    return Interval(math.exp(found.estimate), math.exp(found.low), math.exp(found.high), found.p)
