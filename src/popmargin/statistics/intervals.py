"""Intervals for dependent rows: clusters of rows, and the spread of seeds that share them.

Axis suffixes: S seeds, N rows, G clusters, C columns.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.special import chdtri, stdtr, stdtrit

from popmargin.errors import ConfigError, DataError, counted

Scale = Literal["plain", "share", "correlation"]
_HALVINGS = 60  # of a search for a p-value


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; all nan if undefined.

    Attributes:
        estimate: the value.
        low, high: ends of its interval.
        p: two-sided p-value of a difference (or of a win rate against ½); nan if nothing is tested.
    """

    estimate: float
    low: float
    high: float
    p: float = math.nan

    def to_dict(self) -> dict[str, float | None]:
        """Plain numbers for JSON; None if undefined, and no `p` if nothing is tested.

        Example:
            >>> Interval(0.5, 0.4, float("nan")).to_dict()
            {'estimate': 0.5, 'low': 0.4, 'high': None}
        """
        values = {"estimate": self.estimate, "low": self.low, "high": self.high}
        plain = {name: None if math.isnan(value) else value for name, value in values.items()}
        return plain if math.isnan(self.p) else plain | {"p": self.p}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Interval":
        """The inverse of `to_dict`."""

        def number(name: str) -> float:
            value = values.get(name) if name == "p" else values[name]
            return math.nan if value is None else float(value)

        return Interval(number("estimate"), number("low"), number("high"), number("p"))

    def clip(self, low: float, high: float) -> "Interval":
        """The same with its ends clipped to a range (at most 1 for an agreement)."""
        return replace(self, low=float(np.clip(self.low, low, high)), high=float(np.clip(self.high, low, high)))


UNDEFINED = Interval(math.nan, math.nan, math.nan)


class Clusters:
    """Rows grouped into clusters: rows of one cluster depend on each other, clusters do not.

    Args:
        clusters: one label per row (N,); rows with equal labels belong together.
    """

    def __init__(self, clusters: Sequence[Hashable]) -> None:
        numbers: dict[Hashable, int] = {}
        self.of_row = np.fromiter(
            (numbers.setdefault(name, len(numbers)) for name in clusters), np.int64, len(clusters)
        )
        self.count = len(numbers)
        self.sizes = np.bincount(self.of_row, minlength=self.count)

    def sums(self, columns_NC: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "G C"]:
        """Sum of every column over the rows of each cluster."""
        sums = [np.bincount(self.of_row, weights=column, minlength=self.count) for column in columns_NC.T]
        return np.stack(sums, axis=1).astype(np.float64)  # without rows, sums would be integers


def cluster_freedom(sizes: Any) -> float:
    """Degrees of freedom of a variance between clusters of these sizes (rows).

    Halfway between G − 1 and the same for the effective number of clusters, (Σ n)² / Σ n² (Kish 1965). With equal-sized
    clusters both are G − 1. With unequal ones, the first gives intervals that are too short and the second ones that
    are too long (ours; the tests simulate the coverage of both).

    Example:
        >>> cluster_freedom(np.array([4, 4, 4])), cluster_freedom(np.array([3, 1]))
        (2.0, 0.8)
    """
    effective = float(sizes.sum()) ** 2 / float((sizes.astype(np.float64) ** 2).sum())
    return (len(sizes) + effective) / 2 - 1


@dataclass(frozen=True)
class Spread:
    """The uncertainty of a mean over seeds, as variances of that mean.

    The same rows are measured in every seed: seeds and clusters are crossed. `seeds` and `clusters` both contain the
    noise of single (seed, cluster) cells, so it is subtracted once: clusters + max(0, seeds − c·noise). c is the median
    of χ² / df with the seeds' degrees of freedom (0.69 for three seeds): half of all seed sets that differ by noise
    alone are above it. With c = 1, real differences between few seeds are missed too often; with nothing subtracted,
    99% of intervals contain the truth, at 1.5 times the width needed (both in simulations; the choice is ours).

    Attributes:
        clusters: between clusters, of their means over seeds.
        freedom: degrees of freedom of `clusters`.
        seeds: between seeds; 0 with one seed, when it is unknown.
        seed_freedom: degrees of freedom of `seeds`; 0 with one seed.
        noise: of single cells, as contained in both.
        cells: degrees of freedom of `noise`.
        count: number of clusters.
    """

    clusters: float
    freedom: float
    seeds: float = 0.0
    seed_freedom: int = 0
    noise: float = 0.0
    cells: float = 0.0
    count: int = 0

    @property
    def _added(self) -> float:
        """The variance that seeds add."""
        return max(0.0, self.seeds - self._taken_off)

    @property
    def _taken_off(self) -> float:
        return self.noise * float(chdtri(self.seed_freedom, 0.5)) / self.seed_freedom if self.seed_freedom else 0.0

    @property
    def variance(self) -> float:
        """Variance of the mean over seeds."""
        return self.clusters + self._added

    def half_width(self, level: float = 0.95) -> float:
        """Half the width of a symmetric interval.

        Without a spread of seeds, Student's t for the clusters. Otherwise halfway between t with Satterthwaite's (1946)
        degrees of freedom, which is too short if few seeds differ as much as clusters do, and Howe's (1974)
        √(t²·clusters + t²·seeds), each part with its own t, which is too long then.
        """
        tail = (1.0 + level) / 2
        own = float(stdtrit(self.freedom, tail)) ** 2 * self.clusters
        if not self._added:
            return math.sqrt(own)
        howe = math.sqrt(own + float(stdtrit(self.seed_freedom, tail)) ** 2 * self._added)
        return (howe + float(stdtrit(self._satterthwaite, tail)) * math.sqrt(self.variance)) / 2

    def p_value(self, distance: float) -> float:
        """Two-sided p-value of a mean at this distance from its null: 1 − the level whose interval reaches it."""
        if not self.variance:
            return 1.0 if distance == 0 else 0.0
        if not self._added:
            return float(2 * stdtr(self.freedom, -abs(distance) / math.sqrt(self.clusters)))
        low, high = 0.0, 1.0  # of the p-value
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.half_width(1 - middle) > abs(distance) else (low, middle)
        return high

    @property
    def _satterthwaite(self) -> float:
        parts = self.clusters**2 / self.freedom + self.seeds**2 / self.seed_freedom
        if self.cells:
            parts += self._taken_off**2 / self.cells
        return max(1.0, self.variance**2 / parts)

    def interval(
        self, estimate: float, *, level: float = 0.95, scale: Scale = "plain", null: float | None = None
    ) -> Interval:
        """Interval of an estimate with this spread.

        Args:
            estimate: the mean over seeds.
            level: of the interval.
            scale: "plain" is symmetric; "share" is Wilson's (1927) interval with the number of rows that would give
                this variance, inside [0, 1]; "correlation" is symmetric in Fisher's z, inside [-1, 1].
            null: the value that `p` tests; None for no test.

        Returns:
            The interval; its ends are nan with one cluster, which says nothing about others.
        """
        check_level(level)
        if not math.isfinite(estimate):
            return UNDEFINED
        if self.count < 2 or not math.isfinite(self.variance) or self.freedom <= 0:
            return Interval(estimate, math.nan, math.nan)
        if scale == "share":
            return _share(self, estimate, level, null)
        half = self.half_width(level)
        p = math.nan if null is None else self.p_value(estimate - null)
        if scale == "correlation":
            if 1 - abs(estimate) < 1e-12:
                return Interval(estimate, math.nan, math.nan)
            z, half = math.atanh(estimate), half / (1 - estimate**2)
            return Interval(estimate, math.tanh(z - half), math.tanh(z + half), p)
        return Interval(estimate, estimate - half, estimate + half, p)


def _share(spread: Spread, share: float, level: float, null: float | None) -> Interval:
    """Wilson's interval; if all clusters agree, the exact one for the share of clusters that do not.

    If every one of G clusters has the value v, at most a share 1 − ((1 − level) / 2)^(1/G) of all clusters has another
    (Clopper & Pearson 1934), whatever that value is: 0 or 1 at the ends.
    """
    below, above = max(share, 0.0), max(1.0 - share, 0.0)
    if not spread.variance or not below * above:
        bound = ((1.0 - level) / 2) ** (1.0 / spread.count)
        p = math.nan
        if null is not None:
            kept = null / below if share > null else (1 - null) / above if share < null else 1.0
            p = min(1.0, 2.0 * kept**spread.count)
        return Interval(share, below * bound, 1.0 - above * bound, p)
    t = spread.half_width(level) / math.sqrt(spread.variance)
    rows = below * above / spread.variance
    middle = (share + t**2 / (2 * rows)) / (1 + t**2 / rows)
    half = t / (1 + t**2 / rows) * math.sqrt(below * above / rows + t**2 / (4 * rows**2))
    p = math.nan
    if null is not None:
        p = spread.p_value((share - null) * math.sqrt(below * above / (null * (1 - null))))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half), p)


def check_level(level: float) -> None:
    """Check the level of an interval.

    Raises:
        ConfigError: it is not between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise ConfigError(f"level is {level}; give a share between 0 and 1, such as 0.95.")


def per_seed_rows(values: Any, name: str) -> Float[np.ndarray, "S N"]:
    """Values of one seed (N,) or of several (S, N) as (S, N).

    Raises:
        DataError: another shape, or a non-finite value.
    """
    rows = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if rows.ndim != 2:
        raise DataError(f"{name} has shape {rows.shape}; give (rows,) for one seed or (seeds, rows).")
    wrong = np.argwhere(~np.isfinite(rows))
    if len(wrong):
        raise DataError(
            f"{name} has {counted(len(wrong), 'non-finite value')}, the first in seed {wrong[0][0]}, row "
            f"{wrong[0][1]}. Look for a diverged run or an empty completion."
        )
    return rows


def binomial_interval(hits: int, trials: int, confidence: float = 0.95) -> Interval:
    """A share of independent trials with Wilson's interval (1927), which has the right coverage even for few trials.

    Example:
        >>> interval = binomial_interval(8, 10)
        >>> round(interval.low, 3), round(interval.high, 3)
        (0.49, 0.943)
    """
    if not trials:
        return Interval(math.nan, math.nan, math.nan)
    from scipy.stats import binomtest

    bounds = binomtest(hits, trials).proportion_ci(confidence, method="wilson")
    return Interval(hits / trials, float(bounds.low), float(bounds.high))
