"""The items whose vectors are nearest to those of the history: what the vectors do without any model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from popmargin.data.ragged import Ragged
from popmargin.recommend.baselines.base import Observed, baseline
from popmargin.recommend.baselines.item_knn import decayed_histories
from popmargin.recommend.cooccurrence import cooccurrence_vectors


@dataclass(frozen=True, kw_only=True)
class NearestVectorsOptions:
    """Options of `nearest_vectors`.

    Attributes:
        dimension: of the vectors.
        decay: weight of an item of the history, to the power of its distance from the end.
    """

    dimension: int = 64
    decay: float = 0.7

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1 or self.dimension < 1:
            raise ValueError(
                f"nearest_vectors: decay must be above 0 and at most 1, dimension 1 or more; they are {self.decay} and "
                f"{self.dimension}."
            )


@dataclass(frozen=True)
class NearestVectors:
    """Vectors of all items (I, D), and the decay."""

    vectors: Float[np.ndarray, "I D"]
    decay: float

    def scores(self, histories: Ragged, users: Sequence[str]) -> Float[np.ndarray, "B I"]:
        """Scores (B, I): inner products with the weighted sum of the history's vectors."""
        return (decayed_histories(histories, len(self.vectors), self.decay) @ self.vectors) @ self.vectors.T


@baseline("nearest_vectors", options=NearestVectorsOptions, exclude_history=True)
def fit_nearest_vectors(observed: Observed, options: NearestVectorsOptions) -> NearestVectors:
    """Inner products of the history with vectors from co-occurrence in training (ours).

    Example:
        >>> observed = Observed(Ragged.of([[1, 3], [2, 3], [4, 5]]), Ragged.of([]), 5)
        >>> found = fit_nearest_vectors(observed, NearestVectorsOptions(dimension=4))
        >>> scores = found.scores(Ragged.of([[1]]), ["ann"])
        >>> bool(scores[0, 1] > 0.5), scores[0, 3:].round(3).tolist() == [0.0, 0.0]
        (True, True)
    """
    return NearestVectors(cooccurrence_vectors(observed.train, observed.items, options.dimension), options.decay)
