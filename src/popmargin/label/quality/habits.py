"""Answers that a person gives whatever is shown: runs of one side of the screen, and haste that grows."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute

pc: Any = pyarrow.compute
COLUMNS = ("assignment", "kind", "annotator", "annotator_kind", "verdict", "seconds", "swap_pairs", "swap_first",
           "created_at")  # fmt: skip
"""Columns of a table of labels that `habits_of` reads."""
_PART = 30  # labels at the beginning and at the end whose median times are compared


@dataclass(frozen=True)
class Habits:
    """One person's answers to comparisons, in their order.

    Attributes:
        decided: answers that name a side.
        left: those that name the left one.
        run: the longest run of the same side of the screen.
        by_chance: expected number of runs as long, if sides were drawn by a coin: they are, on the screen.
        first_seconds, last_seconds: median of the first and of the last thirty; nan with fewer than ninety.
    """

    decided: int
    left: int
    run: int
    by_chance: float
    first_seconds: float
    last_seconds: float


def habits_of(labels: Any) -> dict[str, Habits]:
    """Habits of each person who compared anything.

    Args:
        labels: as of `LabelStore.labels`, with `COLUMNS`.
    """
    wanted = pc.and_(pc.equal(labels["annotator_kind"], "person"), pc.not_equal(labels["kind"], "rating"))
    own = labels.filter(wanted).sort_by([("created_at", "ascending"), ("assignment", "ascending")])
    if not own.num_rows:
        return {}
    swaps = [pc.fill_null(own[name], False).to_numpy() for name in ("swap_pairs", "swap_first")]
    swapped = np.where(pc.equal(own["kind"], "pop").to_numpy(), *swaps)
    verdict = np.array(own["verdict"].to_pylist(), dtype=object)
    left = (verdict == "first") != swapped
    decided = np.isin(verdict, ["first", "second"])
    codes = pc.dictionary_encode(own["annotator"].combine_chunks())
    who, seconds = codes.indices.to_numpy(), own["seconds"].to_numpy()
    return {
        name: _habits(left[decided & (who == number)], seconds[who == number])
        for number, name in enumerate(codes.dictionary.to_pylist())
    }


def _habits(left: np.ndarray, seconds: np.ndarray) -> Habits:
    seconds = seconds[~np.isnan(seconds)]
    run = longest_run(left)
    first = last = math.nan
    if len(seconds) >= 3 * _PART:
        first, last = float(np.median(seconds[:_PART])), float(np.median(seconds[-_PART:]))
    return Habits(len(left), int(left.sum()), run, runs_by_chance(len(left), run), first, last)


def longest_run(values: np.ndarray) -> int:
    """Length of the longest run of equal values.

    Example:
        >>> longest_run(np.array([True, False, False, False, True]))
        3
    """
    if not len(values):
        return 0
    ends = np.flatnonzero(np.diff(values.astype(np.int8)) != 0)
    return int(np.diff(np.concatenate([[-1], ends, [len(values) - 1]])).max())


def runs_by_chance(count: int, length: int) -> float:
    """Expected number of runs of at least this length in tosses of a coin: (n − L)·2⁻ᴸ + 2·2⁻ᴸ.

    A run begins at the first toss, or where the side changes; the next L − 1 tosses must be the same.

    Example:
        >>> runs_by_chance(2, 2)  # of HH, HT, TH, TT
        0.5
        >>> runs_by_chance(3, 2)  # HHH, HHT, HTT, THH, TTH, TTT have one
        0.75
    """
    if length < 1 or count < length:
        return 0.0
    return 2.0 ** (1 - length) + (count - length) * 2.0**-length
