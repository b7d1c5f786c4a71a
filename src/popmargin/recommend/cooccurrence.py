"""Item vectors from which items occur with the same users: positive pointwise mutual information and its SVD."""

from typing import Any, cast

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from scipy.sparse.linalg import svds

from popmargin.data.ragged import Ragged
from popmargin.errors import ConfigError


def incidence(sequences: Ragged, items: int) -> Any:
    """Which user has which item: a sparse matrix of zeros and ones (users, items); column j is item j + 1.

    Example:
        >>> incidence(Ragged.of([[1, 3, 3], [2]]), 3).toarray().tolist()
        [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    rows = np.repeat(np.arange(len(sequences)), sequences.lengths)
    ones = np.ones(len(rows))
    matrix = sp.csr_array((ones, (rows, sequences.values - 1)), shape=(len(sequences), items))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def positive_pmi(sequences: Ragged, items: int) -> Any:
    """Positive pointwise mutual information of two different items of one user, sparse and symmetric (I, I).

    PMI = log( n_ij·n / (n_i·n_j) ): n_ij users have both, n_i and n are its sums over j, and over i and j; values below
    0 become 0.

    Example:
        >>> positive_pmi(Ragged.of([[1, 2], [3, 4]]), 4).toarray()[0].round(4).tolist()
        [0.0, 1.3863, 0.0, 0.0]
    """
    with_user = incidence(sequences, items)
    both = sp.coo_array(with_user.T @ with_user)
    apart = both.row != both.col
    row, column, count = both.row[apart], both.col[apart], both.data[apart]
    of_item = np.bincount(row, count, minlength=items)
    pmi = np.log(count * of_item.sum() / (of_item[row] * of_item[column]))
    positive = pmi > 0
    return sp.csr_array((pmi[positive], (row[positive], column[positive])), shape=(items, items))


def cooccurrence_vectors(sequences: Ragged, items: int, dimension: int) -> Float[np.ndarray, "I D"]:
    """Vectors of all items: U·√S of the truncated SVD of `positive_pmi` (I, D), float32; zeros without any company.

    The largest entry of every direction is positive, so that the vectors do not depend on the solver's signs.

    Args:
        sequences: training sequences only, so that test targets stay unknown.
        items: size of the catalogue.
        dimension: D, at most I − 1.

    Raises:
        ConfigError: another dimension.

    Example:
        >>> vectors = cooccurrence_vectors(Ragged.of([[1, 3], [2, 3], [4, 5]]), 5, 4)
        >>> bool(np.allclose(vectors[0], vectors[1], atol=1e-6))  # both occur with item 3
        True
    """
    if not 1 <= dimension < items:
        raise ConfigError(f"dimension is {dimension}; {items} items allow 1 to {items - 1}.")
    pmi = positive_pmi(sequences, items)
    start = np.random.default_rng(0).standard_normal(items)
    left, size, _ = cast(Any, svds(pmi, k=dimension, v0=start, solver="arpack"))
    order = np.argsort(-size, kind="stable")
    return fixed_signs(left[:, order] * np.sqrt(np.maximum(size[order], 0.0))).astype(np.float32)


def fixed_signs(vectors: Float[np.ndarray, "I D"]) -> Float[np.ndarray, "I D"]:
    """The same directions (columns) with their largest entry positive; the first one among equals.

    Example:
        >>> fixed_signs(np.array([[1.0, 2.0], [-3.0, 1.0]])).tolist()
        [[-1.0, 2.0], [3.0, 1.0]]
    """
    size = np.abs(vectors)
    place = (size >= (1 - 1e-6) * size.max(axis=0)).argmax(axis=0)  # rounding does not decide between equals
    largest = vectors[place, np.arange(vectors.shape[1])]
    return vectors * np.where(largest < 0, -1.0, 1.0)
