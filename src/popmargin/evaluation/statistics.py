"""Intervals for dependent rows: cluster bootstrap, several seeds of one arm, and edges between clusters.

Axis suffixes: S seeds, N rows, G clusters, R bootstrap replicates, C columns, E edges.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import norm, rankdata
from scipy.stats import t as student

from popmargin.errors import ConfigError, DataError

_CELLS = 2**22  # cells of one block of resampling counts: 32 MiB


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; all nan where it is not defined."""

    estimate: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """Plain numbers for JSON; None where not defined.

        Example:
            >>> Interval(0.5, 0.4, float("nan")).to_dict()
            {'estimate': 0.5, 'low': 0.4, 'high': None}
        """
        values = {"estimate": self.estimate, "low": self.low, "high": self.high}
        return {name: None if math.isnan(value) else value for name, value in values.items()}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Interval":
        """The inverse of `to_dict`."""
        numbers = {
            name: math.nan if values[name] is None else float(values[name]) for name in ("estimate", "low", "high")
        }
        return Interval(**numbers)

    def clip(self, low: float, high: float) -> "Interval":
        """The same with its bounds kept inside a range (0 and 1 for shares)."""
        return Interval(self.estimate, *(float(np.clip(bound, low, high)) for bound in (self.low, self.high)))


UNDEFINED = Interval(math.nan, math.nan, math.nan)


class Clusters:
    """Rows grouped into clusters that are resampled as wholes.

    Args:
        clusters: one label per row (N,); rows with equal labels belong together.
    """

    def __init__(self, clusters: Sequence[Hashable]) -> None:
        numbers: dict[Hashable, int] = {}
        self.of_row = np.fromiter(
            (numbers.setdefault(name, len(numbers)) for name in clusters), np.int64, len(clusters)
        )
        self.count = len(numbers)
        self._rows = np.argsort(self.of_row, kind="stable")
        self._sizes = np.bincount(self.of_row, minlength=self.count)
        self._starts = np.cumsum(self._sizes) - self._sizes

    def sums(self, columns_NC: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "G C"]:
        """Sum of every column over the rows of each cluster."""
        sums = [np.bincount(self.of_row, weights=column, minlength=self.count) for column in columns_NC.T]
        return np.stack(sums, axis=1)

    def draws(self, samples: int, seed: int) -> Iterator[Int[np.ndarray, "r G"]]:
        """Clusters drawn with replacement, in blocks of replicates; the same seed gives the same draws everywhere."""
        rng = np.random.default_rng(seed)
        block = max(1, _CELLS // max(1, self.count))
        for start in range(0, samples, block):
            yield rng.integers(self.count, size=(min(block, samples - start), self.count))

    def rows(self, draw: Int[np.ndarray, " G"]) -> Int[np.ndarray, " n"]:
        """Row numbers of the drawn clusters, each as often as its cluster was drawn."""
        sizes = self._sizes[draw]
        offsets = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return self._rows[np.repeat(self._starts[draw], sizes) + offsets]


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    clusters: Sequence[Hashable],
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of any statistic by the cluster bootstrap: clusters are drawn with replacement.

    For a paired difference of two arms on the same rows, let the statistic return the difference.

    Args:
        statistic: called with row indices; returns a number, or nan where it is not defined.
        clusters: cluster of each row (N,), for instance the prompt.
        samples: replicates.
        level: of the interval.
        seed: of the resampling.

    Returns:
        The statistic on all rows with its interval.

    Example:
        >>> values = np.array([1.0, 2.0, 3.0, 4.0])
        >>> bootstrap(lambda rows: values[rows].mean(), ["a", "a", "b", "b"]).low
        1.5
    """
    return bootstrap_seeds(lambda _, rows: statistic(rows), clusters, 1, samples=samples, level=level, seed=seed)


def bootstrap_seeds(
    statistic: Callable[[int, np.ndarray], float],
    clusters: Sequence[Hashable],
    seeds: int,
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of the mean over seeds of a statistic: two levels, seeds and clusters.

    The same rows are evaluated in every seed, so the design is crossed: each replicate draws clusters once for all
    seeds. Seeds are too few to be resampled (three seeds give three distinct means of which the widest is reached by
    1 draw in 9); their spread enters as sd / √S · t with t from Student's distribution with S - 1 degrees of freedom.
    With two seeds that is wide, since two seeds say little about a third. With one seed the interval is about the
    prompts alone. Where seeds differ row by row at random, this part is counted in both levels: conservative.

    Args:
        statistic: called with (number of the seed, row indices).
        clusters: cluster of each row (N,), the same rows in every seed.
        seeds: how many seeds.
        samples, level, seed: as in `bootstrap`.

    Returns:
        The mean over seeds with its interval.
    """
    _check(samples, level)
    if not len(clusters):
        return UNDEFINED
    groups = Clusters(clusters)
    everything = np.arange(len(clusters))
    per_seed = np.array([statistic(s, everything) for s in range(seeds)], dtype=np.float64)
    replicates = [
        np.mean([statistic(s, rows) for s in range(seeds)])
        for block in groups.draws(samples, seed)
        for rows in map(groups.rows, block)
    ]
    return interval_from(per_seed, np.array(replicates), level=level, seed=seed)


def bootstrap_counts(
    statistic: Callable[[int, np.ndarray], np.ndarray],
    groups: Clusters,
    seeds: int,
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    basic: bool = False,
) -> Interval:
    """`bootstrap_seeds` for a statistic that takes how often each cluster was drawn, many replicates at once.

    Args:
        statistic: called with (number of the seed, counts (r, G)); returns (r,).
        groups: the clusters.
        seeds, samples, level, seed: as in `bootstrap_seeds`, and the same draws.
        basic: reflect the replicates at the estimate, which takes out the bias of resampling a biased statistic.

    Returns:
        The mean over seeds with its interval.
    """
    _check(samples, level)
    if not groups.count:
        return UNDEFINED
    with np.errstate(divide="ignore", invalid="ignore"):
        per_seed = np.array([statistic(s, np.ones((1, groups.count)))[0] for s in range(seeds)], dtype=np.float64)
        replicates: list[Any] = []
        for draw in groups.draws(samples, seed):
            flat = draw + np.arange(len(draw))[:, None] * groups.count
            counts = np.bincount(flat.ravel(), minlength=draw.size).reshape(draw.shape).astype(np.float64)
            replicates.append(np.mean([statistic(s, counts) for s in range(seeds)], axis=0))
    return interval_from(per_seed, np.concatenate(replicates), level=level, seed=seed, basic=basic)


def bootstrap_sums(
    columns: Float[np.ndarray, "S N C"],
    clusters: Clusters | Sequence[Hashable],
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    basic: bool = False,
) -> Interval:
    """`bootstrap_seeds` for a statistic of column sums, such as a ratio or a correlation.

    Args:
        columns: numbers to be summed over rows (S, N, C).
        clusters: cluster of each row (N,).
        statistic: maps sums (..., C) to values (...).
        samples, level, seed, basic: as in `bootstrap_counts`.

    Returns:
        The mean over seeds with its interval.
    """
    groups = clusters if isinstance(clusters, Clusters) else Clusters(clusters)
    sums_SGC = [groups.sums(columns_NC) for columns_NC in columns]
    return bootstrap_counts(
        lambda s, counts: statistic(counts @ sums_SGC[s]),
        groups,
        len(sums_SGC),
        samples=samples,
        level=level,
        seed=seed,
        basic=basic,
    )


def bootstrap_rows(
    rows: Float[np.ndarray, "N C"],
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """`bootstrap_sums` for one seed and rows that are a cluster each, of which many are equal.

    Drawing N rows draws how often each distinct row comes from a multinomial distribution, so a replicate costs as much
    as there are distinct rows, however many rows there are.

    Args:
        rows: numbers to be summed (N, C).
        statistic: maps sums (r, C) to values (r,).
        samples, level, seed: as in `bootstrap_counts`.

    Returns:
        The statistic of all rows with its interval.

    Example:
        >>> bootstrap_rows(np.array([[1.0, 1.0], [0.0, 1.0]]), lambda sums: sums[:, 0] / sums[:, 1]).estimate
        0.5
    """
    _check(samples, level)
    if not len(rows):
        return UNDEFINED
    # Rows that are equal get equal numbers, and sorting those takes a tenth of the time that sorting rows does.
    rng = np.random.default_rng(seed)
    _, place, counts = np.unique((rows * rng.random(rows.shape[1])).sum(axis=1), return_index=True, return_counts=True)
    drawn = rng.multinomial(len(rows), counts / len(rows), size=samples)
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate, replicates = (statistic(times.astype(np.float64) @ rows[place]) for times in (counts[None], drawn))
    return interval_from(estimate, replicates, level=level, seed=seed)


def interval_from(
    per_seed: Float[np.ndarray, " S"],
    replicates: Float[np.ndarray, " R"],
    *,
    level: float = 0.95,
    seed: int = 0,
    basic: bool = False,
) -> Interval:
    """Interval from replicates of the mean over seeds, with the seeds' own spread added (see `bootstrap_seeds`).

    Undefined replicates (a resample without a single strong preference, say) are left out; when more than half are
    undefined, so are the bounds.
    """
    estimate = float(per_seed.mean())
    defined = replicates[np.isfinite(replicates)]
    if not math.isfinite(estimate) or 2 * len(defined) < len(replicates):
        return Interval(estimate if math.isfinite(estimate) else math.nan, math.nan, math.nan)
    if len(per_seed) > 1:
        # Quantiles in random order instead of draws: with two seeds the tails are so heavy that draws would make the
        # bounds noisy and lopsided.
        quantiles = student.ppf((np.arange(len(defined)) + 0.5) / len(defined), len(per_seed) - 1)
        noise = np.random.default_rng([seed, len(per_seed)]).permutation(quantiles)
        defined = defined + per_seed.std(ddof=1) / math.sqrt(len(per_seed)) * noise
    tail = 50.0 * (1.0 - level)
    low, high = (float(value) for value in np.percentile(defined, [tail, 100.0 - tail]))
    if basic:
        low, high = 2.0 * estimate - high, 2.0 * estimate - low
    return Interval(estimate, low, high)


def edge_mean(
    values: Float[np.ndarray, "S E"],
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    *,
    level: float = 0.95,
    seed: int = 0,
    samples: int = 1000,
) -> Interval:
    """Mean over edges that each touch two clusters, with an interval that knows both.

    Resampling clusters would give an edge the product of two weights, which overstates the variance of independent
    edges threefold. So the variance is the dyadic cluster-robust one (Fafchamps & Gubert 2007; Aronow, Samii & Assenova
    2015): the sum of e·e' over all pairs of edges that share a cluster, e being the centred value, over E². It can come
    out below that of independent edges by chance; then the latter is used. Normal quantiles, with the seeds' spread
    added as in `bootstrap_seeds`.

    Args:
        values: value of each edge in each seed (S, E).
        first, second: clusters at the two ends of each edge (E,).
        level, seed, samples: as in `bootstrap`; the normal draws are seeded only where seeds are added.

    Returns:
        The mean with its interval.
    """
    _check(samples, level)
    if values.shape[1] == 0:
        return UNDEFINED
    per_seed = values.mean(axis=1)
    centred = values.mean(axis=0) - per_seed.mean()
    ends = Clusters([*first, *second]).of_row
    a, b = np.minimum(*np.split(ends, 2)), np.maximum(*np.split(ends, 2))
    by_cluster = np.bincount(a, centred, minlength=int(ends.max()) + 1)
    by_cluster += np.bincount(b, np.where(a == b, 0.0, centred), minlength=len(by_cluster))
    # Edges between the same two different clusters share both and were counted twice.
    _, pair = np.unique(a * len(by_cluster) + b, return_inverse=True)
    twice = np.bincount(pair, np.where(a == b, 0.0, centred))
    total = max(float((by_cluster**2).sum() - (twice**2).sum()), float((centred**2).sum()))
    return interval_normal(per_seed, math.sqrt(total) / len(centred), samples=samples, level=level, seed=seed)


def interval_normal(
    per_seed: Float[np.ndarray, " S"], error: float, *, samples: int = 1000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval from a standard error of the mean over seeds, with the seeds' own spread added."""
    estimate = float(per_seed.mean())
    if len(per_seed) == 1:
        half = float(norm.ppf(0.5 + level / 2)) * error
        return Interval(estimate, estimate - half, estimate + half)
    quantiles = norm.ppf((np.arange(samples) + 0.5) / samples)
    replicates = estimate + error * np.random.default_rng(seed).permutation(quantiles)
    return interval_from(per_seed, replicates, level=level, seed=seed)


def share_interval(interval: Interval, clusters: int, level: float = 0.95) -> Interval:
    """Interval of a share, inside [0, 1].

    Where all rows agree, every resample agrees too, and the bootstrap would claim certainty. Then the open bound is the
    exact one for that many independent clusters (Clopper & Pearson 1934): ((1 - level) / 2) to the power 1 / clusters.

    Example:
        >>> round(share_interval(Interval(1.0, 1.0, 1.0), 20).low, 3)
        0.832
    """
    bound = ((1.0 - level) / 2) ** (1.0 / max(1, clusters))
    if interval.estimate == interval.low == interval.high == 1.0:
        return Interval(1.0, bound, 1.0)
    if interval.estimate == interval.low == interval.high == 0.0:
        return Interval(0.0, 0.0, 1.0 - bound)
    return interval.clip(0.0, 1.0)


def rank_buckets(values: Float[np.ndarray, " N"], buckets: int) -> Int[np.ndarray, " N"]:
    """Buckets of equal mass by rank: 0 holds the smallest; -1 where the value is nan.

    Equal values stay together, in the bucket of their middle rank: bucket = ⌊B·(r - ½)/n⌋ with r the mean rank of the
    tied values among the n known ones. So the result does not depend on the order of the rows, buckets are of unequal
    size where many values tie, and values that are all equal lie in the middle.

    Example:
        >>> rank_buckets(np.array([3.0, 1.0, 2.0, np.nan]), 3).tolist()
        [2, 0, 1, -1]
        >>> rank_buckets(np.array([1.0, 1.0, 1.0, 5.0]), 3).tolist()
        [1, 1, 1, 2]
    """
    known = ~np.isnan(values)
    bucket = np.full(len(values), -1, dtype=np.int64)
    # Mean ranks are multiples of one half, so twice the rank is a whole number and no rounding can split a tie.
    twice = np.rint(2 * rankdata(values[known], method="average")).astype(np.int64)
    bucket[known] = (buckets * (twice - 1)) // max(1, 2 * int(known.sum()))
    return bucket


def strength_terciles(strength: Float[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """Weak (0), medium (1) and strong (2) preferences by `rank_buckets`; -1 where the strength is unknown."""
    return rank_buckets(strength, 3)


def _check(samples: int, level: float) -> None:
    if samples < 1:
        raise ConfigError(f"samples is {samples}; a bootstrap needs at least 1 replicate (1000 are usual).")
    if not 0.0 < level < 1.0:
        raise ConfigError(f"level is {level}; give a share between 0 and 1, such as 0.95.")


def per_seed_rows(values: Any, name: str) -> Float[np.ndarray, "S N"]:
    """Values of one seed (N,) or of several (S, N) as (S, N).

    Raises:
        DataError: another shape, or a value that is not finite.
    """
    rows = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if rows.ndim != 2:
        raise DataError(f"{name} has shape {rows.shape}; give (rows,) for one seed or (seeds, rows).")
    wrong = np.argwhere(~np.isfinite(rows))
    if len(wrong):
        raise DataError(
            f"{name} is not finite in {len(wrong)} places, first in seed {wrong[0][0]}, row {wrong[0][1]}. "
            "Look for a diverged run or an empty completion."
        )
    return rows
