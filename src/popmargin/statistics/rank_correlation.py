"""Spearman's ρ and Kendall's τ-b in many resamples at once, from how often each cluster was drawn.

Resamples are never materialised: ranks come from cumulative counts, pairs from a table of cluster pairs. The values
equal those of `scipy.stats` on the resampled rows.

Axis suffixes: N rows, G clusters, r replicates, U distinct values.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import kendalltau

from popmargin.statistics.intervals import Clusters

Correlation = Callable[[Float[np.ndarray, "r G"]], Float[np.ndarray, " r"]]

_CELLS = 2**22  # cells of one block of rows: 32 MiB
_MOST_PAIRS = 2**25  # up to this many pairs of rows, all are compared once instead of sorting in every resample


def spearman(x_N: Float[np.ndarray, " N"], y_N: Float[np.ndarray, " N"], groups: Clusters) -> Correlation:
    """Spearman's ρ as a function of how often each cluster was drawn; nan if a side is constant.

    Args:
        x_N, y_N: values.
        groups: their clusters.
    """
    sides = [_RanksOf(x_N), _RanksOf(y_N)]
    step = max(1, _CELLS // max(1, len(x_N)))

    def of_block(counts_rG: Any) -> Any:
        times_rN = counts_rG[:, groups.of_row]
        total_r = times_rN.sum(axis=1, keepdims=True)
        # Ranks are centred by their mean, (n + 1) / 2, regardless of ties.
        u_rN, v_rN = (side(times_rN) - (total_r + 1) / 2 for side in sides)
        uu_r, vv_r = (times_rN * u_rN**2).sum(axis=1), (times_rN * v_rN**2).sum(axis=1)
        varies = (uu_r > 0) & (vv_r > 0)
        return np.where(
            varies, (times_rN * u_rN * v_rN).sum(axis=1) / np.sqrt(np.where(varies, uu_r * vv_r, 1.0)), np.nan
        )

    return lambda counts: np.concatenate([of_block(counts[i : i + step]) for i in range(0, len(counts), step)])


class _RanksOf:
    """Mean ranks of repeated rows."""

    def __init__(self, values_N: Any) -> None:
        distinct, self._of_row = np.unique(values_N, return_inverse=True)
        self._order = np.argsort(self._of_row, kind="stable")
        self._starts = np.searchsorted(self._of_row[self._order], np.arange(len(distinct)))

    def __call__(self, times_rN: Any) -> Any:
        times_rU = np.add.reduceat(times_rN[:, self._order], self._starts, axis=1)
        ranks_rU = np.cumsum(times_rU, axis=1) - times_rU + (times_rU + 1) / 2
        return ranks_rU[:, self._of_row]


def kendall(x_N: Float[np.ndarray, " N"], y_N: Float[np.ndarray, " N"], groups: Clusters) -> Correlation:
    """Kendall's τ-b as a function of how often each cluster was drawn; nan if a side is constant.

    Args:
        x_N, y_N: values.
        groups: their clusters.
    """
    if len(x_N) ** 2 > _MOST_PAIRS:
        return lambda counts: np.array([_kendall(x_N, y_N, times[groups.of_row]) for times in counts])
    order = np.argsort(groups.of_row, kind="stable")
    starts = np.searchsorted(groups.of_row[order], np.arange(groups.count))
    # A row is tied with its own copies on both sides, so pairs of copies do not count, as in a resample.
    x_NN, y_NN = (np.sign(np.subtract.outer(values[order], values[order])) for values in (x_N, y_N))
    pairs_GG = [
        np.add.reduceat(np.add.reduceat(table, starts, axis=0), starts, axis=1)
        for table in (x_NN * y_NN, np.abs(x_NN), np.abs(y_NN))
    ]

    def statistic(counts_rG: Any) -> Any:
        agree_r, x_r, y_r = (((counts_rG @ table) * counts_rG).sum(axis=1) for table in pairs_GG)
        varies = (x_r > 0) & (y_r > 0)
        return np.where(varies, agree_r / np.sqrt(np.where(varies, x_r * y_r, 1.0)), np.nan)

    return statistic


def _kendall(x_N: Any, y_N: Any, times_N: Any) -> float:
    rows = np.repeat(np.arange(len(x_N)), times_N.astype(np.int64))
    x, y = x_N[rows], y_N[rows]
    if len(rows) < 2 or (x == x[0]).all() or (y == y[0]).all():
        return float("nan")
    result: Any = kendalltau(x, y)
    return float(result.statistic)
