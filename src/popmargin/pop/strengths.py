"""From a strength scale to what training uses: half-normal strengths, soft labels, margins, and data columns.

A fitted strength is only an order with distances in log-odds of *comparisons*. Training needs a reward margin, so the
ranks are mapped to the strengths of a typical set of preferences: |x| of a normal x, in units of their mean. The map is
ours.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike
from scipy.special import erfinv, expit
from scipy.stats import rankdata

from popmargin.data.schema import Preferences
from popmargin.errors import ConfigError
from popmargin.pop.scale import StrengthScale

SLOPE = 1.5
"""Log-odds of a soft label per unit of half-normal strength."""
As = Literal["margin", "soft_label", "strength"]


def half_normal_strengths(strength: ArrayLike) -> Float64[np.ndarray, " N"]:
    """Strengths with the same order, mapped to a half-normal distribution of mean 1.

    z = erfinv((rank − ½)/N), divided by its mean; equal strengths share their mean rank.

    Args:
        strength: fitted strengths (N,), any scale.

    Returns:
        Half-normal strengths (N,), all above 0.

    Example:
        >>> half_normal_strengths([0.3, -2.0, 8.0]).round(2).tolist()
        [0.89, 0.28, 1.83]
    """
    strength_N = np.asarray(strength, dtype=np.float64)
    if not len(strength_N):
        return strength_N
    z = erfinv((rankdata(strength_N) - 0.5) / len(strength_N))
    return z / z.mean()


def soft_labels(strength: ArrayLike, *, slope: float = SLOPE) -> Float64[np.ndarray, " N"]:
    """Probabilities that chosen is the better response, σ(slope·z) with half-normal strengths z (N,); all above ½.

    Example:
        >>> soft_labels([0.3, -2.0, 8.0]).round(2).tolist()
        [0.79, 0.6, 0.94]
    """
    if not 0 < slope < np.inf:
        raise ConfigError(f"slope is {slope}; give a finite number above 0.")
    return expit(slope * half_normal_strengths(strength))


def with_strengths(
    preferences: Preferences, scale: StrengthScale, *, use: As = "soft_label", slope: float = SLOPE
) -> Preferences:
    """The preferences with the scale in their columns, for any objective that reads them.

    Args:
        preferences: the data; the scale must hold all of its ids.
        scale: fitted strengths.
        use: `soft_label` writes σ(slope·z); `margin` writes ratings z and 0, whose gap is the margin (replacing the
            data's ratings and strength); `strength` writes z as the strength.
        slope: log-odds per unit of z.

    Raises:
        DataError: the scale does not have all preferences.
    """
    fitted = scale.strengths_of(preferences.ids)
    z, p = half_normal_strengths(fitted), soft_labels(fitted, slope=slope)

    if use == "soft_label":
        return preferences.with_columns(soft_label=p)
    if use == "strength":
        return preferences.with_columns(strength=z, margin=None)
    return preferences.with_columns(chosen_rating=z, rejected_rating=np.zeros(len(z)), strength=None, margin=None)
