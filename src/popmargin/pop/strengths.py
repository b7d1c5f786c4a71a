"""From a strength scale to what training uses: half-normal strengths, soft labels, margins, and data columns.

A fitted strength is only an order with distances in log-odds of *comparisons*. Training needs a reward margin, so the
ranks are mapped to the strengths of a typical set of preferences: |x| of a normal x, or x itself where zero is known
(`zero.py`), in units of the mean of |x|. Both maps are ours.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import ArrayLike
from scipy.special import erfinv, expit, ndtri
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


def normal_strengths(strength: ArrayLike, right: float) -> Float64[np.ndarray, " N"]:
    """Strengths with the same order, mapped to a normal distribution of which a share `right` is above zero.

    z = Φ⁻¹((rank − ½)/N) + Φ⁻¹(right), divided by the mean of its absolute values.

    Args:
        strength: fitted strengths (N,), any scale.
        right: share of the preferences whose label is right, above 0 and below 1 (`zero.right_share`).

    Returns:
        Normal strengths (N,), negative where the preferred response is the worse one.

    Example:
        >>> normal_strengths([0.3, -2.0, 8.0, 1.0], right=0.8).round(2).tolist()
        [0.53, -0.31, 2.0, 1.16]
    """
    if not 0 < right < 1:
        raise ConfigError(f"right is {right}; give a share above 0 and below 1.")
    strength_N = np.asarray(strength, dtype=np.float64)
    if not len(strength_N):
        return strength_N
    z = ndtri((rankdata(strength_N) - 0.5) / len(strength_N)) + ndtri(right)
    return z / np.abs(z).mean()


def trained_strengths(strength: ArrayLike, right: float | None = None) -> Float64[np.ndarray, " N"]:
    """What training reads (N,): half-normal strengths, or normal ones if the share of right labels is known."""
    return half_normal_strengths(strength) if right is None else normal_strengths(strength, right)


def soft_labels(strength: ArrayLike, *, slope: float = SLOPE, right: float | None = None) -> Float64[np.ndarray, " N"]:
    """Probabilities that chosen is the better response, σ(slope·z) with the strengths z of `trained_strengths` (N,).

    All are above ½ unless `right` is given.

    Example:
        >>> soft_labels([0.3, -2.0, 8.0]).round(2).tolist()
        [0.79, 0.6, 0.94]
    """
    if not 0 < slope < np.inf:
        raise ConfigError(f"slope is {slope}; give a finite number above 0.")
    return expit(slope * trained_strengths(strength, right))


def with_strengths(
    preferences: Preferences,
    scale: StrengthScale,
    *,
    use: As = "soft_label",
    slope: float = SLOPE,
    right: float | None = None,
) -> Preferences:
    """The preferences with the scale in their columns, for any objective that reads them.

    Args:
        preferences: the data; the scale must hold all of its ids.
        scale: fitted strengths.
        use: `soft_label` writes σ(slope·z), and empties ratings, strengths and margins that say the opposite of a soft
            label below ½; `margin` writes ratings z and 0, whose gap is the margin (replacing the
            data's ratings and strength); `strength` writes z as the strength.
        slope: log-odds per unit of z.
        right: share of right labels, which places zero; None has every z above zero. Margins and strengths can then be
            negative: such files are read with contradictions="keep".

    Raises:
        DataError: the scale does not have all preferences.
    """
    fitted = scale.strengths_of(preferences.ids)
    z, p = trained_strengths(fitted, right), soft_labels(fitted, slope=slope, right=right)

    if use == "soft_label":
        return preferences.with_columns(soft_label=p, **_unsaid(preferences, p < 0.5))
    if use == "strength":
        return preferences.with_columns(strength=z, margin=None)
    return preferences.with_columns(chosen_rating=z, rejected_rating=np.zeros(len(z)), strength=None, margin=None)


def _unsaid(preferences: Preferences, turned: Bool[np.ndarray, " N"]) -> dict[str, Float64[np.ndarray, " N"]]:
    """The data's numbers without those that call chosen better where a soft label says that it is worse.

    Args:
        preferences: the data.
        turned: where the soft label is below ½ (N,).
    """
    against = dict.fromkeys(("chosen_rating", "rejected_rating"), preferences.rating_gap)
    against |= {name: preferences.column(name) for name in ("strength", "margin") if name in preferences.columns}
    emptied = {name: turned & (claim > 0) for name, claim in against.items()}
    return {name: np.where(rows, np.nan, preferences.column(name)) for name, rows in emptied.items() if rows.any()}
