"""How well a model orders responses, and preferences: accuracy, correlations, PoP accuracy, calibration.

Axis suffixes: S seeds, N preferences, E edges, C columns, B bins.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from popmargin.errors import DataError
from popmargin.evaluation.rank_correlation import Correlation, kendall, spearman
from popmargin.evaluation.statistics import (
    UNDEFINED,
    Clusters,
    Interval,
    bootstrap_counts,
    bootstrap_sums,
    edge_mean,
    per_seed_rows,
    rank_buckets,
    share_interval,
    strength_terciles,
)

BUCKETS = ("weak", "medium", "strong")
Edges = tuple[Any, Any]


@dataclass(frozen=True)
class DiscriminativeMetrics:
    """Metrics of the order of responses and of preferences.

    Attributes:
        intervals: accuracy, accuracy_weak, accuracy_medium, accuracy_strong (terciles of strength, `rank_buckets`),
            accuracy_longer (the share that "the longer one is better" gets right: a baseline, not the model's),
            accuracy_reference (what the reference model's own log-probs get right in the same score: another one),
            pearson, spearman, kendall (tau-b) of reward margin with strength, pop_accuracy, ece, reward_margin (reward
            units); nan where not defined.
        reliability: bins of predicted confidence with low, high, predicted, observed, count; over all seeds.
        counts: rows, prompts, weak, medium, strong, edges.
    """

    intervals: dict[str, Interval]
    reliability: list[dict[str, float]]
    counts: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "intervals": {name: interval.to_dict() for name, interval in self.intervals.items()},
            "reliability": [dict(row) for row in self.reliability],
            "counts": dict(self.counts),
        }


@dataclass(frozen=True)
class _SumMetric:
    """A metric that is a function of column sums: columns (S, N, C) of the margins, and the function."""

    columns: Callable[[Any], Any]
    statistic: Callable[[Any], Any]
    basic: bool = False
    share_of: Any = None  # rows that a share is taken over


def discriminative_metrics(
    *,
    reward_margin: ArrayLike,
    strength: ArrayLike,
    clusters: Sequence[str],
    longer_chosen: ArrayLike | None = None,
    reference_margin: ArrayLike | None = None,
    edges: Edges | None = None,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    bins: int = 10,
) -> DiscriminativeMetrics:
    """Metrics with intervals clustered by prompt; for several seeds, means over seeds with two-level intervals.

    A reward margin of exactly 0 is half right. Every row counts once, in any order or batching. The expected
    calibration error compares the confidence max(p, 1-p), p = σ(reward margin), with whether the model is right. Every
    row holds the chosen response first, so "chosen is better" would be observed in each bin of p at 100%; scoring both
    orders of each pair makes that frequency meaningful but mirrors each bin below ½ above it, which is this form. Bins
    have equal mass; ECE = Σ_bins |Σ confidence - Σ right| / N. It is biased upwards in small samples, and resampling
    adds the same bias again, so its interval is the basic (reflected) one.

    Args:
        reward_margin: reward units, (N,) for one seed or (S, N) for several seeds on the same rows.
        strength: how much better chosen is (N,), for instance the rating gap; nan where unknown (such rows are left out
            of terciles and correlations).
        clusters: prompt of each row (N,).
        longer_chosen: 1 where the chosen response is the longer one, ½ where both are equally long, else 0 (N,).
        reference_margin: the reference model's own, in the same score, reward units (N,); None where it has none.
        edges: (stronger, weaker) row numbers of held-out PoP edges, each (E,); weaker -1 is left out. The interval of
            pop_accuracy knows both prompts of an edge (`edge_mean`).
        samples: bootstrap replicates.
        level: of the intervals.
        seed: of the resampling.
        bins: of the calibration curve.

    Returns:
        The metrics.

    Raises:
        DataError: no rows, shapes that do not fit, margins that are not finite, or edges into rows that do not exist.
    """
    margin_SN = per_seed_rows(reward_margin, "reward_margin")
    strength_N = _check(margin_SN, strength, clusters)
    options: dict[str, Any] = {"samples": samples, "level": level, "seed": seed}
    intervals = _intervals([margin_SN], strength_N, clusters, edges, bins, options)
    own = None if reference_margin is None else _right(per_seed_rows(reference_margin, "reference_margin"))
    intervals["accuracy_longer"] = _untrained("longer_chosen", longer_chosen, clusters, options)
    intervals["accuracy_reference"] = _untrained("reference_margin", own, clusters, options)
    bucket = strength_terciles(strength_N)
    counts = {"rows": len(clusters), "prompts": len(set(clusters))}
    counts |= {name: int((bucket == b).sum()) for b, name in enumerate(BUCKETS)}
    counts["edges"] = 0 if edges is None else int((np.asarray(edges[1]) >= 0).sum())
    return DiscriminativeMetrics(intervals, reliability_curve(margin_SN, bins=bins), counts)


def discriminative_differences(
    reward_margin: ArrayLike,
    baseline_margin: ArrayLike,
    *,
    strength: ArrayLike,
    clusters: Sequence[str],
    edges: Edges | None = None,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    bins: int = 10,
) -> dict[str, Interval]:
    """Paired differences (this arm minus the baseline arm) on the same rows and seeds.

    Args:
        reward_margin, baseline_margin: reward units, both (N,) or both (S, N); seed s against seed s.
        strength, clusters, edges, samples, level, seed, bins: as in `discriminative_metrics`.

    Returns:
        The difference for each key of `discriminative_metrics` except accuracy_longer and accuracy_reference.

    Raises:
        DataError: as there, or the two arms differ in rows or number of seeds.
    """
    margin_SN = per_seed_rows(reward_margin, "reward_margin")
    other_SN = per_seed_rows(baseline_margin, "baseline_margin")
    if margin_SN.shape != other_SN.shape:
        raise DataError(
            f"The arms have {margin_SN.shape} and {other_SN.shape} (seeds, rows); paired differences need the same "
            "rows and the same seeds in both."
        )
    strength_N = _check(margin_SN, strength, clusters)
    options: dict[str, Any] = {"samples": samples, "level": level, "seed": seed}
    return _intervals([margin_SN, other_SN], strength_N, clusters, edges, bins, options)


def reliability_curve(reward_margin: ArrayLike, *, bins: int = 10) -> list[dict[str, float]]:
    """Predicted confidence against the observed share right, in bins of equal mass (equal confidences stay together).

    Example:
        >>> curve = reliability_curve([0.0, 0.0], bins=2)
        >>> [(row["predicted"], row["observed"], row["count"]) for row in curve]
        [(0.5, 0.5, 2)]
    """
    margin = per_seed_rows(reward_margin, "reward_margin").ravel()
    confidence, right = expit(np.abs(margin)), _right(margin)
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


def _check(margin_SN: Any, strength: ArrayLike, clusters: Sequence[str]) -> Any:
    strength_N = np.asarray(strength, dtype=np.float64)
    rows = margin_SN.shape[1]
    if strength_N.shape != (rows,) or len(clusters) != rows:
        raise DataError(
            f"{rows} reward margins, strengths of shape {strength_N.shape} and {len(clusters)} prompts; give one of "
            "each for every preference."
        )
    if rows == 0:
        raise DataError("There is no preference to evaluate: the split is empty.")
    return np.where(np.isfinite(strength_N), strength_N, np.nan)


def _intervals(
    arms: list[Any],
    strength_N: Any,
    clusters: Sequence[str],
    edges: Edges | None,
    bins: int,
    options: dict[str, Any],
) -> dict[str, Interval]:
    """Intervals of one arm, or of the first minus the second."""
    groups = Clusters(clusters)
    result: dict[str, Interval] = {}
    for name, metric in _sum_metrics(strength_N, bins).items():
        columns = [metric.columns(arm) for arm in arms]
        width = columns[0].shape[-1]
        statistic = partial(_difference, metric.statistic, width) if len(arms) == 2 else metric.statistic
        interval = bootstrap_sums(np.concatenate(columns, axis=-1), groups, statistic, basic=metric.basic, **options)
        if len(arms) == 1 and metric.share_of is not None:
            interval = share_interval(interval, len(np.unique(groups.of_row[metric.share_of])), options["level"])
        if len(arms) == 1 and name == "ece":
            interval = Interval(interval.estimate, max(0.0, interval.low), max(interval.estimate, interval.high))
        result[name] = interval
    known = np.isfinite(strength_N)
    known_groups = Clusters([name for name, use in zip(clusters, known, strict=True) if use])
    for name, correlation in (("spearman", spearman), ("kendall", kendall)):
        of_seed = [[correlation(row[known], strength_N[known], known_groups) for row in arm] for arm in arms]
        result[name] = bootstrap_counts(partial(_correlate, of_seed), known_groups, len(arms[0]), **options)
    result["pop_accuracy"] = _pop_accuracy(arms, clusters, edges, options)
    return result


def _sum_metrics(strength_N: Any, bins: int) -> dict[str, _SumMetric]:
    everything = np.ones(len(strength_N), dtype=bool)
    bucket = strength_terciles(strength_N)
    metrics = {"accuracy": _share(everything)}
    metrics |= {f"accuracy_{name}": _share(bucket == b) for b, name in enumerate(BUCKETS)}
    metrics["reward_margin"] = _SumMetric(lambda margin: np.stack([margin, np.ones_like(margin)], axis=-1), _ratio)
    metrics["pearson"] = _SumMetric(partial(_moments, strength_N), _pearson)
    metrics["ece"] = _SumMetric(partial(_calibration, bins), _ece, basic=True)
    return metrics


def _share(inside_N: Any) -> _SumMetric:
    def columns(margin_SN: Any) -> Any:
        weight_SN = np.broadcast_to(inside_N.astype(np.float64), margin_SN.shape)
        return np.stack([_right(margin_SN) * weight_SN, weight_SN], axis=-1)

    return _SumMetric(columns, _ratio, share_of=inside_N)


def _untrained(name: str, right: ArrayLike | None, clusters: Sequence[str], options: Mapping[str, Any]) -> Interval:
    """Accuracy of what no run has trained, from whether it is right (N,)."""
    if right is None:
        return UNDEFINED
    rows = per_seed_rows(right, name)
    if rows.shape[1] != len(clusters):
        raise DataError(f"{name} has {rows.shape[1]} rows, but there are {len(clusters)} preferences.")
    groups = Clusters(clusters)
    sums = bootstrap_sums(np.stack([rows, np.ones_like(rows)], axis=-1), groups, _ratio, **options)
    return share_interval(sums, groups.count, options["level"])


def _right(margin: Any) -> Any:
    return 0.5 * (1.0 + np.sign(margin))


def _ratio(sums: Any) -> Any:
    return sums[..., 0] / sums[..., 1]


def _difference(statistic: Callable[[Any], Any], width: int, sums: Any) -> Any:
    return statistic(sums[..., :width]) - statistic(sums[..., width:])


def _moments(strength_N: Any, margin_SN: Any) -> Any:
    known = np.isfinite(strength_N)
    x_SN = np.zeros(margin_SN.shape)
    y_SN = np.zeros(margin_SN.shape)
    x_SN[:, known] = _standard(margin_SN[:, known])
    y_SN[:, known] = _standard(np.broadcast_to(strength_N[known], (len(margin_SN), int(known.sum()))))
    weight_SN = np.broadcast_to(known.astype(np.float64), margin_SN.shape)
    return np.stack([weight_SN, x_SN, y_SN, x_SN**2, y_SN**2, x_SN * y_SN], axis=-1)


def _standard(values: Any) -> Any:
    """Rows with mean 0 and variance 1, so that sums of squares do not cancel; all 0 where a row is constant."""
    if values.shape[1] == 0:
        return values
    centred = values - values.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True)
    constant = spread <= 1e-12 * np.abs(values).max(axis=1, keepdims=True)
    return np.where(constant, 0.0, centred / np.where(constant, 1.0, spread))


def _pearson(sums: Any) -> Any:
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    var_x, var_y = xx / n - (x / n) ** 2, yy / n - (y / n) ** 2
    varies = (var_x > 1e-12) & (var_y > 1e-12)
    correlation = (xy / n - x * y / n**2) / np.sqrt(np.where(varies, var_x * var_y, 1.0))
    return np.where(varies, np.clip(correlation, -1.0, 1.0), np.nan)


def _calibration(bins: int, margin_SN: Any) -> Any:
    confidence_SN, right_SN = expit(np.abs(margin_SN)), _right(margin_SN)
    bucket_SN = np.stack([rank_buckets(row, bins) for row in confidence_SN])
    inside_SNB = (bucket_SN[..., None] == np.arange(bins)).astype(np.float64)
    return np.concatenate([(confidence_SN - right_SN)[..., None] * inside_SNB, inside_SNB], axis=-1)


def _ece(sums: Any) -> Any:
    bins = sums.shape[-1] // 2
    return np.abs(sums[..., :bins]).sum(axis=-1) / sums[..., bins:].sum(axis=-1)


def _correlate(of_seed: list[list[Correlation]], s: int, counts_rG: Any) -> Any:
    values = [arm[s](counts_rG) for arm in of_seed]
    return values[0] - values[1] if len(values) == 2 else values[0]


def _pop_accuracy(arms: list[Any], clusters: Sequence[str], edges: Edges | None, options: dict[str, Any]) -> Interval:
    if edges is None:
        return UNDEFINED
    stronger, weaker = (np.asarray(side, dtype=np.int64) for side in edges)
    if stronger.shape != weaker.shape or stronger.ndim != 1:
        raise DataError(f"edges have sides of shape {stronger.shape} and {weaker.shape}; give one row number for each.")
    use = weaker >= 0
    stronger, weaker = stronger[use], weaker[use]
    if len(stronger) and (max(stronger.max(), weaker.max()) >= len(clusters) or stronger.min() < 0):
        raise DataError(f"edges name a row outside 0 … {len(clusters) - 1}. Resolve them with the ids of these rows.")
    right = [_right(arm[:, stronger] - arm[:, weaker]) for arm in arms]
    values = right[0] - right[1] if len(right) == 2 else right[0]
    first, second = [clusters[row] for row in stronger], [clusters[row] for row in weaker]
    interval = edge_mean(values, first, second, **options)
    return share_interval(interval, len(set(first)), options["level"]) if len(arms) == 1 else interval
