"""Best of n, exactly: what a reward model's choice among n samples is worth by another reward, for every n at once.

A few samples of each prompt are drawn once and scored by all reward models. The expected choice among n of N samples,
over all ways to draw n of them, is a weighted mean of the N samples: nothing is sampled again, and all models share the
samples.

Axis suffixes: M models or seeds, P prompts, N samples of a prompt.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import gammaln

from popmargin.errors import DataError, counted
from popmargin.statistics.intervals import Interval
from popmargin.statistics.jackknife import row_means


def divergence(n: int) -> float:
    """Divergence (KL) of the best of n from the policy that is sampled, log n − (n − 1)/n, nats.

    It is an upper bound: equal responses and equal scores make the true one smaller (Beirami et al. 2024).

    Example:
        >>> round(divergence(1), 3), round(divergence(4), 3)
        (0.0, 0.636)
    """
    if n < 1:
        raise DataError(f"The best of {n}: give 1 or more.")
    return math.log(n) - (n - 1) / n


def expected_best(scores: ArrayLike, gold: ArrayLike, ns: Sequence[int]) -> Float[np.ndarray, " D"]:
    """The expected gold reward of the sample with the highest score among n, over all ways to draw n of the N samples.

    Of tied scores each sample is equally likely.

    Args:
        scores: of the model that chooses (N,).
        gold: what the choice is worth (N,).
        ns: numbers of samples (D,), each from 1 to N.

    Raises:
        DataError: arrays of different lengths, numbers that are not finite, or an n outside 1 to N.

    Example:
        >>> expected_best([3.0, 1.0, 2.0], [0.0, 1.0, 0.5], [1, 3]).tolist()
        [0.5, 0.0]
    """
    scores_N, gold_N = np.asarray(scores, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    if scores_N.shape != gold_N.shape or scores_N.ndim != 1:
        raise DataError(f"Scores of shape {scores_N.shape} and gold rewards of shape {gold_N.shape}; give one of each.")
    if not (np.isfinite(scores_N).all() and np.isfinite(gold_N).all()):
        raise DataError("Some scores or gold rewards are not finite. Leave out the samples that were not scored.")
    count = len(scores_N)
    wrong = [n for n in ns if not 1 <= n <= count]
    if wrong:
        raise DataError(f"The best of {wrong[0]} cannot be taken of {counted(count, 'sample')} of a prompt.")
    _, of_row, tied = np.unique(scores_N, return_inverse=True, return_counts=True)
    up_to = np.cumsum(tied)
    means = np.bincount(of_row, weights=gold_N) / tied
    # P(the highest score is s) = [C(samples up to s, n) − C(samples below s, n)] / C(N, n).
    return np.array([(_share(up_to, count, n) - _share(up_to - tied, count, n)) @ means for n in ns])


def _share(some: np.ndarray, count: int, n: int) -> np.ndarray:
    """The share of all draws of n out of `count` that are among the first `some`: C(some, n) / C(count, n)."""
    held = np.maximum(some, n)
    logs = gammaln(held + 1) - gammaln(held - n + 1) - gammaln(count + 1) + gammaln(count - n + 1)
    return np.where(some >= n, np.exp(logs), 0.0)


@dataclass(frozen=True)
class BestOfN:
    """The gold reward of the best of n, by n.

    Attributes:
        ns: numbers of samples (D,).
        divergences: of each from the policy that is sampled (D,), nats.
        by_prompt: expected gold reward (M, P, D), of each model or seed.
        clusters: of each prompt (P,).
    """

    ns: list[int]
    divergences: list[float]
    by_prompt: Float[np.ndarray, "M P D"]
    clusters: list[str]

    @property
    def intervals(self) -> list[Interval]:
        """Mean over prompts and models for each n, with its 95% interval over both."""
        return [row_means(self.by_prompt[:, :, place], self.clusters).interval() for place in range(len(self.ns))]

    def minus(self, other: "BestOfN") -> list[Interval]:
        """The difference from another arm that chose among the same samples, for each n, paired by prompt.

        Raises:
            DataError: the arms have other prompts or other n.
        """
        if self.ns != other.ns or self.clusters != other.clusters:
            raise DataError("The arms chose among other samples, so they cannot be compared. Score the same samples.")
        return [
            row_means(self.by_prompt[:, :, place], self.clusters).minus(
                row_means(other.by_prompt[:, :, place], other.clusters)
            )
            for place in range(len(self.ns))
        ]


def best_of_n(
    scores: Sequence[Sequence[ArrayLike]], gold: Sequence[ArrayLike], clusters: Sequence[str], ns: Sequence[int]
) -> BestOfN:
    """The curve of an arm: the gold reward of its choice against the divergence, n by n.

    Args:
        scores: of each model or seed, for each prompt those of its samples: (M, P) arrays (N,); prompts may have
            different numbers of samples.
        gold: for each prompt the gold rewards of its samples (P,).
        clusters: of each prompt (P,).
        ns: numbers of samples.

    Raises:
        DataError: as `expected_best`, or nothing to choose from.

    Example:
        >>> curve = best_of_n([[[1.0, 2.0], [2.0, 1.0]]], [[0.0, 1.0], [1.0, 0.0]], ["a", "b"], [1, 2])
        >>> [interval.estimate for interval in curve.intervals]
        [0.5, 1.0]
    """
    if not scores or not gold or not ns:
        raise DataError("There are no samples to choose from. Give a model's scores of a prompt's samples, or more.")
    by_prompt = [
        [expected_best(own, worth, ns) for own, worth in zip(of_model, gold, strict=True)] for of_model in scores
    ]
    return BestOfN(list(ns), [divergence(n) for n in ns], np.array(by_prompt), list(clusters))
