"""Weak, medium and strong preferences, defined in one place."""

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

STRENGTHS = ("weak", "medium", "strong")


def rank_buckets(values: Float[np.ndarray, " N"], buckets: int) -> Int[np.ndarray, " N"]:
    """Buckets of equal size by rank: 0 has the smallest; -1 where the value is nan.

    Equal values stay together, in the bucket of their middle rank: bucket = ⌊B·(r - ½)/n⌋ with r the mean rank of the
    tied values among the n known ones. So the result does not depend on the order of the rows, buckets have unequal
    sizes if many values tie, and if all values are equal they are in the middle.

    Example:
        >>> rank_buckets(np.array([3.0, 1.0, 2.0, np.nan]), 3).tolist()
        [2, 0, 1, -1]
        >>> rank_buckets(np.array([1.0, 1.0, 1.0, 5.0]), 3).tolist()
        [1, 1, 1, 2]
    """
    known = ~np.isnan(values)
    bucket = np.full(len(values), -1, dtype=np.int64)
    # Mean ranks are multiples of ½, so twice the rank is a whole number and rounding cannot split a tie.
    twice = np.rint(2 * rankdata(values[known], method="average")).astype(np.int64)
    bucket[known] = (buckets * (twice - 1)) // max(1, 2 * int(known.sum()))
    return bucket


def strength_thirds(strength: Float[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """Index into `STRENGTHS` for each preference, by `rank_buckets`; -1 where the strength is unknown."""
    return rank_buckets(strength, len(STRENGTHS))
