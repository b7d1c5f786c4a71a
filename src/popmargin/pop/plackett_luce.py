"""The likelihood of rankings: Plackett–Luce, as rows of differences that the likelihood of pairs can hold.

P(order) = Π over places s of e^{z_s} / Σ_{j ≥ s} e^{z_j}: the strongest is chosen from all, then from the rest. Each
choice is log-concave, and its derivatives are sums over pairs: the slope is p_j for (s, j), and the Hessian, that of a
log-sum-exp, is Σ p_j·p_k·(e_j − e_k)(e_j − e_k)ᵀ. So a ranking of m is m(m − 1)/2 rows; one of two is Bradley–Terry.

Axis suffixes: R rankings, M preferences in each, P = M(M − 1)/2 pairs of them, D = M − 1 differences
to the first, Q nodes.
"""

from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.special import logsumexp

MOST = 6
"""Preferences in one ranking, at most."""
_FEW = 3
"""Differences of a ranking up to which the mean over a normal distribution has five nodes a difference."""
_AT_ONCE = 100_000
"""Strengths of rankings that are computed at once."""


@dataclass(frozen=True)
class RankedRows:
    """A block of observations that are the pairs of rankings of the same size.

    The rows of a ranking follow each other, in the order of `numpy.triu_indices`; `first` is before `second` in it.

    Attributes:
        start: the first row.
        rankings: R.
        size: preferences in each, M.
    """

    start: int
    rankings: int
    size: int

    @property
    def rows(self) -> slice:
        """All rows of the block."""
        return slice(self.start, self.start + self.rankings * (self.size * (self.size - 1) // 2))


def pairs_of(order_RM: Any) -> tuple[Any, Any]:
    """The two sides of all pairs of each ranking, (R·P,) each: the higher and the lower one."""
    above, below = np.triu_indices(order_RM.shape[1], 1)
    return order_RM[:, above].ravel(), order_RM[:, below].ravel()


def choices(
    z_RM: Float64[np.ndarray, "R M"],
) -> tuple[Float64[np.ndarray, "R P"], Float64[np.ndarray, "R P"], Float64[np.ndarray, "R P"]]:
    """log P of each choice, in the row of the pair that it decides (0 in the others); slopes and bends of all pairs.

    Args:
        z_RM: strengths, each ranking's in its order.

    Example:
        >>> log_p, slope, bend = choices(np.zeros((1, 3)))
        >>> float(np.exp(log_p.sum()).round(3)), slope.round(2).tolist()
        (0.167, [[0.33, 0.33, 0.5]])
    """
    size = z_RM.shape[1]
    number = {pair: row for row, pair in enumerate(combinations(range(size), 2))}
    log_p, slope, bend = (np.zeros((len(z_RM), len(number))) for _ in range(3))
    for place in range(size - 1):
        log_share = z_RM[:, place:] - logsumexp(z_RM[:, place:], axis=1, keepdims=True)
        share = np.exp(log_share)
        log_p[:, number[place, place + 1]] = log_share[:, 0]
        for one in range(place, size):
            for other in range(one + 1, size):
                bend[:, number[one, other]] -= share[:, one - place] * share[:, other - place]
                if one == place:
                    slope[:, number[one, other]] = share[:, other - place]
    return log_p, slope, bend


def ranked_derivatives(block: RankedRows, d: Any, spread: Any | None) -> tuple[Any, Any, Any]:
    """log P, slope and bend of the block's rows, (R·P,) each.

    Args:
        block: the rows.
        d: differences of all observations (E,).
        spread: their standard deviations (E,): the results are then means over the joint normal distribution of the
            differences of a ranking, which these determine (a product of Gauss–Hermite rules).
    """
    size = block.size
    d_RP = d[block.rows].reshape(block.rankings, -1)
    z_RM = np.concatenate([np.zeros((block.rankings, 1)), -d_RP[:, : size - 1]], axis=1)
    if spread is None:
        return tuple(part.ravel() for part in choices(z_RM))  # pyright: ignore[reportReturnType]
    factor_RDD = _factors(spread[block.rows].reshape(block.rankings, -1) ** 2, size)
    points, weights = np.polynomial.hermite_e.hermegauss(5 if size - 1 <= _FEW else 3)
    node_QD = np.array(list(product(points, repeat=size - 1)))
    share_Q = np.array(list(product(weights / weights.sum(), repeat=size - 1))).prod(axis=1)
    total = [np.zeros_like(d_RP) for _ in range(3)]
    step = max(1, _AT_ONCE // len(node_QD))
    for start in range(0, block.rankings, step):
        some = slice(start, start + step)
        moved_RQM = np.repeat(z_RM[some, None, :], len(node_QD), axis=1)
        moved_RQM[:, :, 1:] += np.einsum("qd,red->rqe", node_QD, factor_RDD[some])
        for part, values in zip(total, choices(moved_RQM.reshape(-1, size)), strict=True):
            part[some] = np.einsum("q,rqp->rp", share_Q, values.reshape(*moved_RQM.shape[:2], -1))
    return total[0].ravel(), total[1].ravel(), total[2].ravel()


def _factors(variance_RP: Any, size: int) -> Any:
    """A matrix A for each ranking, AAᵀ being the covariance of z_2 − z_1, …, z_M − z_1."""
    square = np.zeros((len(variance_RP), size, size))
    above, below = np.triu_indices(size, 1)
    square[:, above, below] = square[:, below, above] = variance_RP
    covariance = (square[:, 1:, :1] + square[:, :1, 1:] - square[:, 1:, 1:]) / 2
    # Variances that were cut at the prior's need not be those of any distribution.
    length, axes = np.linalg.eigh(covariance)
    return axes * np.sqrt(np.maximum(length, 0.0))[:, None, :]
