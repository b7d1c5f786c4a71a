"""How well a model orders responses, and preferences: accuracy, correlations, PoP accuracy, calibration.

Axis suffixes: S seeds, N preferences, E edges.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from popmargin.errors import DataError, counted
from popmargin.statistics.buckets import STRENGTHS, strength_thirds
from popmargin.statistics.calibration import calibration_error, reliability_curve, share_right
from popmargin.statistics.edge_mean import edge_mean
from popmargin.statistics.intervals import UNDEFINED, Clusters, Interval, Scale, per_seed_rows
from popmargin.statistics.jackknife import Estimate, ratio, row_means, without_each, without_sets
from popmargin.statistics.rank_correlation import kendall, spearman

Edges = tuple[Any, Any]


@dataclass(frozen=True)
class DiscriminativeMetrics:
    """Metrics of how well responses and preferences are ordered.

    Attributes:
        intervals: accuracy, accuracy_weak, accuracy_medium, accuracy_strong (thirds by strength, `strength_thirds`),
            accuracy_longer (the share that "the longer one is better" gets right: a baseline, not the model's),
            accuracy_reference (the accuracy of the reference model's own log-probs by the same score: another
            baseline), pearson, spearman, kendall (tau-b) of reward margin with strength, pop_accuracy, ece,
            reward_margin (reward units); nan if undefined.
        reliability: bins of predicted confidence with low, high, predicted, observed, count; over all seeds.
        counts: rows, clusters, weak, medium, strong, edges.
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


def discriminative_metrics(
    *,
    reward_margin: ArrayLike,
    strength: ArrayLike,
    clusters: Sequence[str],
    longer_chosen: ArrayLike | None = None,
    reference_margin: ArrayLike | None = None,
    edges: Edges | None = None,
    level: float = 0.95,
    bins: int = 10,
) -> DiscriminativeMetrics:
    """Metrics with intervals by clusters of prompts; for several seeds, means, with intervals that cover the seeds.

    Intervals are Student's t with the variance from leaving out one cluster at a time (`Estimate`, `Spread`); those of
    shares are Wilson's and those of correlations Fisher's, with that variance. With one seed they cover only the
    rows.

    A reward margin of exactly 0 counts as half right. Every row counts once, whatever the order or batching. The
    expected calibration error compares the confidence max(p, 1-p), p = σ(reward margin), with whether the model is
    right. Every row has the chosen response first, so "chosen is better" would be observed 100% of the time in each bin
    of p. Scoring both orders of each pair makes that frequency meaningful but mirrors each bin below ½ above it, which
    is this form. Bins have equal size; the estimate is corrected for the upward bias of Σ_bins |Σ confidence - Σ right|
    / N (`calibration_error`).

    Args:
        reward_margin: reward units, (N,) for one seed or (S, N) for several seeds on the same rows.
        strength: how much better chosen is (N,), for instance the rating gap; nan where unknown (thirds and
            correlations exclude these rows).
        clusters: of each row (N,): its prompt, or the data's `cluster`.
        longer_chosen: 1 where the chosen response is longer, ½ where both are equally long, otherwise 0 (N,).
        reference_margin: the reference model's own, by the same score, reward units (N,); None if there is none.
        edges: (stronger, weaker) row numbers of held-out PoP edges, each (E,); edges with weaker -1 are excluded. The
            interval of pop_accuracy accounts for both prompts of an edge (`edge_mean`).
        level: of the intervals.
        bins: of the calibration curve.

    Returns:
        The metrics.

    Raises:
        DataError: no rows, mismatched shapes, non-finite margins, or edges to rows that do not exist.
    """
    margin_SN = per_seed_rows(reward_margin, "reward_margin")
    strength_N = _check(margin_SN, strength, clusters)
    intervals = _intervals([margin_SN], strength_N, clusters, edges, bins, level)
    own = None if reference_margin is None else share_right(per_seed_rows(reference_margin, "reference_margin"))
    intervals["accuracy_longer"] = _untrained("longer_chosen", longer_chosen, clusters, level)
    intervals["accuracy_reference"] = _untrained("reference_margin", own, clusters, level)
    bucket = strength_thirds(strength_N)
    counts = {"rows": len(clusters), "clusters": len(set(clusters))}
    counts |= {name: int((bucket == b).sum()) for b, name in enumerate(STRENGTHS)}
    counts["edges"] = 0 if edges is None else int((np.asarray(edges[1]) >= 0).sum())
    return DiscriminativeMetrics(intervals, reliability_curve(margin_SN, bins=bins), counts)


def discriminative_differences(
    reward_margin: ArrayLike,
    baseline_margin: ArrayLike,
    *,
    strength: ArrayLike,
    clusters: Sequence[str],
    edges: Edges | None = None,
    level: float = 0.95,
    bins: int = 10,
) -> dict[str, Interval]:
    """Differences (this arm minus the baseline arm) on the same rows, each with its p-value.

    Args:
        reward_margin, baseline_margin: reward units, (N,) or (S, N). With equal numbers of seeds, seed s is compared
            with seed s; otherwise the seeds are independent, and one arm may have a single one.
        strength, clusters, edges, level, bins: as in `discriminative_metrics`.

    Returns:
        The difference for each key of `discriminative_metrics` except accuracy_longer and accuracy_reference.

    Raises:
        DataError: as there, or the two arms have different rows.
    """
    margin_SN = per_seed_rows(reward_margin, "reward_margin")
    other_SN = per_seed_rows(baseline_margin, "baseline_margin")
    if margin_SN.shape[1] != other_SN.shape[1]:
        raise DataError(
            f"The arms have {margin_SN.shape[1]} and {counted(other_SN.shape[1], 'row')}; compare them on the same "
            "rows."
        )
    strength_N = _check(margin_SN, strength, clusters)
    return _intervals([margin_SN, other_SN], strength_N, clusters, edges, bins, level)


def _check(margin_SN: Any, strength: ArrayLike, clusters: Sequence[str]) -> Any:
    strength_N = np.asarray(strength, dtype=np.float64)
    rows = margin_SN.shape[1]
    if strength_N.shape != (rows,) or len(clusters) != rows:
        raise DataError(
            f"{counted(rows, 'reward margin')}, strengths of shape {strength_N.shape} and "
            f"{counted(len(clusters), 'prompt')}; give one of each per preference."
        )
    if rows == 0:
        raise DataError("There are no preferences to evaluate: the split is empty.")
    return np.where(np.isfinite(strength_N), strength_N, np.nan)


def _intervals(
    arms: list[Any], strength_N: Any, clusters: Sequence[str], edges: Edges | None, bins: int, level: float
) -> dict[str, Interval]:
    """Intervals for one arm, or for the first minus the second."""
    groups = Clusters(clusters)
    result: dict[str, Interval] = {}
    for name, (scale, estimate) in _metrics(strength_N, groups, clusters).items():
        found = [estimate(arm) for arm in arms]
        result[name] = (
            found[0].interval(level=level, scale=scale) if len(arms) == 1 else found[0].minus(found[1], level=level)
        )
    result["ece"] = calibration_error(arms, groups, bins, level)
    result["pop_accuracy"] = _pop_accuracy(arms, clusters, edges, level)
    return result


def _metrics(
    strength_N: Any, groups: Clusters, clusters: Sequence[str]
) -> dict[str, tuple[Scale, Callable[[Any], Estimate]]]:
    """Each metric's scale, and its estimate from margins (S, N)."""
    bucket, known = strength_thirds(strength_N), np.isfinite(strength_N)
    known_groups = Clusters([name for name, use in zip(clusters, known, strict=True) if use])

    def share(inside_N: Any) -> Callable[[Any], Estimate]:
        def estimate(margin_SN: Any) -> Estimate:
            weight_SN = np.broadcast_to(inside_N.astype(np.float64), margin_SN.shape)
            return without_each(np.stack([share_right(margin_SN) * weight_SN, weight_SN], axis=-1), groups, ratio)

        return estimate

    def correlation(of_ranks: Any) -> Callable[[Any], Estimate]:
        def estimate(margin_SN: Any) -> Estimate:
            of_seed = [of_ranks(row[known], strength_N[known], known_groups) for row in margin_SN]
            return without_sets(lambda s, counts: of_seed[s](counts), known_groups, len(margin_SN))

        return estimate

    metrics: dict[str, tuple[Scale, Callable[[Any], Estimate]]] = {}
    metrics["accuracy"] = "share", share(np.ones(len(strength_N), dtype=bool))
    metrics |= {f"accuracy_{name}": ("share", share(bucket == b)) for b, name in enumerate(STRENGTHS)}
    metrics["reward_margin"] = "plain", lambda margin_SN: row_means(margin_SN, groups)
    metrics["pearson"] = (
        "correlation",
        lambda margin_SN: without_each(_moments(strength_N, margin_SN), groups, _pearson),
    )
    metrics["spearman"] = "correlation", correlation(spearman)
    metrics["kendall"] = "correlation", correlation(kendall)
    return metrics


def _untrained(name: str, right: ArrayLike | None, clusters: Sequence[str], level: float) -> Interval:
    """Accuracy of an untrained baseline, from whether it is right (N,)."""
    if right is None:
        return UNDEFINED
    rows = per_seed_rows(right, name)
    if rows.shape[1] != len(clusters):
        raise DataError(
            f"{name} has {counted(rows.shape[1], 'row')}, but there are {counted(len(clusters), 'preference')}."
        )
    return row_means(rows, clusters).interval(level=level, scale="share")


def _moments(strength_N: Any, margin_SN: Any) -> Any:
    known = np.isfinite(strength_N)
    x_SN = np.zeros(margin_SN.shape)
    y_SN = np.zeros(margin_SN.shape)
    x_SN[:, known] = _standard(margin_SN[:, known])
    y_SN[:, known] = _standard(np.broadcast_to(strength_N[known], (len(margin_SN), int(known.sum()))))
    weight_SN = np.broadcast_to(known.astype(np.float64), margin_SN.shape)
    return np.stack([weight_SN, x_SN, y_SN, x_SN**2, y_SN**2, x_SN * y_SN], axis=-1)


def _standard(values: Any) -> Any:
    """Rows with mean 0 and variance 1, so that sums of squares do not cancel; all 0 if a row is constant."""
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


def _pop_accuracy(arms: list[Any], clusters: Sequence[str], edges: Edges | None, level: float) -> Interval:
    if edges is None:
        return UNDEFINED
    stronger, weaker = (np.asarray(side, dtype=np.int64) for side in edges)
    if stronger.shape != weaker.shape or stronger.ndim != 1:
        raise DataError(f"edges have sides of shape {stronger.shape} and {weaker.shape}; give one row number each.")
    use = weaker >= 0
    stronger, weaker = stronger[use], weaker[use]
    if len(stronger) and (max(stronger.max(), weaker.max()) >= len(clusters) or stronger.min() < 0):
        raise DataError(f"edges name a row outside 0 … {len(clusters) - 1}. Resolve them with the ids of these rows.")
    right = [share_right(arm[:, stronger] - arm[:, weaker]) for arm in arms]
    first, second = [clusters[row] for row in stronger], [clusters[row] for row in weaker]
    if len(right) == 1:
        return edge_mean(right[0], first, second, level=level, scale="share")
    return edge_mean(right[0], first, second, minus=right[1], level=level)
