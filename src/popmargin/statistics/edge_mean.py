"""Means over edges between clusters.

Axis suffixes: S seeds, T the other arm's seeds, E edges.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from popmargin.statistics.intervals import UNDEFINED, Clusters, Interval, Scale, Spread, cluster_freedom

_LEAST = 0.85  # with less, coverage for few clusters is too low; with 1, it is always too high


def edge_mean(
    values: Float[np.ndarray, "S E"],
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    *,
    minus: Float[np.ndarray, "T E"] | None = None,
    level: float = 0.95,
    scale: Scale = "plain",
) -> Interval:
    """Mean over edges that each touch two clusters, with an interval that accounts for both.

    Leaving out clusters would leave out every edge twice, which overstates the variance of independent edges. So the
    variance is the dyadic cluster-robust one (Fafchamps & Gubert 2007; Aronow, Samii & Assenova 2015): the sum of e·e'
    over all pairs of edges that share a cluster, e being the centred value, over E², times G / (G − 1). By chance it
    can be below that of independent edges; then the latter is used. Seeds enter as in `Spread`.

    Args:
        values: value of each edge in each seed (S, E).
        first, second: clusters at the two ends of each edge (E,).
        minus: another arm's values of the same edges, to subtract: paired if it has as many seeds, otherwise with
            independent seeds (as in `Estimate.spread_of_difference`).
        level, scale: as in `Spread.interval`.

    Returns:
        The mean with its interval; for a difference also with `p`.
    """
    if not values.shape[1]:
        return UNDEFINED
    arms = [values]
    if minus is not None:
        arms = [values - minus] if len(values) == len(minus) else [values, minus]
    pairs = _Pairs(Clusters([*first, *second]))
    estimate = float(arms[0].mean() - (arms[1].mean() if len(arms) == 2 else 0.0))
    return _spread(arms, pairs).interval(estimate, level=level, scale=scale, null=None if minus is None else 0.0)


def _spread(arms: list[Any], pairs: "_Pairs") -> Spread:
    """For the mean of one arm (S, E), or of the first minus the second."""
    seeds = [arm.mean(axis=1) for arm in arms]
    centred = [arm - mean[:, None] for arm, mean in zip(arms, seeds, strict=True)]
    of_edges = centred[0].mean(axis=0) - (centred[1].mean(axis=0) if len(arms) == 2 else 0.0)
    spread = Spread(pairs.variance(of_edges), pairs.freedom, count=pairs.count)
    freedom = sum(len(mean) - 1 for mean in seeds)
    if not freedom:
        return spread
    shares = sum(1 / len(mean) for mean in seeds) / freedom
    between = shares * sum(float(((mean - mean.mean()) ** 2).sum()) for mean in seeds)
    noise = shares * sum(pairs.variance(row - rows.mean(axis=0)) for rows in centred for row in rows)
    cells = freedom * pairs.freedom
    return Spread(spread.clusters, spread.freedom, between, freedom, noise, cells, spread.count)


class _Pairs:
    """Which edges share a cluster."""

    def __init__(self, ends: Clusters) -> None:
        one, other = np.split(ends.of_row, 2)
        self._low, self._high, self.count = np.minimum(one, other), np.maximum(one, other), ends.count
        self.freedom = cluster_freedom(ends.sizes)
        self._inside = one == other
        _, self._pair = np.unique(self._low * ends.count + self._high, return_inverse=True)

    def variance(self, centred_E: Any) -> float:
        """For the mean of centred values (E,)."""
        once = np.where(self._inside, 0.0, centred_E)
        by_cluster = np.bincount(self._low, centred_E, minlength=self.count)
        by_cluster += np.bincount(self._high, once, minlength=self.count)
        # Edges between the same two different clusters share both and were counted twice.
        twice = np.bincount(self._pair, once)
        total = max(float((by_cluster**2).sum() - (twice**2).sum()), _LEAST * float((centred_E**2).sum()))
        return self.count / max(1, self.count - 1) * total / len(centred_E) ** 2
