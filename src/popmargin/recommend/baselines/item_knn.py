"""Items whose users are the same: item-based nearest neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from popmargin.data.ragged import Ragged
from popmargin.recommend.baselines.base import Observed, baseline
from popmargin.recommend.cooccurrence import incidence


@dataclass(frozen=True, kw_only=True)
class ItemKNNOptions:
    """Options of `item_knn`.

    Attributes:
        decay: weight of an item of the history, to the power of its distance from the end; 1 weighs all alike.
        transductive: count the users of validation rows and of test histories too (never test targets).
    """

    decay: float = 1.0
    transductive: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise ValueError(f"item_knn: decay must be above 0 and at most 1, not {self.decay}.")


@dataclass(frozen=True)
class ItemKNN:
    """Similarities of items (I, I), sparse, and the decay."""

    similarities: Any
    decay: float

    def scores(self, histories: Ragged, users: Sequence[str]) -> Float[np.ndarray, "B I"]:
        """Scores (B, I): similarities to the items of the history, weighted and summed."""
        return (decayed_histories(histories, self.similarities.shape[0], self.decay) @ self.similarities).toarray()


def decayed_histories(histories: Ragged, items: int, decay: float) -> Any:
    """The weight of every item in each history, sparse (B, I): Σ decay^(distance from the end).

    Example:
        >>> decayed_histories(Ragged.of([[1, 2, 1]]), 2, 0.5).toarray().tolist()
        [[1.25, 0.5]]
    """
    rows = np.repeat(np.arange(len(histories)), histories.lengths)
    distance = np.repeat(histories.offsets[1:], histories.lengths) - np.arange(histories.offsets[-1]) - 1
    weights = decay ** distance.astype(np.float64)
    return sp.csr_array((weights, (rows, histories.values - 1)), shape=(len(histories), items))


@baseline("item_knn", options=ItemKNNOptions, exclude_history=True)
def fit_item_knn(observed: Observed, options: ItemKNNOptions) -> ItemKNN:
    """Cosine of the items' sets of users, summed over the history.

    Example:
        >>> observed = Observed(Ragged.of([[1, 2], [1, 3]]), Ragged.of([]), 3)
        >>> fit_item_knn(observed, ItemKNNOptions()).scores(Ragged.of([[2]]), ["ann"]).round(3).tolist()
        [[0.707, 1.0, 0.0]]
    """
    with_user = incidence(observed.known if options.transductive else observed.train, observed.items)
    size = np.sqrt(with_user.sum(axis=0))
    inverse = sp.diags_array(np.divide(1.0, size, out=np.zeros_like(size), where=size > 0))
    return ItemKNN((inverse @ (with_user.T @ with_user) @ inverse).tocsr(), options.decay)
