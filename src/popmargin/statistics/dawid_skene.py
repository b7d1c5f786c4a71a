"""Dawid–Skene: what is true, and how reliable everybody is, from votes that disagree.

Each item has one of K true classes, of which class k has the share π_k. Labeller r says l where k is true with
probability C_r[k, l], independently of the others. EM finds the π and C that fit best (Dawid & Skene 1979), and with
them the probability of each class of each item.

Axis suffixes: V votes, N items, R labellers, K classes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import logsumexp


@dataclass(frozen=True)
class PooledVotes:
    """The result of `dawid_skene`.

    Attributes:
        shares: probability of each class (N, K).
        confusion: [r, k, l]: how probable it is that labeller r says l where k is true.
        prior: share of each class.
        steps: of EM.
    """

    shares: Float[np.ndarray, "N K"]
    confusion: Float[np.ndarray, "R K K"]
    prior: Float[np.ndarray, " K"]
    steps: int


def dawid_skene(
    item_V: Int[np.ndarray, " V"],
    labeller_V: Int[np.ndarray, " V"],
    vote_V: Int[np.ndarray, " V"],
    *,
    classes: int,
    held_N: Bool[np.ndarray, " N"] | None = None,
    held_NK: Float[np.ndarray, "N K"] | None = None,
    prior: tuple[float, float] = (4.0, 1.0),
    tolerance: float = 1e-6,
    most_steps: int = 1000,
) -> PooledVotes:
    """Pool votes by EM, from the shares of votes as the start.

    Args:
        item_V: number of the item of each vote, from 0; each has one or is held.
        labeller_V: number of who gave it.
        vote_V: the class it names.
        classes: K.
        held_N: items whose probabilities are known and stay; their votes teach how reliable their labellers are.
        held_NK: the probabilities of these items.
        prior: pseudo-votes of every labeller for each true class, right and wrong (the wrong ones over all other
            classes); few votes tell little, and zeros give the estimate of Dawid and Skene. Each class has also one
            pseudo-item, unless both are 0.
        tolerance: EM ends when no probability of a class changes by more.
        most_steps: most steps of EM.

    Example:
        >>> item, labeller = np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)
        >>> votes = np.array([0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0])  # the third one always says 0
        >>> dawid_skene(item, labeller, votes, classes=2).shares.argmax(axis=1).tolist()
        [0, 1, 0, 1]
    """
    items = int(max(item_V.max(initial=-1) + 1, 0 if held_N is None else len(held_N)))
    labellers = int(labeller_V.max(initial=-1) + 1)
    right, wrong = prior
    pseudo_KK = np.where(np.eye(classes, dtype=bool), right, wrong / max(1, classes - 1))
    pseudo_items = 1.0 if right or wrong else 0.0
    shares_NK = np.zeros((items, classes))
    np.add.at(shares_NK, (item_V, vote_V), 1.0)
    shares_NK /= np.maximum(shares_NK.sum(axis=1, keepdims=True), 1.0)
    held = np.zeros(items, dtype=bool) if held_N is None else held_N
    if held_NK is not None:
        shares_NK[held] = held_NK[held]
    steps, change = 0, np.inf
    confusion_RKK, prior_K = _best(item_V, labeller_V, vote_V, shares_NK, pseudo_KK, pseudo_items, labellers)
    while steps < most_steps and change > tolerance:
        log_NK = np.tile(_log(prior_K), (items, 1))
        np.add.at(log_NK, item_V, _log(confusion_RKK)[labeller_V, :, vote_V])
        new_NK = np.exp(log_NK - logsumexp(log_NK, axis=1, keepdims=True))
        new_NK[held] = shares_NK[held]
        change = float(np.abs(new_NK - shares_NK).max(initial=0.0))
        shares_NK = new_NK
        confusion_RKK, prior_K = _best(item_V, labeller_V, vote_V, shares_NK, pseudo_KK, pseudo_items, labellers)
        steps += 1
    return PooledVotes(shares_NK, confusion_RKK, prior_K, steps)


def _best(
    item_V: Int[np.ndarray, " V"],
    labeller_V: Int[np.ndarray, " V"],
    vote_V: Int[np.ndarray, " V"],
    shares_NK: Float[np.ndarray, "N K"],
    pseudo_KK: Float[np.ndarray, "K K"],
    pseudo_items: float,
    labellers: int,
) -> tuple[Float[np.ndarray, "R K K"], Float[np.ndarray, " K"]]:
    """Confusions and shares of classes that fit these probabilities best; a class that nobody saw is guessed evenly."""
    classes = shares_NK.shape[1]
    counts_RKK = np.tile(pseudo_KK, (labellers, 1, 1))
    np.add.at(counts_RKK.transpose(0, 2, 1), (labeller_V, vote_V), shares_NK[item_V])
    sums_RK1 = counts_RKK.sum(axis=2, keepdims=True)
    confusion_RKK = np.where(sums_RK1 > 0, counts_RKK / np.where(sums_RK1 > 0, sums_RK1, 1.0), 1.0 / classes)
    weight_K = shares_NK.sum(axis=0) + pseudo_items
    return confusion_RKK, weight_K / weight_K.sum()


def _log(values: np.ndarray) -> np.ndarray:
    """The logarithm; of 0 a number so low that no other evidence outweighs it."""
    return np.log(np.maximum(values, 1e-300))
