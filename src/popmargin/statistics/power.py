"""Power: how often a study of some size would tell a difference from chance, from the variances of a pilot.

Axis suffixes: S seeds, G clusters, R simulated studies, D designs.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from popmargin.errors import DataError, counted
from popmargin.statistics.jackknife import Estimate


@dataclass(frozen=True, kw_only=True)
class Components:
    """Where the spread of a difference comes from, as variances of one cell (a seed's mean over a cluster).

    Attributes:
        clusters: between clusters (prompts), whatever the seed.
        seeds: between seeds (training runs), whatever the cluster.
        cells: what is left of single cells: which prompt a seed is better at.
    """

    clusters: float
    seeds: float
    cells: float

    @staticmethod
    def of(difference: Estimate) -> "Components":
        """The components of a paired difference, by the moments of a crossed design (ANOVA); none is below 0.

        Args:
            difference: of two arms on the same clusters (`Estimate`), with two seeds or more.

        Raises:
            DataError: one seed says nothing about another, or there are fewer than two clusters.

        Example:
            >>> cells = np.array([[1.0, 0.0, 2.0], [3.0, 2.0, 4.0]])  # seeds differ by 2, clusters too, cells do not
            >>> centred = cells - cells.mean(axis=1, keepdims=True)
            >>> Components.of(Estimate(cells.mean(axis=1), centred, np.ones(3, dtype=np.int64)))
            Components(clusters=1.0, seeds=2.0, cells=0.0)
        """
        seeds, clusters = difference.pulls.shape
        if seeds < 2 or clusters < 2:
            raise DataError(
                f"The pilot has {counted(seeds, 'seed')} and {counted(clusters, 'cluster')} of held-out rows; the "
                "power of a larger study needs at least two of both. Run the pilot with more seeds."
            )
        cells_SG = difference.per_seed[:, None] + difference.pulls
        noise = difference.noise / ((seeds - 1) * (clusters - 1))
        between_clusters = float(cells_SG.mean(axis=0).var(ddof=1)) - noise / seeds
        between_seeds = float(difference.per_seed.var(ddof=1)) - noise / clusters
        return Components(clusters=max(0.0, between_clusters), seeds=max(0.0, between_seeds), cells=noise)

    def standard_error(self, clusters: int, seeds: int) -> float:
        """Of the mean difference of a study with so many clusters and seeds."""
        return math.sqrt(self.clusters / clusters + self.seeds / seeds + self.cells / (clusters * seeds))


@dataclass(frozen=True)
class Simulated:
    """Simulated studies of one size in which nothing differs.

    Attributes:
        estimates: their mean differences (R,).
        reaches: half the widths of their intervals (R,).
    """

    estimates: Float[np.ndarray, " R"]
    reaches: Float[np.ndarray, " R"]

    def power(self, difference: float) -> float:
        """The share of studies whose interval would exclude 0 if the arms differed by so much."""
        return float((np.abs(self.estimates + difference) > self.reaches).mean())

    def detectable(self, power: float = 0.8) -> float:
        """The smallest difference that so large a share of the studies would tell from 0."""
        # Of each study, the smallest shift from which on its interval lies above 0.
        return float(np.quantile(self.reaches - self.estimates, power))


def simulate(
    components: Components, clusters: int, seeds: int, *, studies: int = 1000, level: float = 0.95, seed: int = 0
) -> Simulated:
    """Studies of one size, drawn from the components as normal numbers, with the interval that reports use.

    Args:
        components: of the difference.
        clusters: held-out clusters (prompts), two or more.
        seeds: training runs of each arm.
        studies: how many to simulate.
        level: of the intervals.
        seed: of the draws.

    Raises:
        DataError: fewer than two clusters, or no seed.

    Example:
        >>> few = simulate(Components(clusters=0.25, seeds=0.0004, cells=0.05), 100, 3, studies=500)
        >>> many = simulate(Components(clusters=0.25, seeds=0.0004, cells=0.05), 1600, 10, studies=500)
        >>> few.power(0.05) < many.power(0.05), few.detectable() > many.detectable()
        (True, True)
    """
    if clusters < 2 or seeds < 1:
        raise DataError(
            f"{counted(clusters, 'cluster')} and {counted(seeds, 'seed')}: a study needs 2 clusters and a seed."
        )
    rng = np.random.default_rng(seed)
    sizes = np.ones(clusters, dtype=np.int64)
    estimates, reaches = np.empty(studies), np.empty(studies)
    for study in range(studies):
        cells_SG = rng.normal(0.0, math.sqrt(components.cells), (seeds, clusters))
        cells_SG += rng.normal(0.0, math.sqrt(components.clusters), clusters)
        cells_SG += rng.normal(0.0, math.sqrt(components.seeds), (seeds, 1))
        per_seed = cells_SG.mean(axis=1)
        found = Estimate(per_seed, cells_SG - per_seed[:, None], sizes)
        estimates[study], reaches[study] = found.value, found.spread().half_width(level)
    return Simulated(estimates, reaches)
