"""Agreement of annotators: Krippendorff's alpha, Cohen's kappa, and people compared with a judge on equal terms.

Axis suffixes: N items, R annotators, K distinct values, C summed columns, r sets of items.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from popmargin.errors import ConfigError, DataError, counted
from popmargin.statistics.intervals import Interval
from popmargin.statistics.jackknife import share_of_sums, without_rows

Level = Literal["nominal", "ordinal", "interval"]
Weights = Literal["linear", "quadratic"]


def krippendorff_alpha(values: ArrayLike, level: Level = "nominal") -> float:
    """Krippendorff's α: 1 − observed / expected disagreement, with any number of annotators and missing values.

        α = 1 − Σ_ck o_ck δ²_ck / Σ_ck e_ck δ²_ck,   e_ck = n_c (n_k − [c = k]) / (n − 1)

    o is the coincidence matrix: every ordered pair of values of one item, weighted 1 / (values of the item − 1). 1 is
    perfect agreement, 0 is chance level, below 0 is worse than chance (Krippendorff 2011, Computing Krippendorff's
    alpha-reliability).

    Args:
        values: (N, R), nan where an annotator did not label the item; items with fewer than two values do not count.
        level: what differences mean: nominal (equal or not), ordinal (ranks) or interval (numbers).

    Returns:
        α; nan if no two values can be compared or all are equal, since expected disagreement is then 0.

    Raises:
        DataError: the values are not a matrix.
        ConfigError: an unknown level.

    Example:
        >>> round(krippendorff_alpha([[1, 1], [2, 2], [1, 2]]), 3)
        0.444
    """
    values_NR, known_K = _coded(values)
    pairs_NKK = _coincidences(_counts(values_NR, len(known_K)))
    return float(_alpha(pairs_NKK.sum(axis=0)[None], known_K, level)[0])


def alpha_interval(values: ArrayLike, level: Level = "nominal", *, confidence: float = 0.95) -> Interval:
    """Krippendorff's α with an interval from its variance between items; none if they show none, as at 1.

    Args:
        values, level: as for `krippendorff_alpha`.
        confidence: of the interval.

    Example:
        >>> alpha_interval([[1, 1], [2, 2], [1, 1]]).estimate
        1.0
    """
    values_NR, known_K = _coded(values)
    counts_NK = _counts(values_NR, len(known_K))
    used = counts_NK.sum(axis=1) > 1
    flat = _coincidences(counts_NK[used]).reshape(int(used.sum()), len(known_K) ** 2)

    def statistic(sums_rC: np.ndarray) -> np.ndarray:
        return _alpha(sums_rC.reshape(-1, len(known_K), len(known_K)), known_K, level)

    return _agreement(flat, statistic, confidence)


def cohen_kappa(first: ArrayLike, second: ArrayLike, weights: Weights | None = None) -> float:
    """Cohen's κ of two annotators: agreement beyond chance, 1 − Σ w o / Σ w e (Cohen 1960; weighted: Cohen 1968).

    Args:
        first: (N,), nan where missing.
        second: (N,), nan where missing; items that either did not label are excluded.
        weights: of disagreements; None counts all equally, "linear" by the distance of the two values, "quadratic" by
            its square. Values are points on a scale: 1 and 7 are six steps apart, even if nobody said 2 to 6.

    Returns:
        κ; nan without common items, or if both always give the same single value.

    Raises:
        DataError: different numbers of values.
        ConfigError: unknown weights.

    Example:
        >>> cohen_kappa([0, 0, 1, 1], [0, 0, 1, 0])
        0.5
    """
    table_NKK, known_K = _tables(first, second)
    return float(_kappa(table_NKK.sum(axis=0)[None], known_K, weights)[0])


def kappa_interval(
    first: ArrayLike,
    second: ArrayLike,
    weights: Weights | None = None,
    *,
    confidence: float = 0.95,
) -> Interval:
    """Cohen's κ with an interval from its variance between items; none if they show none, as at 1.

    Args:
        first, second, weights: as for `cohen_kappa`.
        confidence: of the interval.
    """
    table_NKK, known_K = _tables(first, second)
    categories = len(known_K)
    flat = table_NKK.reshape(len(table_NKK), categories * categories)

    def statistic(sums_rC: np.ndarray) -> np.ndarray:
        return _kappa(sums_rC.reshape(-1, categories, categories), known_K, weights)

    return _agreement(flat, statistic, confidence)


def pairwise_agreement(values: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Share of pairs of annotators of the same item who agree, over all pairs.

    Args:
        values: (N, R), nan where missing.
        confidence: of the interval.

    Example:
        >>> pairwise_agreement([[1, 1, 2], [1, 1, float("nan")]]).estimate
        0.5
    """
    values_NR, known_K = _coded(values)
    counts_NK = _counts(values_NR, len(known_K))
    labels_N = counts_NK.sum(axis=1)
    sums = np.stack([(counts_NK * (counts_NK - 1)).sum(axis=1), labels_N * (labels_N - 1)], axis=1)
    return share_of_sums(sums, confidence=confidence)


def leave_one_out(
    people: ArrayLike,
    judge: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
) -> Interval:
    """How often a label is what most of the *other* people say: for each person in turn, or for a judge in their place.

    A benchmark for a judge: with `judge`, each person of an item is still left out in turn, so judge and people are
    measured against the same panels (as in AlpacaEval, where people reach 65.7%). If the panel is tied, a label among
    its most frequent values counts 1 / their number.

    Args:
        people: (N, R), nan where missing; items with fewer than two people are excluded.
        judge: (N,), nan where it gave no verdict (the item is excluded); None measures the people themselves.
        confidence: of the interval.

    Returns:
        The share with its interval.

    Example:
        >>> leave_one_out([[1, 1, 2]]).estimate, leave_one_out([[1, 1, 2]], [1]).estimate
        (0.3333333333333333, 0.6666666666666666)
    """
    stacked = np.asarray(people, dtype=np.float64)
    if stacked.ndim != 2:
        raise DataError(f"Labels have shape {stacked.shape}; give a matrix of items by annotators.")
    count = stacked.shape[1]
    if judge is not None:
        column = np.asarray(judge, dtype=np.float64)
        if column.shape != stacked.shape[:1]:
            raise DataError(
                f"The judge has {counted(column.size, 'verdict')} for {counted(len(stacked), 'item')}; give one per "
                "item."
            )
        stacked = np.column_stack([stacked, column])
    coded, known_K = _coded(stacked)
    counts_NK = _counts(coded[:, :count], len(known_K))
    several = counts_NK.sum(axis=1) > 1
    sums = np.zeros((len(coded), 2))
    for person in range(count):
        left_out, tested = coded[:, person], coded[:, person if judge is None else -1]
        rows = np.flatnonzero((left_out >= 0) & (tested >= 0) & several)
        others = counts_NK[rows].copy()
        others[np.arange(len(rows)), left_out[rows]] -= 1
        modes = others == others.max(axis=1, keepdims=True) if len(rows) else others.astype(bool)
        sums[rows, 0] += modes[np.arange(len(rows)), tested[rows]] / np.maximum(modes.sum(axis=1), 1)
        sums[rows, 1] += 1
    return share_of_sums(sums, confidence=confidence)


def _agreement(rows: Any, statistic: Callable[[np.ndarray], np.ndarray], confidence: float) -> Interval:
    """Interval of a statistic; none where the items show no variance, which a few may do by chance."""
    found = without_rows(rows, statistic).interval(level=confidence)
    if found.high - found.low < 1e-12:
        return Interval(found.estimate, math.nan, math.nan)
    return found.clip(-math.inf, 1.0)


def _coded(values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values as category numbers (N, R), -1 where missing, and the categories' values in order (K,)."""
    raw = np.asarray(values, dtype=np.float64)
    if raw.ndim != 2:
        raise DataError(f"Labels have shape {raw.shape}; give a matrix of items by annotators, nan where missing.")
    known = ~np.isnan(raw)
    categories, codes = np.unique(raw[known], return_inverse=True)
    coded = np.full(raw.shape, -1, dtype=np.int64)
    coded[known] = codes
    return coded, categories


def _counts(coded_NR: np.ndarray, categories: int) -> np.ndarray:
    """How often each category was given to each item (N, K)."""
    rows, columns = np.nonzero(coded_NR >= 0)
    cells = rows * categories + coded_NR[rows, columns]
    counts = np.bincount(cells, minlength=len(coded_NR) * categories).reshape(len(coded_NR), categories)
    return counts.astype(np.float64)


def _coincidences(counts_NK: np.ndarray) -> np.ndarray:
    """Each item's part of the coincidence matrix (N, K, K)."""
    labels_N = counts_NK.sum(axis=1)
    pairs = counts_NK[:, :, None] * counts_NK[:, None, :]
    pairs -= counts_NK[:, :, None] * np.eye(counts_NK.shape[1])
    return pairs / np.maximum(labels_N - 1, 1)[:, None, None]


def _alpha(observed_rKK: np.ndarray, values_K: np.ndarray, level: Level) -> np.ndarray:
    marginal = observed_rKK.sum(axis=2)
    total = marginal.sum(axis=1)
    if level == "nominal":
        distance = np.broadcast_to(1.0 - np.eye(len(values_K)), observed_rKK.shape)
    elif level == "interval":
        distance = np.broadcast_to((values_K[:, None] - values_K[None, :]) ** 2, observed_rKK.shape)
    elif level == "ordinal":
        middle = (
            np.cumsum(marginal, axis=1) - marginal / 2
        )  # between two of these: the ranks in between, ends counted half
        distance = (middle[:, :, None] - middle[:, None, :]) ** 2
    else:
        raise ConfigError(f"level is {level!r}; choose 'nominal', 'ordinal' or 'interval'.")
    expected = marginal[:, :, None] * marginal[:, None, :]  # the diagonal has distance 0, so [c = k] drops out
    by_chance = (expected * distance).sum(axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        alpha = 1.0 - (total - 1) * (observed_rKK * distance).sum(axis=(1, 2)) / by_chance
    return np.where(by_chance > 0, alpha, np.nan)


def _tables(first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
    """Each common item's cell of the table of both annotators (n, K, K), and the categories' values in order (K,)."""
    one, two = (np.asarray(side, dtype=np.float64) for side in (first, second))
    if one.shape != two.shape or one.ndim != 1:
        raise DataError(
            f"Two annotators with {one.size} and {counted(two.size, 'value')}; give one value each for the same items."
        )
    common = ~(np.isnan(one) | np.isnan(two))
    coded, categories = _coded(np.stack([one[common], two[common]], axis=1))
    tables = np.zeros((len(coded), len(categories), len(categories)))
    tables[np.arange(len(coded)), coded[:, 0], coded[:, 1]] = 1
    return tables, categories


def _kappa(table_rKK: np.ndarray, values_K: np.ndarray, weights: Weights | None) -> np.ndarray:
    apart = np.abs(values_K[:, None] - values_K[None, :])
    if weights not in (None, "linear", "quadratic"):
        raise ConfigError(f"weights is {weights!r}; choose 'linear', 'quadratic' or None.")
    weight = (apart > 0).astype(np.float64) if weights is None else apart ** (1 if weights == "linear" else 2)
    expected = table_rKK.sum(axis=2)[:, :, None] * table_rKK.sum(axis=1)[:, None, :]
    by_chance = (weight * expected).sum(axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        kappa = 1.0 - table_rKK.sum(axis=(1, 2)) * (weight * table_rKK).sum(axis=(1, 2)) / by_chance
    return np.where(by_chance > 0, kappa, np.nan)
