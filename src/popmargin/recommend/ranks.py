"""Where targets rank in the whole catalogue, and the best items, a chunk of users at a time.

Axis suffixes: N cases, B cases of a chunk, I items, K places.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int

from popmargin.data.ragged import Ragged
from popmargin.errors import ConfigError, DataError, RunError
from popmargin.recommend.item_sequences import Catalogue, ItemId
from popmargin.recommend.splitting import Cases


@runtime_checkable
class Recommender(Protocol):
    """Scores every item of the catalogue as the next one."""

    def scores(self, histories: Ragged, users: Sequence[str]) -> Float[np.ndarray, "B I"]:
        """Scores (B, I), larger is better; column j is item j + 1.

        Args:
            histories: item numbers, oldest first.
            users: their names; a recommender that draws noise fixes it by them.
        """
        ...


@dataclass(frozen=True)
class Ranking:
    """How a recommender ranks the catalogue for each case.

    Attributes:
        ranks: rank of the target from 0 (N,); among equal scores it is the mean position, so it may end in ½.
        best: numbers of the best K items, best first (N, K); among equals, the lower number; 0 if too few are left.
    """

    ranks: Float[np.ndarray, " N"]
    best: Int[np.ndarray, "N K"]


def mean_rank(scores_BI: Float[np.ndarray, "B I"], targets_B: Int[np.ndarray, " B"]) -> Float[np.ndarray, " B"]:
    """Rank of each target from 0, at the mean position of the items with the same score (B,).

    Args:
        scores_BI: −inf for items that do not count.
        targets_B: item numbers.

    Example:
        >>> mean_rank(np.array([[3.0, 1.0, 1.0, 1.0], [0.0, 2.0, 1.0, 0.0]]), np.array([2, 3])).tolist()
        [2.0, 1.0]
    """
    own_B1 = np.take_along_axis(scores_BI, targets_B[:, None].astype(np.int64) - 1, axis=1)
    above_B = (scores_BI > own_B1).sum(axis=1)
    equal_B = (scores_BI == own_B1).sum(axis=1) - 1
    return above_B + equal_B / 2


def best_items(scores_BI: Float[np.ndarray, "B I"], count: int) -> Int[np.ndarray, "B K"]:
    """Numbers of the items with the highest scores, best first (B, K); the lower number among equals, 0 for −inf.

    Example:
        >>> best_items(np.array([[1.0, 3.0, 1.0, -np.inf]]), 4).tolist()
        [[2, 1, 3, 0]]
    """
    count = min(count, scores_BI.shape[1])
    # NumPy's partition takes ten times as long where most scores are equal.
    kth_B = torch.from_numpy(scores_BI).topk(count, dim=1).values[:, -1].numpy()
    best_BK = np.zeros((len(scores_BI), count), dtype=np.int64)
    for row, (scores_I, kth) in enumerate(zip(scores_BI, kth_B, strict=True)):
        above = np.flatnonzero(scores_I > kth)
        equal = np.flatnonzero(scores_I == kth)[: count - len(above)]  # there may be thousands: not sorted
        places = np.concatenate([above[np.argsort(-scores_I[above], kind="stable")], equal])
        best_BK[row] = np.where(scores_I[places] > -np.inf, places + 1, 0)
    return best_BK


def checked_scores(
    recommender: Recommender, histories: Ragged, users: Sequence[str], items: int
) -> Float[np.ndarray, "B I"]:
    """A recommender's scores, in a matrix that may be changed (B, I).

    Raises:
        RunError: another shape, or numbers that are not finite.
    """
    scores_BI = np.asarray(recommender.scores(histories, users))
    scores_BI = scores_BI.astype(np.result_type(scores_BI, np.float32))  # a copy
    if scores_BI.shape != (len(histories), items):
        raise RunError(f"The recommender gave scores of shape {scores_BI.shape}, not {(len(histories), items)}.")
    if not np.isfinite(scores_BI).all():
        row = int(np.flatnonzero(~np.isfinite(scores_BI).all(axis=1))[0])
        raise RunError(
            f"A score for user '{users[row]}' is not finite: the model has diverged. Lower the learning rate."
        )
    return scores_BI


def without_history(scores_BI: Float[np.ndarray, "B I"], histories: Ragged) -> None:
    """Set the scores of the items of each history to −inf, in place."""
    rows = np.repeat(np.arange(len(histories)), histories.lengths)
    scores_BI[rows, histories.values - 1] = -np.inf


def rank_cases(
    recommender: Recommender,
    cases: Cases,
    *,
    items: int,
    exclude_history: bool = False,
    count: int = 20,
    chunk: int = 256,
) -> Ranking:
    """Rank the whole catalogue for every case.

    Args:
        recommender: what scores items.
        cases: histories and targets.
        items: size of the catalogue.
        exclude_history: items of a history cannot be recommended again. A target that is in its history then ranks
            last, as the mean of the items that cannot be recommended.
        count: places of `Ranking.best`.
        chunk: users at a time; memory grows with chunk times items.

    Raises:
        ConfigError: a chunk or count below 1.
        RunError: scores that are not finite.
    """
    if chunk < 1 or count < 1:
        raise ConfigError(f"chunk is {chunk} and count {count}; both must be 1 or more.")
    ranks: list[np.ndarray] = []
    best: list[np.ndarray] = []
    for start in range(0, len(cases), chunk):
        histories = cases.histories[start : start + chunk]
        scores_BI = checked_scores(recommender, histories, cases.users[start : start + chunk], items)
        if exclude_history:
            without_history(scores_BI, histories)
        ranks.append(mean_rank(scores_BI, cases.targets[start : start + chunk]))
        best.append(best_items(scores_BI, count))
    return Ranking(np.concatenate(ranks), np.concatenate(best))


def top_items(
    recommender: Recommender,
    histories: Ragged,
    *,
    items: int,
    users: Sequence[str] | None = None,
    exclude_history: bool = True,
    count: int = 10,
    chunk: int = 256,
) -> Int[np.ndarray, "N K"]:
    """Numbers of the best items for each history (N, K), best first; 0 where too few are left.

    Args:
        recommender, items, exclude_history, count, chunk: as in `rank_cases`.
        histories: item numbers, oldest first.
        users: their names; by default their positions.
    """
    names = tuple(map(str, range(len(histories)))) if users is None else tuple(users)
    found: list[np.ndarray] = []
    for start in range(0, len(histories), chunk):
        part = histories[start : start + chunk]
        scores_BI = checked_scores(recommender, part, names[start : start + chunk], items)
        if exclude_history:
            without_history(scores_BI, part)
        found.append(best_items(scores_BI, count))
    return np.concatenate(found) if found else np.zeros((0, count), dtype=np.int64)


def recommend_items(
    recommender: Recommender,
    catalogue: Catalogue,
    histories: Sequence[Sequence[ItemId]],
    *,
    users: Sequence[str] | None = None,
    count: int = 10,
    exclude_history: bool = True,
) -> list[list[str]]:
    """The best items for each history, by name, best first.

    Args:
        recommender: what scores items.
        catalogue: the items that it knows.
        histories: ids, oldest first.
        users, count, exclude_history: as in `top_items`.

    Raises:
        DataError: an unknown item, or a history without any.

    Example:
        >>> from popmargin.recommend.baselines.base import Observed
        >>> from popmargin.recommend.baselines.popularity import PopularityOptions, fit_popularity
        >>> found = fit_popularity(Observed(Ragged.of([[1, 2], [2], [3, 2]]), Ragged.of([]), 3), PopularityOptions())
        >>> recommend_items(found, Catalogue.of(["cup", "milk", "tea"]), [["milk"], ["tea"]], count=1)
        [['cup'], ['milk']]
    """
    empty = [place for place, history in enumerate(histories) if not len(history)]
    if empty:
        raise DataError(f"History {empty[0]} is empty. Remedy: give an item or more, or recommend what is popular.")
    numbers = Ragged.of([catalogue.numbers(history).tolist() for history in histories])
    best_NK = top_items(
        recommender, numbers, items=len(catalogue), users=users, exclude_history=exclude_history, count=count
    )
    return [[catalogue.names[number - 1] for number in row if number] for row in best_NK.tolist()]
