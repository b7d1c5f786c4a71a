"""Calibration: a model's confidence in the side it prefers, against how often it is right.

Axis suffixes: S seeds, N preferences, G clusters, B bins, C columns.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit
from scipy.stats import norm

from popmargin.statistics.buckets import rank_buckets
from popmargin.statistics.intervals import Clusters, Interval, binomial_interval, per_seed_rows
from popmargin.statistics.jackknife import Estimate, row_means

_OF_NOISE = math.sqrt(2 / math.pi)  # mean absolute value of a standard normal number


def share_right(margin: Any) -> Any:
    """1 where a reward margin is above 0, ½ where it is 0, otherwise 0."""
    return 0.5 * (1.0 + np.sign(margin))


def reliability_curve(reward_margin: ArrayLike, *, bins: int = 10) -> list[dict[str, float]]:
    """Predicted confidence against the observed share right, in bins of equal size (equal confidences stay together).

    Example:
        >>> curve = reliability_curve([0.0, 0.0], bins=2)
        >>> [(row["predicted"], row["observed"], row["count"]) for row in curve]
        [(0.5, 0.5, 2)]
    """
    margin = per_seed_rows(reward_margin, "reward_margin").ravel()
    confidence, right = expit(np.abs(margin)), share_right(margin)
    bucket = rank_buckets(confidence, bins)
    rows: list[dict[str, float]] = []
    for b in range(bins):
        inside = bucket == b
        if inside.any():
            rows.append(
                {
                    "low": float(confidence[inside].min()),
                    "high": float(confidence[inside].max()),
                    "predicted": float(confidence[inside].mean()),
                    "observed": float(right[inside].mean()),
                    "count": int(inside.sum()),
                }
            )
    return rows


def calibration_error(arms: list[Any], groups: Clusters, bins: int, level: float) -> Interval:
    """Expected calibration error of one arm, or of the first minus the second, without its upward bias.

    The raw error, Σ_bins |Σ (confidence − right)| / N in bins of equal size, is never below 0: noise alone gives a
    calibrated model √(2/π)·Σ s, where s is the standard error of a bin's part. The estimate takes the sign of
    each bin's part from one half of the prompts and its size from the other, and averages over the halvings: for a part
    d with z = |d| / s that is s·(z − 2·(z·Φ(−z) + φ(z))), which has mean 0 for a calibrated model (ours, after the
    debiased estimators of Kumar, Liang & Ma 2019). For parts of about their own standard error it is too low by up to
    half of it, so the interval leaves open how much of the raw error is noise: its low end subtracts everything noise
    alone would give, its high end nothing. Its coverage is at least nominal. For one arm, estimate and low end are at
    least 0.

    Args:
        arms: reward margins (S, N) of one arm or of two.
        groups: the rows' clusters.
        bins: number of confidence bins.
        level: of the interval.
    """
    return _error_interval(
        [_Error.of(expit(np.abs(arm)), share_right(arm), groups, bins) for arm in arms], groups, level
    )


def confidence_error(confidence: ArrayLike, right: ArrayLike, *, bins: int, level: float = 0.95) -> Interval:
    """The same of confidences (N,) in verdicts, each on an item of its own, and the share of people who agree (N,).

    Example:
        >>> confidence_error([0.75] * 4, [1.0, 1.0, 1.0, 0.0], bins=1).estimate
        0.0
    """
    confidence_SN, right_SN = per_seed_rows(confidence, "confidence"), per_seed_rows(right, "right")
    groups = Clusters(range(confidence_SN.shape[1]))
    return _error_interval([_Error.of(confidence_SN, right_SN, groups, bins)], groups, level)


@dataclass(frozen=True)
class ConfidenceBin:
    """Verdicts of about the same confidence.

    Attributes:
        low, high: of their confidence.
        confidence: its mean.
        right: the mean share of people who agree.
        count: number of verdicts.
    """

    low: float
    high: float
    confidence: float
    right: Interval
    count: int


def confidence_curve(confidence: ArrayLike, right: ArrayLike, *, bins: int, level: float = 0.95) -> list[ConfidenceBin]:
    """Mean confidence against the share of people who agree, in bins of equal size (equal confidences stay together).

    Example:
        >>> [one] = confidence_curve([0.5, 0.9], [0.0, 1.0], bins=1)
        >>> one.confidence, one.right.estimate, one.count
        (0.7, 0.5, 2)
    """
    sure, shares = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    bucket = rank_buckets(sure, bins)
    inside = [np.flatnonzero(bucket == b) for b in range(bins)]
    return [
        ConfidenceBin(
            low=float(sure[rows].min()),
            high=float(sure[rows].max()),
            confidence=float(sure[rows].mean()),
            right=mean_share(shares[rows], level=level),
            count=len(rows),
        )
        for rows in inside
        if len(rows)
    ]


def mean_share(shares: ArrayLike, *, level: float = 0.95) -> Interval:
    """The mean of shares of independent items: Wilson's interval if each is 0 or 1, otherwise by Student's t."""
    values = np.asarray(shares, dtype=np.float64)
    if np.isin(values, (0.0, 1.0)).all():
        return binomial_interval(int(values.sum()), len(values), confidence=level)
    return row_means(values[None, :], range(len(values))).interval(level=level, scale="share")


def _error_interval(found: list["_Error"], groups: Clusters, level: float) -> Interval:
    first = found[0]
    if groups.count < 2:
        return Interval(first.raw.value - sum(error.raw.value for error in found[1:]), math.nan, math.nan)
    if len(found) == 1:
        half = first.raw.spread().half_width(level)
        return Interval(max(0.0, first.debiased), max(0.0, first.least - half), first.raw.value + half)
    second = found[1]
    spread = first.raw.spread_of_difference(second.raw)
    least, most = first.least - second.raw.value, first.raw.value - second.least
    half = spread.half_width(level)
    p = spread.p_value(max(least, min(most, 0.0)))
    return Interval(first.debiased - second.debiased, least - half, most + half, p)


@dataclass(frozen=True)
class _Error:
    """For one arm: the raw error (with its bins' signs fixed), the debiased one, and the raw one minus all noise.

    The last is never above the debiased one, so the interval contains the estimate.
    """

    raw: Estimate
    debiased: float
    least: float

    @staticmethod
    def of(confidence_SN: Any, right_SN: Any, groups: Clusters, bins: int) -> "_Error":
        bucket_SN = np.stack([rank_buckets(row, bins) for row in confidence_SN])
        gap_SNB = (confidence_SN - right_SN)[..., None] * (bucket_SN[..., None] == np.arange(bins))
        part_SB = gap_SNB.mean(axis=1)
        # With fixed signs, the error is a mean over rows.
        raw = row_means((gap_SNB * np.sign(part_SB)[:, None, :]).sum(axis=-1), groups)
        size_SB, error_SB = np.abs(part_SB), np.stack([_errors(gap_NB, groups) for gap_NB in gap_SNB])
        z_SB = np.divide(size_SB, error_SB, out=np.zeros(size_SB.shape), where=error_SB > 0)
        mistaken_SB = 2 * error_SB * (z_SB * norm.cdf(-z_SB) + norm.pdf(z_SB))
        debiased = (size_SB - mistaken_SB).sum(axis=1).mean()
        noise = _OF_NOISE * error_SB.sum(axis=1).mean()
        return _Error(raw, float(debiased), float(min(raw.value - noise, debiased)))


def _errors(gap_NB: Any, groups: Clusters) -> Any:
    """Standard error of the mean over rows of each column, between clusters (B,)."""
    if groups.count < 2:
        return np.full(gap_NB.shape[1], np.nan)
    rows, count = len(gap_NB), groups.count
    sums_GB = groups.sums(gap_NB) - gap_NB.mean(axis=0) * groups.sizes[:, None]
    return np.sqrt(count / (count - 1) * (sums_GB**2).sum(axis=0)) / rows
