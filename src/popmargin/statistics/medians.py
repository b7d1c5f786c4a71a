"""Medians, for which the jackknife does not give a variance."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float

from popmargin.statistics.intervals import Clusters, Interval
from popmargin.statistics.jackknife import row_means


def median_interval(
    values: Float[np.ndarray, " N"], clusters: Clusters | Sequence[Hashable], *, level: float = 0.95
) -> Interval:
    """The median with Woodruff's (1952) interval: the values at both ends of the interval of the share below it.

    Args:
        values: (N,), at least one.
        clusters: cluster of each value (N,).
        level: of the interval.

    Example:
        >>> found = median_interval(np.arange(1.0, 100.0), list(range(99)))
        >>> found.estimate, found.low, found.high
        (50.0, 40.0, 60.0)
    """
    median = float(np.median(values))
    below = (values < median) + 0.5 * (values == median)
    share = row_means(below[None], clusters).interval(level=level, scale="share")
    if math.isnan(share.low):
        return Interval(median, math.nan, math.nan)
    low, high = (float(end) for end in np.quantile(values, [share.low, share.high], method="inverted_cdf"))
    return Interval(median, low, high)


def ratio_of_medians(above: Interval, below: Interval) -> Interval:
    """Ratio of two independent positive medians; ends by Zou & Donner (2008), from log ends of the medians."""
    estimate = above.estimate / below.estimate if below.estimate > 0 else math.nan
    ends = (above.low, above.high, below.low, below.high)
    if not math.isfinite(estimate) or not all(end > 0 for end in ends) or above.estimate <= 0:
        return Interval(estimate, math.nan, math.nan)
    up, down = math.log(above.high / above.estimate), math.log(above.estimate / above.low)
    up_other, down_other = math.log(below.high / below.estimate), math.log(below.estimate / below.low)
    low, high = -math.hypot(down, up_other), math.hypot(up, down_other)
    return Interval(estimate, estimate * math.exp(low), estimate * math.exp(high))
