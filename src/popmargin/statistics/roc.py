"""How well a score tells two kinds of rows apart.

Axis suffixes: N rows, P rows of the kind, Q other rows.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata, t

from popmargin.statistics.intervals import UNDEFINED, Clusters, Interval


def roc_area(
    score_N: Float[np.ndarray, " N"], of_kind_N: Bool[np.ndarray, " N"], groups: Clusters, *, confidence: float = 0.95
) -> Interval:
    """The probability that a random row of the kind has a larger score than a random other row; ties count half.

    The variance is DeLong's (Biometrics 1988), with its components summed by cluster (Obuchowski, Biometrics 1997).

    Args:
        score_N: of each row.
        of_kind_N: which rows are of the kind.
        groups: clusters of the rows.
        confidence: of the interval.

    Returns:
        The area with its interval; undefined without rows of both kinds.

    Example:
        >>> found = roc_area(np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, True, False, False]), Clusters(range(4)))
        >>> found.estimate
        0.75
    """
    wrong_P, right_Q = score_N[of_kind_N], score_N[~of_kind_N]
    if not len(wrong_P) or not len(right_Q):
        return UNDEFINED
    ranks_N = rankdata(np.concatenate([wrong_P, right_Q]))
    above_P = (ranks_N[: len(wrong_P)] - rankdata(wrong_P)) / len(right_Q)  # share of the others that it is above
    below_Q = 1 - (ranks_N[len(wrong_P) :] - rankdata(right_Q)) / len(wrong_P)
    area = float(above_P.mean())
    pull_N = np.empty(len(score_N))
    pull_N[of_kind_N], pull_N[~of_kind_N] = (above_P - area) / len(wrong_P), (below_Q - area) / len(right_Q)
    pull_G = groups.sums(pull_N[:, None])[:, 0]
    count = len(pull_G)
    if count < 2:
        return Interval(area, float("nan"), float("nan"))
    error = np.sqrt(count / (count - 1) * (pull_G**2).sum())
    half = float(t.ppf((1 + confidence) / 2, count - 1) * error)
    return Interval(area, max(0.0, area - half), min(1.0, area + half))
