"""The most popular items, for everybody."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from popmargin.data.ragged import Ragged
from popmargin.recommend.baselines.base import Observed, baseline
from popmargin.recommend.ranking_metrics import popularity


@dataclass(frozen=True, kw_only=True)
class PopularityOptions:
    """`popularity` has no options."""


@dataclass(frozen=True)
class Popularity:
    """Counts of users (I,), the same for every history."""

    counts: Float[np.ndarray, " I"]

    def scores(self, histories: Ragged, users: Sequence[str]) -> Float[np.ndarray, "B I"]:
        """Scores (B, I): training users that have the item."""
        return np.tile(self.counts, (len(histories), 1))


@baseline("popularity", options=PopularityOptions)
def fit_popularity(observed: Observed, options: PopularityOptions) -> Popularity:
    """The items that most training users have.

    Example:
        >>> observed = Observed(Ragged.of([[1, 2], [2]]), Ragged.of([]), 3)
        >>> fit_popularity(observed, PopularityOptions()).scores(Ragged.of([[3]]), ["ann"]).tolist()
        [[1.0, 2.0, 0.0]]
    """
    return Popularity(popularity(observed.train, observed.items))
