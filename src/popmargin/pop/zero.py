"""Where zero lies on a strength scale: below it, the preferred response is the worse one (ours).

Comparisons of preferences say nothing about it: adding a number to all strengths changes no answer. Something else has
to say how many labels are right.

Axis suffix N: preferences.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit

from popmargin.errors import DataError

_VARIANCE = 10.0
"""Of the prior of zero, log-odds squared."""


def right_share(
    strength: ArrayLike,
    *,
    right: float | None = None,
    agreement: float | None = None,
    wrong: ArrayLike | None = None,
) -> float | None:
    """The share of preferences whose label is right, which places zero on their scale; None if nothing says so.

    Args:
        strength: fitted strengths (N,), log-odds.
        right: the share itself.
        agreement: how often a second person's label agrees, r² + (1 − r)² if every label is right with probability r.
        wrong: (N,), 1 where somebody called the label wrong, 0 where right, nan where nobody was asked; the preferences
            asked about need not be a random sample. Zero is where the answers are most likely, with P(right) =
            σ(strength − zero) and the prior N(0, 10) of zero.

    Raises:
        DataError: answers other than 0 and 1, or none.

    Example:
        >>> round(right_share([], agreement=0.68), 2)
        0.8
        >>> right_share([-2.0, -1.0, 0.5, 1.0, 2.0], wrong=[1, np.nan, 0, 0, np.nan])
        0.6
    """
    if right is not None:
        return right
    if agreement is not None:
        return (1 + float(np.sqrt(2 * agreement - 1))) / 2
    if wrong is None:
        return None
    strength_N, wrong_N = np.asarray(strength, dtype=np.float64), np.asarray(wrong, dtype=np.float64)
    asked = np.isfinite(wrong_N)
    if not asked.any() or not np.isin(wrong_N[asked], (0.0, 1.0)).all():
        raise DataError(
            "pop.zero.wrong: the column must be 1 where the label is wrong, 0 where it is right and empty where nobody "
            "was asked, with one answer or more."
        )
    right_n, at_n = 1 - wrong_N[asked], strength_N[asked]

    def slope(place: float) -> float:
        return float((right_n - expit(at_n - place)).sum()) + place / _VARIANCE

    reach = float(np.abs(strength_N).max()) + _VARIANCE * (1 + len(at_n))
    place = float(brentq(slope, -reach, reach))  # pyright: ignore[reportArgumentType]
    count = len(strength_N)
    return float(np.clip((strength_N > place).mean(), 0.5 / count, 1 - 0.5 / count))
