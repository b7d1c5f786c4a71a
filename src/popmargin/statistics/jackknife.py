"""The cluster jackknife: the variance of a statistic of clustered rows in several seeds.

Axis suffixes: S seeds, N rows, G clusters, C columns, r leave-outs, D distinct rows.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from popmargin.errors import DataError, counted
from popmargin.statistics.intervals import UNDEFINED, Clusters, Interval, Scale, Spread, cluster_freedom

_CELLS = 2**22  # cells of one block of counts: 32 MiB
_MOST_LEFT_OUT = 500  # leave-outs of a statistic that is not a function of sums; more clusters are left out in sets


@dataclass(frozen=True)
class Estimate:
    """A statistic in every seed, and how each cluster pulls it.

    Attributes:
        per_seed: the statistic of all rows in each seed (S,).
        pulls: (G − 1)·(statistic of all − statistic without the cluster) (S, G); their squares give its variance.
        sizes: rows of each cluster (G,).
    """

    per_seed: Float[np.ndarray, " S"]
    pulls: Float[np.ndarray, "S G"]
    sizes: Int[np.ndarray, " G"]

    @property
    def value(self) -> float:
        """Mean over seeds."""
        return float(self.per_seed.mean()) if len(self.sizes) else math.nan

    def spread(self, other: "Estimate | None" = None) -> Spread:
        """Variances of the mean over seeds, or of the difference from another arm with other seeds."""
        arms = [self] if other is None else [self, other]
        count = len(self.sizes)
        if count < 2:
            return Spread(math.nan, math.nan, count=count)
        pull_G = self.pulls.mean(axis=0) - (0.0 if other is None else other.pulls.mean(axis=0))
        found = Spread(float((pull_G**2).sum()) / (count * (count - 1)), cluster_freedom(self.sizes), count=count)
        freedom = sum(len(arm.per_seed) - 1 for arm in arms)
        if not freedom:
            return found
        shares = sum(1 / len(arm.per_seed) for arm in arms)
        seeds = sum(float(((arm.per_seed - arm.per_seed.mean()) ** 2).sum()) for arm in arms) / freedom
        noise = sum(arm.noise for arm in arms) / (freedom * (count - 1) * count)
        return Spread(
            found.clusters, found.freedom, shares * seeds, freedom, shares * noise, freedom * found.freedom, count
        )

    @property
    def noise(self) -> float:
        """Sum of squared pulls explained by neither seed nor cluster."""
        rest_SG = self.pulls - self.pulls.mean(axis=0) - self.pulls.mean(axis=1, keepdims=True) + self.pulls.mean()
        return float((rest_SG**2).sum())

    def interval(self, *, level: float = 0.95, scale: Scale = "plain", null: float | None = None) -> Interval:
        """The mean over seeds with its interval (see `Spread.interval`)."""
        return self.spread().interval(self.value, level=level, scale=scale, null=null) if len(self.sizes) else UNDEFINED

    def minus(self, other: "Estimate", *, level: float = 0.95) -> Interval:
        """The difference from another arm on the same rows, with its interval (see `spread_of_difference`)."""
        if not len(self.sizes):
            return UNDEFINED
        return self.spread_of_difference(other).interval(self.value - other.value, level=level, null=0.0)

    def spread_of_difference(self, other: "Estimate") -> Spread:
        """For the difference from another arm on the same rows.

        With equal numbers of seeds, seed s is paired with seed s. Otherwise the seeds of both arms are
        independent, with a pooled spread, so one arm may have a single seed.

        Raises:
            DataError: the arms have different clusters.
        """
        if self.sizes.shape != other.sizes.shape:
            raise DataError(
                f"The arms have {len(self.sizes)} and {counted(len(other.sizes), 'cluster')}; measure the same rows."
            )
        if len(self.per_seed) == len(other.per_seed):
            return Estimate(self.per_seed - other.per_seed, self.pulls - other.pulls, self.sizes).spread()
        return self.spread(other)


def without_each(
    columns: Float[np.ndarray, "S N C"],
    clusters: Clusters | Sequence[Hashable],
    statistic: Callable[[np.ndarray], np.ndarray],
) -> Estimate:
    """A statistic of column sums, such as a mean, a ratio or a correlation.

    Args:
        columns: numbers to sum over rows (S, N, C). All-zero rows do not count.
        clusters: cluster of each row (N,).
        statistic: maps sums (..., C) to values (...).

    Example:
        >>> rows = np.array([[[1.0, 1.0], [2.0, 1.0], [4.0, 1.0], [5.0, 1.0]]])
        >>> without_each(rows, "aabb", lambda sums: sums[..., 0] / sums[..., 1]).interval().estimate
        3.0
    """
    groups = clusters if isinstance(clusters, Clusters) else Clusters(clusters)
    rows_N = np.any(columns != 0, axis=(0, 2))
    sizes_G = np.bincount(groups.of_row[rows_N], minlength=groups.count)
    used = sizes_G > 0
    sums_SGC = np.stack([groups.sums(columns_NC) for columns_NC in columns])[:, used]
    total_S1C = sums_SGC.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        all_S1, without_SG = statistic(total_S1C), statistic(total_S1C - sums_SGC)
    return _estimate(all_S1[:, 0], without_SG, sizes_G[used])


def without_sets(statistic: Callable[[int, np.ndarray], np.ndarray], groups: Clusters, seeds: int) -> Estimate:
    """A statistic of how often each cluster counts (0 or 1), for many leave-outs at once.

    With more than 500 clusters, 500 random sets of equal size are left out in turn instead.

    Args:
        statistic: called with (number of the seed, counts (r, G)); returns (r,).
        groups: the clusters.
        seeds: number of seeds.
    """
    if not groups.count:
        return Estimate(np.full(seeds, np.nan), np.zeros((seeds, 0)), groups.sizes)
    sets = min(groups.count, _MOST_LEFT_OUT)
    # A fixed order, so two arms leave out the same sets.
    order = np.arange(groups.count) if sets == groups.count else np.random.default_rng(0).permutation(groups.count)
    set_G = order % sets
    block = max(1, _CELLS // groups.count)
    with np.errstate(divide="ignore", invalid="ignore"):
        per_seed = np.array([statistic(s, np.ones((1, groups.count)))[0] for s in range(seeds)], dtype=np.float64)
        without: list[Any] = []
        for start in range(0, sets, block):
            counts_rG = (set_G != np.arange(start, min(start + block, sets))[:, None]).astype(np.float64)
            without.append([statistic(s, counts_rG) for s in range(seeds)])
    sizes = np.bincount(set_G, weights=groups.sizes, minlength=sets).astype(np.int64)
    return _estimate(per_seed, np.concatenate(without, axis=1), sizes)


def without_rows(rows: Float[np.ndarray, "N C"], statistic: Callable[[np.ndarray], np.ndarray]) -> Estimate:
    """A statistic of column sums in one seed, for rows that are each a cluster, many of them equal.

    Args:
        rows: numbers to sum (N, C).
        statistic: maps sums (r, C) to values (r,); called once, with the distinct rows.
    """
    if not len(rows):
        return Estimate(np.full(1, np.nan), np.zeros((1, 0)), np.zeros(0, dtype=np.int64))
    # Equal rows get equal numbers, and sorting those takes a tenth of the time of sorting rows.
    weights = np.random.default_rng(0).random(rows.shape[1])
    _, place_D, of_row = np.unique((rows * weights).sum(axis=1), return_index=True, return_inverse=True)
    total_1C = rows.sum(axis=0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        all_1, without_D = statistic(total_1C), statistic(total_1C - rows[place_D])
    return _estimate(all_1, without_D[of_row][None], np.ones(len(rows), dtype=np.int64))


def jackknife(
    statistic: Callable[[np.ndarray], float],
    clusters: Sequence[Hashable],
    *,
    level: float = 0.95,
    scale: Scale = "plain",
) -> Interval:
    """Interval of any smooth statistic of rows: Student's t with the cluster jackknife's variance.

    For a paired difference of two arms on the same rows, let the statistic return the difference. Medians and other
    quantiles are not smooth: see `medians.py`.

    Args:
        statistic: called with row indices; returns a number, or nan if undefined.
        clusters: cluster of each row (N,), for instance the prompt.
        level: of the interval.
        scale: as in `Spread.interval`.

    Returns:
        The statistic on all rows with its interval; its ends are nan with fewer than two clusters, or if the
        statistic is undefined without one of them.

    Example:
        >>> values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        >>> round(jackknife(lambda rows: values[rows].mean(), "aabbcc").high, 2)
        8.47
    """
    return jackknife_seeds(lambda _, rows: statistic(rows), clusters, 1, level=level, scale=scale)


def jackknife_seeds(
    statistic: Callable[[int, np.ndarray], float],
    clusters: Sequence[Hashable],
    seeds: int,
    *,
    level: float = 0.95,
    scale: Scale = "plain",
) -> Interval:
    """Interval of the mean over seeds of a statistic: clusters and seeds are crossed levels (see `Spread`).

    With one seed the interval covers only the clusters: it says nothing about another training run.

    Args:
        statistic: called with (number of the seed, row indices).
        clusters: cluster of each row (N,), the same rows in every seed.
        seeds: number of seeds.
        level, scale: as in `jackknife`.

    Returns:
        The mean over seeds with its interval.
    """
    groups = Clusters(clusters)

    def of_counts(seed: int, counts_rG: np.ndarray) -> np.ndarray:
        return np.array([statistic(seed, np.flatnonzero(counts[groups.of_row])) for counts in counts_rG])

    return without_sets(of_counts, groups, seeds).interval(level=level, scale=scale)


def row_means(values: Float[np.ndarray, "S N"], clusters: Clusters | Sequence[Hashable]) -> Estimate:
    """The mean over rows."""
    return without_each(np.stack([values, np.ones_like(values)], axis=-1), clusters, ratio)


def ratio(sums: np.ndarray) -> np.ndarray:
    """The first column's sum divided by the second's."""
    return sums[..., 0] / sums[..., 1]


def _estimate(per_seed: Any, without_SG: Any, sizes_G: Any) -> Estimate:
    return Estimate(per_seed, (len(sizes_G) - 1) * (per_seed[:, None] - without_SG), sizes_G)


def share_of_sums(sums: Float[np.ndarray, "N 2"], *, confidence: float = 0.95) -> Interval:
    """A share Σ hits / Σ trials over items, with its interval.

    Args:
        sums: hits and trials of each item; items without trials are excluded.
        confidence: of the interval.

    Example:
        >>> share_of_sums(np.array([[1.0, 2.0], [2.0, 2.0]])).estimate
        0.75
    """
    sums = sums[sums[:, 1] > 0]

    def statistic(sums_rC: np.ndarray) -> np.ndarray:
        return sums_rC[:, 0] / sums_rC[:, 1]

    return without_rows(sums, statistic).interval(level=confidence, scale="share")
