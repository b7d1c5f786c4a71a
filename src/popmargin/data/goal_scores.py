"""From the scores of the data to goals from 1 to 10, and the map that did it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from popmargin.data.goals import LEAST, MOST
from popmargin.errors import ConfigError, DataError

Scale = tuple[float, float] | str | None
"""The scale of the data's scores: its ends, "quantile" for scores that have none, None for one from 1 to 10."""
STEP = 0.5


def goals_of(
    scores: Float64[np.ndarray, "2 N"],
    scale: Scale,
    *,
    step: float = STEP,
    name: str = "score",
    ids: Sequence[str] = (),
) -> tuple[Float64[np.ndarray, "2 N"], Mapping[str, Any]]:
    """Scores as goals from 1 to 10.

    Scores of another scale go affinely to 1 … 10 and are rounded to `step`. Scores without a scale, such as implicit
    rewards, become the quantile that they have among all scores given: the r-th of n goes to 1 + 9·(r − 1)/(n − 1),
    equal ones to their mean rank (ours).

    Args:
        scores: of the chosen (first row) and the rejected responses, finite.
        scale: the ends of the data's scale, "quantile", or None: the scores are goals as they are.
        step: goals are multiples of it, where they are mapped.
        name: of the scores, for errors.
        ids: of the rows, for errors.

    Returns:
        The goals, and the map as JSON values: kind and its numbers; of quantiles the least score of each goal.

    Raises:
        ConfigError: a scale without length, or a step that is not above 0 and at most 9.
        DataError: a score outside the scale.

    Example:
        >>> goals_of(np.array([[4.0, 3.0], [0.0, 1.0]]), (0.0, 4.0))[0].tolist()
        [[10.0, 8.0], [1.0, 3.5]]
    """
    if not 0 < step <= MOST - LEAST:
        raise ConfigError(f"The step of goals is {step}; give a number above 0 and at most {MOST - LEAST:g}.")
    if scale == "quantile":
        return _quantiles(scores, step)
    low, high = (LEAST, MOST) if scale is None else _ends(scale)
    outside = np.argwhere((scores < low) | (scores > high))
    if len(outside):
        side, row = outside[0]
        of = f" of the {('chosen', 'rejected')[side]} response of '{ids[row]}'" if len(ids) else ""
        remedy = "Name the scale of the data (--scale MIN:MAX), or take quantiles (--quantiles)."
        raise DataError(
            f"{len(outside)} of {scores.size} values of '{name}' are outside the scale from {low:g} to {high:g}, such "
            f"as {scores[side, row]:g}{of}. {remedy}"
        )
    if scale is None:
        return scores, {"kind": "as they are"}
    mapped = LEAST + (scores - low) * (MOST - LEAST) / (high - low)
    return _rounded(mapped, step), {"kind": "affine", "min": low, "max": high, "step": step}


def _ends(scale: Scale) -> tuple[float, float]:
    if isinstance(scale, str) or scale is None or not (math.isfinite(scale[1] - scale[0]) and scale[0] < scale[1]):
        raise ConfigError(f"The scale is {scale!r}; give its two ends, the smaller one first, or 'quantile'.")
    return float(scale[0]), float(scale[1])


def _quantiles(scores: np.ndarray, step: float) -> tuple[np.ndarray, dict[str, Any]]:
    from scipy.stats import rankdata

    ranks = rankdata(scores.ravel())
    goals = _rounded(LEAST + (MOST - LEAST) * (ranks - 1) / max(len(ranks) - 1, 1), step).reshape(scores.shape)
    values = np.unique(goals)
    least = {f"{goal:g}": float(scores[goals == goal].min()) for goal in values}
    return goals, {"kind": "quantile", "step": step, "of": int(scores.size), "least_score": least}


def _rounded(values: np.ndarray, step: float) -> np.ndarray:
    """To multiples of the step, halves upwards, within the scale."""
    return np.clip(np.floor(values / step + 0.5) * step, LEAST, MOST).round(9)
