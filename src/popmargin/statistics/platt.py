"""Platt scaling of confidences: a logistic map from how sure a model is to how often it is right.

Axis suffixes: N verdicts, P parameters.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit

SUREST = 0.999
"""A confidence beyond it counts as this, so that one that is always 1 can be mapped, too."""
RIDGE = 1.0
"""Precision of the prior on the parameters around the map that changes nothing: that of a few verdicts."""
_STEPS = 100


@dataclass(frozen=True)
class PlattMap:
    """logit(chance of being right) = intercept + slope · logit(confidence)."""

    intercept: float = 0.0
    slope: float = 1.0

    def __call__(self, confidence: ArrayLike) -> Any:
        """The chances of being right (N,) of confidences (N,).

        Example:
            >>> PlattMap(0.0, 0.5)(0.9).round(6).item()
            0.75
        """
        return expit(self.intercept + self.slope * logit(clipped(confidence)))


def clipped(confidence: ArrayLike) -> Any:
    """Confidences within what has a finite logit."""
    return np.clip(np.asarray(confidence, dtype=np.float64), 1.0 - SUREST, SUREST)


def fit_platt(confidence: ArrayLike, right: ArrayLike) -> PlattMap:
    """The map of the greatest penalised likelihood, by Newton's method: the penalty makes it unique.

    Args:
        confidence: in verdicts (N,).
        right: how often each is right (N,), from 0 to 1.

    Example:
        >>> fit_platt([], [])
        PlattMap(intercept=0.0, slope=1.0)
    """
    sure_N = logit(clipped(confidence))
    right_N = np.asarray(right, dtype=np.float64)
    design_NP = np.stack([np.ones_like(sure_N), sure_N], axis=1)
    centre_P = np.array([0.0, 1.0])
    at_P = centre_P.copy()

    def loss(point_P: Any) -> float:
        score_N = design_NP @ point_P
        return float(
            (np.logaddexp(0.0, score_N) - right_N * score_N).sum() + RIDGE / 2 * ((point_P - centre_P) ** 2).sum()
        )

    for _ in range(_STEPS):
        chance_N = expit(design_NP @ at_P)
        slope_P = design_NP.T @ (chance_N - right_N) + RIDGE * (at_P - centre_P)
        weight_N = chance_N * (1.0 - chance_N)
        curve_PP = design_NP.T @ (design_NP * weight_N[:, None]) + RIDGE * np.eye(2)
        step_P = np.linalg.solve(curve_PP, slope_P)
        size = 1.0
        while size > 1e-6 and loss(at_P - size * step_P) > loss(at_P):
            size /= 2
        at_P = at_P - size * step_P
        if np.abs(step_P).max() < 1e-12:
            break
    return PlattMap(float(at_P[0]), float(at_P[1]))


def cross_fitted(confidence: ArrayLike, right: ArrayLike, *, folds: int) -> Any:
    """The chances (N,) that verdicts are right, each by a map that the other folds have given.

    Args:
        confidence: in verdicts (N,).
        right: how often each is right (N,).
        folds: verdict n is in fold n modulo this.
    """
    sure_N, right_N = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    fold_N = np.arange(len(sure_N)) % folds
    found_N = np.empty(len(sure_N))
    for fold in range(folds):
        own_N = fold_N == fold
        if own_N.any():
            found_N[own_N] = fit_platt(sure_N[~own_N], right_N[~own_N])(sure_N[own_N])
    return found_N
