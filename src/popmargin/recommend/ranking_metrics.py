"""Recall, NDCG, coverage and popularity bias of recommendations, with intervals over users.

Axis suffixes: S seeds or draws, N cases, I items, K places.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from popmargin.data.ragged import Ragged
from popmargin.errors import DataError, counted
from popmargin.recommend.ranks import Ranking
from popmargin.recommend.splitting import Cases
from popmargin.statistics.intervals import Interval
from popmargin.statistics.jackknife import Estimate, row_means

CUTOFFS = (5, 10, 20)


def recall(ranks: Float[np.ndarray, "*N"], cutoff: int) -> Float[np.ndarray, "*N"]:
    """Whether the target is among the first places (N,): with one target, recall is the hit rate.

    Args:
        ranks: from 0; a rank between two places (ties) counts if it is below the cutoff.
        cutoff: places that count.

    Example:
        >>> recall(np.array([0.0, 4.5, 5.0]), 5).tolist()
        [1.0, 1.0, 0.0]
    """
    return (ranks < cutoff).astype(np.float64)


def ndcg(ranks: Float[np.ndarray, "*N"], cutoff: int) -> Float[np.ndarray, "*N"]:
    """Normalised discounted cumulative gain of one target (N,): 1 / log₂(rank + 2) among the first places, else 0.

    Example:
        >>> ndcg(np.array([0.0, 1.0, 2.0, 10.0]), 10).round(6).tolist()
        [1.0, 0.63093, 0.5, 0.0]
    """
    return np.where(ranks < cutoff, 1.0 / np.log2(ranks + 2.0), 0.0)


def popularity(train: Ragged, items: int) -> Float[np.ndarray, " I"]:
    """Training users that have each item (I,).

    Example:
        >>> popularity(Ragged.of([[1, 1, 2], [2]]), 3).tolist()
        [1.0, 2.0, 0.0]
    """
    user = np.repeat(np.arange(len(train)), train.lengths)
    pairs = np.unique(np.stack([user, train.values.astype(np.int64)]), axis=1)
    return np.bincount(pairs[1] - 1, minlength=items).astype(np.float64)


def popularity_percentile(counts_I: Float[np.ndarray, " I"]) -> Float[np.ndarray, " I"]:
    """Share of the catalogue that is less popular than each item, plus half of what is equally popular (I,).

    Example:
        >>> popularity_percentile(np.array([5.0, 0.0, 1.0, 1.0])).tolist()
        [0.875, 0.125, 0.5, 0.5]
    """
    ordered = np.sort(counts_I)
    below, upto = (np.searchsorted(ordered, counts_I, side=side) for side in ("left", "right"))
    return (below + upto) / (2 * len(counts_I))


def gini(amounts: Float[np.ndarray, " I"]) -> float:
    """Gini coefficient of amounts ≥ 0: 0 if all are equal, nearly 1 if one has everything; nan if all are 0.

    Example:
        >>> gini(np.array([1.0, 1.0])), gini(np.array([0.0, 0.0, 0.0, 1.0]))
        (0.0, 0.75)
    """
    ordered, count = np.sort(amounts), len(amounts)
    total = float(ordered.sum())
    if not total:
        return float("nan")
    return float((2 * np.arange(1, count + 1) - count - 1) @ ordered) / (count * total)


@dataclass(frozen=True)
class RankingMetrics:
    """How good a recommender's rankings are. S: seeds, or draws of its noise.

    Attributes:
        per_user: metric (`recall@5`, `ndcg@5` …) -> value of each case (S, N).
        coverage: `coverage@K` -> share of the catalogue that is among the first K places of any case (S,).
        popularity: `popularity@K` -> mean percentile of the popularity of what is recommended (S,): ½ if popularity
            does not matter, near 1 if only the most popular items are recommended; and `gini@K` -> Gini coefficient of
            how often items are recommended (S,).
        users: cluster of each case (N,).
    """

    per_user: dict[str, np.ndarray]
    coverage: dict[str, np.ndarray]
    popularity: dict[str, np.ndarray]
    users: tuple[str, ...]

    def estimate(self, metric: str) -> Estimate:
        """A metric per user as an estimate whose clusters are users."""
        return row_means(self.per_user[metric], self.users)

    def interval(self, metric: str, *, level: float = 0.95) -> Interval:
        """The mean of a metric per user, with its interval over users (and seeds, if there are several)."""
        scale = "share" if metric.startswith("recall") else "plain"
        return self.estimate(metric).interval(level=level, scale=scale)

    def minus(self, other: "RankingMetrics", metric: str, *, level: float = 0.95) -> Interval:
        """The difference from another recommender on the same cases, paired by user.

        Raises:
            DataError: other cases.
        """
        if self.users != other.users:
            raise DataError(
                f"The recommenders were measured on {counted(len(self.users), 'case')} and {len(other.users)} others. "
                "Remedy: measure both on the same cases."
            )
        return self.estimate(metric).minus(other.estimate(metric), level=level)

    def to_dict(self) -> dict[str, Any]:
        """Every metric as JSON values: those per user with their interval, the others as means over seeds."""
        means = {name: float(values.mean()) for name, values in {**self.coverage, **self.popularity}.items()}
        return {name: self.interval(name).to_dict() for name in self.per_user} | means


def measure(
    rankings: Sequence[Ranking], cases: Cases, counts_I: Float[np.ndarray, " I"], *, cutoffs: Sequence[int] = CUTOFFS
) -> RankingMetrics:
    """The metrics of one recommender.

    Args:
        rankings: of the same cases, one for each seed or draw.
        cases: what was ranked.
        counts_I: `popularity` of the training part.
        cutoffs: places that count; at most those of `Ranking.best`, or the catalogue.

    Raises:
        DataError: too few places were kept.

    Example:
        >>> from popmargin.recommend.splitting import Cases
        >>> cases = Cases(("ann", "bob"), Ragged.of([[1], [2]]), np.array([2, 3]))
        >>> found = measure([Ranking(np.array([0.0, 2.0]), np.array([[2], [1]]))], cases, np.array([2.0, 1.0, 1.0]),
        ...                 cutoffs=(1,))
        >>> found.interval("recall@1").estimate, found.coverage["coverage@1"].round(3).tolist()
        (0.5, [0.667])
    """
    ranks_SN = np.stack([ranking.ranks for ranking in rankings])
    places = rankings[0].best.shape[1]
    if max(cutoffs) > places and places < len(counts_I):
        raise DataError(
            f"{places} places were kept for a cutoff of {max(cutoffs)}. Remedy: rank with count={max(cutoffs)}."
        )
    per_user: dict[str, np.ndarray] = {}
    coverage: dict[str, np.ndarray] = {}
    bias: dict[str, np.ndarray] = {}
    percentile_I = popularity_percentile(counts_I)
    for cutoff in cutoffs:
        per_user[f"recall@{cutoff}"] = recall(ranks_SN, cutoff)
        per_user[f"ndcg@{cutoff}"] = ndcg(ranks_SN, cutoff)
        shown = [ranking.best[:, :cutoff][ranking.best[:, :cutoff] > 0] - 1 for ranking in rankings]
        often_SI = np.stack([np.bincount(items, minlength=len(counts_I)) for items in shown]).astype(np.float64)
        coverage[f"coverage@{cutoff}"] = (often_SI > 0).mean(axis=1)
        bias[f"popularity@{cutoff}"] = np.array([percentile_I[items].mean() for items in shown])
        bias[f"gini@{cutoff}"] = np.array([gini(often) for often in often_SI])
    return RankingMetrics(per_user, coverage, bias, cases.users)
