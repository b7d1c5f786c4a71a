"""Win rate at equal length: the win rate that would remain if both sides were equally long."""

import numpy as np
from jaxtyping import Float
from scipy.special import expit

_SLOPE_RIDGE = 0.1  # about a tenth of a comparison: keeps the slope finite if length alone decides every win
_BASE_RIDGE = 1e-6  # keeps the intercept finite if every comparison is won
_STEPS = 100


def win_rate_at_equal_length(
    wins: Float[np.ndarray, " n"],
    length_difference: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, "R n"] | None = None,
) -> Float[np.ndarray, " R"]:
    """Win rate at equal length, by a logistic regression of the win on the length difference.

    P(win) = σ(a + b·tanh(d / sd(d))), d = length minus the other side's length; the result is σ(a), at d = 0.

    It is not AlpacaEval's length-controlled win rate (Dubois et al. 2024), from which it takes the logistic model and
    tanh of the difference over its standard deviation: AlpacaEval's also has a term for each instruction's difficulty,
    fitted to a leaderboard of models, and is the mean over instructions of the predicted win rates. If instructions
    differ a lot, σ(a) is further from ½ than such a mean. Our ridge on the slope is fixed at 0.1
    (½·0.1·b² against the summed log-likelihood); theirs is chosen by cross-validation. Ties are half a win.

    Args:
        wins: 1, ½ or 0 for each comparison (n,).
        length_difference: tokens, this side minus the other (n,).
        weights: weight of each comparison in each of R fits (R, n); None for one fit with equal weights.

    Returns:
        Win rates (R,); nan if all weights are zero.

    Example:
        >>> wins = np.array([1.0, 1.0, 0.0, 0.0])
        >>> win_rate_at_equal_length(wins, np.array([9.0, 9.0, -9.0, -9.0])).round(3).tolist()
        [0.5]
    """
    weights_Rn = np.ones((1, len(wins))) if weights is None else weights
    spread = float(length_difference.std()) if len(wins) else 0.0
    scaled_n = np.tanh(length_difference / spread) if spread > 0 else np.zeros(len(wins))
    base_R, slope_R = np.zeros(len(weights_Rn)), np.zeros(len(weights_Rn))
    for _ in range(_STEPS):
        chance_Rn = expit(base_R[:, None] + slope_R[:, None] * scaled_n)
        residual_Rn = weights_Rn * (wins - chance_Rn)
        curvature_Rn = weights_Rn * chance_Rn * (1.0 - chance_Rn)
        up_base = residual_Rn.sum(axis=1) - _BASE_RIDGE * base_R
        up_slope = residual_Rn @ scaled_n - _SLOPE_RIDGE * slope_R
        bb = curvature_Rn.sum(axis=1) + _BASE_RIDGE
        bs = curvature_Rn @ scaled_n
        ss = curvature_Rn @ scaled_n**2 + _SLOPE_RIDGE
        determinant = bb * ss - bs**2
        step_base = (ss * up_base - bs * up_slope) / determinant
        step_slope = (bb * up_slope - bs * up_base) / determinant
        # A full Newton step can overshoot far from the optimum; the objective is concave, so shorter steps converge.
        size = np.maximum(1.0, np.maximum(np.abs(step_base), np.abs(step_slope)))
        base_R, slope_R = base_R + step_base / size, slope_R + step_slope / size
        if max(np.abs(step_base).max(initial=0.0), np.abs(step_slope).max(initial=0.0)) < 1e-10:
            break
    return np.where(weights_Rn.sum(axis=1) > 0, expit(base_R), np.nan)
