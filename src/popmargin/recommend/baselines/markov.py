"""What came next after the last item: a Markov chain of first order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from popmargin.data.ragged import Ragged
from popmargin.recommend.baselines.base import Observed, baseline
from popmargin.recommend.ranking_metrics import popularity


@dataclass(frozen=True, kw_only=True)
class MarkovOptions:
    """Options of `markov`.

    Attributes:
        popularity_weight: weight of an item's training users, which orders what never came next.
    """

    popularity_weight: float = 1e-6

    def __post_init__(self) -> None:
        if not 0 <= self.popularity_weight < float("inf"):
            raise ValueError(f"markov: popularity_weight must be 0 or more, not {self.popularity_weight}.")


@dataclass(frozen=True)
class Markov:
    """Transition counts (I, I), sparse, and what is added to each item (I,)."""

    transitions: Any
    added: Float[np.ndarray, " I"]

    def scores(self, histories: Ragged, users: Sequence[str]) -> Float[np.ndarray, "B I"]:
        """Scores (B, I): how often the item followed the last one."""
        last_B = histories.values[histories.offsets[1:] - 1] - 1
        return self.transitions[last_B].toarray() + self.added


@baseline("markov", options=MarkovOptions)
def fit_markov(observed: Observed, options: MarkovOptions) -> Markov:
    """How often an item directly followed the last one in training, plus 1e-6 times its popularity.

    Example:
        >>> observed = Observed(Ragged.of([[1, 2], [1, 2, 3]]), Ragged.of([]), 3)
        >>> found = fit_markov(observed, MarkovOptions(popularity_weight=0.1))
        >>> found.scores(Ragged.of([[3, 1]]), ["ann"]).round(2).tolist()
        [[0.2, 2.2, 0.1]]
    """
    train, size = observed.train, observed.items
    first = np.ones(len(train.values), dtype=bool)
    first[train.offsets[1:][train.lengths > 0] - 1] = False  # the last item of a sequence has no next one
    places = np.flatnonzero(first)
    pair = (train.values[places] - 1, train.values[places + 1] - 1)
    transitions = sp.csr_array((np.ones(len(places)), pair), shape=(size, size))
    return Markov(transitions, options.popularity_weight * popularity(train, size))
