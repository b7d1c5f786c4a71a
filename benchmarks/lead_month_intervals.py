"""Intervals of a label report computed again, with numpy alone; nothing of popmargin is used here.

An interval is (estimate, low, high), 95%, nan where unknown.
"""

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np

Interval = tuple[float, float, float]
UNKNOWN: Interval = (math.nan, math.nan, math.nan)
_Z = 1.959963984540054


def named(name: str, interval: Interval) -> dict[str, float]:
    """The three numbers by their names."""
    return dict(zip((name, f"{name}.low", f"{name}.high"), interval, strict=True))


def student(freedom: float) -> float:
    """The 97.5% point of Student's t, by integrating its density."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    low, high = 0.0, 2000.0
    for _ in range(80):
        middle = (low + high) / 2
        # t = √ν·tan(u) makes the density that of cos(u)^(ν−1), which is smooth at any distance.
        grid = np.linspace(0.0, math.atan(middle / math.sqrt(freedom)), 4_001)
        density = scale * math.sqrt(freedom) * np.cos(grid) ** (freedom - 1)
        weights = np.ones(len(grid))  # Simpson's
        weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
        below = (density * weights).sum() * (grid[1] - grid[0]) / 3
        low, high = (middle, high) if below < 0.475 else (low, middle)
    return (low + high) / 2


def wilson(hits: Sequence[bool]) -> Interval:
    """A share of independent trials."""
    count = len(hits)
    if not count:
        return UNKNOWN
    share = sum(hits) / count
    half = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    low, high = ((share + _Z**2 / (2 * count) + side * half) / (1 + _Z**2 / count) for side in (-1, 1))
    return share, max(low, 0.0), min(high, 1.0)


def left_out(count: int, statistic: Callable[[np.ndarray], float]) -> tuple[float, np.ndarray]:
    """A statistic of the numbers of units, and the same without each of them."""
    every = np.arange(count)
    return statistic(every), np.array([statistic(np.delete(every, place)) for place in range(count)])


def plain(count: int, statistic: Callable[[np.ndarray], float]) -> Interval:
    """Student's t around a statistic, with the delete-one variance."""
    whole, without = left_out(count, statistic)
    if math.isnan(whole):
        return UNKNOWN
    if count < 2 or not np.isfinite(without).all():
        return whole, math.nan, math.nan
    half = student(count - 1) * math.sqrt((count - 1) / count * float(((whole - without) ** 2).sum()))
    return whole, whole - half, whole + half


def agreement(count: int, statistic: Callable[[np.ndarray], float]) -> Interval:
    """The same of an agreement: at most 1, and no ends where the units show no variance."""
    estimate, low, high = plain(count, statistic)
    return (estimate, math.nan, math.nan) if high - low < 1e-12 else (estimate, min(low, 1.0), min(high, 1.0))


def share(hits: Sequence[float], trials: Sequence[float]) -> Interval:
    """Σ hits / Σ trials over units, each with its own; those without a trial do not count."""
    pairs = np.array([pair for pair in zip(hits, trials, strict=True) if pair[1] > 0]).reshape(-1, 2)
    return _wilson_of(pairs, np.ones(len(pairs)))


def mean_share(values: Sequence[float]) -> Interval:
    """The mean of shares: Wilson's interval if each is 0 or 1."""
    if all(value in (0.0, 1.0) for value in values):
        return wilson([value == 1.0 for value in values])
    return share(values, [1.0] * len(values))


def _wilson_of(pairs: np.ndarray, sizes: np.ndarray) -> Interval:
    """Wilson's interval for as many rows as would give the delete-one variance of units (hits, trials)."""
    count = len(pairs)
    if not count:
        return UNKNOWN
    whole, without = left_out(count, lambda rows: _ratio(pairs[rows]))
    effective = sizes.sum() ** 2 / (sizes**2).sum()
    freedom = (count + effective) / 2 - 1
    if count < 2 or freedom <= 0 or not np.isfinite(without).all():
        return whole, math.nan, math.nan
    variance = (count - 1) / count * float(((whole - without) ** 2).sum())
    if variance == 0 or whole in (0.0, 1.0):
        bound = 0.025 ** (1 / count)
        return whole, whole * bound, 1 - (1 - whole) * bound
    t, rows = student(freedom), whole * (1 - whole) / variance
    middle = (whole + t**2 / (2 * rows)) / (1 + t**2 / rows)
    half = t / (1 + t**2 / rows) * math.sqrt(whole * (1 - whole) / rows + t**2 / (4 * rows**2))
    return whole, max(0.0, middle - half), min(1.0, middle + half)


def _ratio(pairs: np.ndarray) -> float:
    hits, trials = pairs.sum(axis=0)
    return float(hits / trials) if trials else math.nan


def median(values: Sequence[float], clusters: Sequence[Hashable]) -> Interval:
    """The median; its ends are the values at the ends of the interval of the share below it (Woodruff)."""
    if not len(values):
        return UNKNOWN
    found, ordered = float(np.median(values)), sorted(values)
    below: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        below.setdefault(cluster, []).append(1.0 if value < found else 0.5 if value == found else 0.0)
    pairs = np.array([[sum(own), float(len(own))] for own in below.values()])
    _, low, high = _wilson_of(pairs, pairs[:, 1])
    if math.isnan(low):
        return found, math.nan, math.nan
    places = (min(max(math.ceil(len(ordered) * end) - 1, 0), len(ordered) - 1) for end in (low, high))
    return found, *(ordered[place] for place in places)  # type: ignore[return-value]


def buckets(values: Sequence[float], count: int) -> list[int]:
    """Buckets of equal size by mean rank."""
    known = np.asarray(values)
    ranks = [(known < value).sum() + ((known == value).sum() + 1) / 2 for value in known]
    return [math.floor(count * (rank - 0.5) / len(known)) for rank in ranks]


def calibration_error(confidence: Sequence[float], right: Sequence[float], bins: int) -> Interval:
    """Σ over bins of |Σ (confidence − right)| / N, without what noise adds; see docs/intervals.md."""
    count, gap = len(confidence), np.asarray(confidence) - np.asarray(right)
    of_bin = np.array(buckets(confidence, bins))
    parts = [np.where(of_bin == number, gap, 0.0) for number in range(bins)]
    raw = sum(abs(part.mean()) for part in parts)
    if count < 2:
        return float(raw), math.nan, math.nan
    spreads = [math.sqrt(((part - part.mean()) ** 2).sum() / (count - 1) / count) for part in parts]
    debiased = 0.0
    for part, spread in zip(parts, spreads, strict=True):
        z = abs(part.mean()) / spread if spread else 0.0
        below, density = math.erfc(z / math.sqrt(2)) / 2, math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        debiased += abs(part.mean()) - 2 * spread * (z * below + density)
    least = min(raw - math.sqrt(2 / math.pi) * sum(spreads), debiased)
    signed = sum(part * np.sign(part.mean()) for part in parts)
    half = student(count - 1) * math.sqrt(signed.var(ddof=1) / count)
    return max(0.0, debiased), max(0.0, least - half), float(raw + half)


def platt(confidence: Sequence[float], right: Sequence[float]) -> tuple[float, float]:
    """Intercept and slope of logit(right) on logit(confidence) with a ridge of 1 around (0, 1).

    The root of the gradient, by bisection of the slope, and of the intercept within it.
    """
    sure = np.clip(np.asarray(confidence), 0.001, 0.999)
    x, y = np.log(sure / (1 - sure)), np.asarray(right)

    def root(function: Callable[[float], float]) -> float:
        low, high = -50.0, 50.0
        for _ in range(70):
            middle = (low + high) / 2
            low, high = (low, middle) if function(middle) > 0 else (middle, high)
        return (low + high) / 2

    def intercept(slope: float) -> float:
        return root(lambda at: float((1 / (1 + np.exp(-at - slope * x)) - y).sum() + at))

    def of_slope(slope: float) -> float:
        chance = 1 / (1 + np.exp(-intercept(slope) - slope * x))
        return float(((chance - y) * x).sum() + slope - 1)

    slope = root(of_slope)
    return intercept(slope), slope


def mapped(confidence: float, found: tuple[float, float]) -> float:
    """The chance that a confidence is worth."""
    sure = min(max(confidence, 0.001), 0.999)
    return 1 / (1 + math.exp(-found[0] - found[1] * math.log(sure / (1 - sure))))
