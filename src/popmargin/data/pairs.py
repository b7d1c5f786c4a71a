"""Pairs from several rated responses to one prompt."""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from popmargin.errors import ConfigError, counted, did_you_mean

Pairing = Literal["best_vs_worst", "best_vs_random", "best_vs_rest", "all"]
PAIRINGS: tuple[str, ...] = get_args(Pairing)
SEVERAL = ("best_vs_rest", "all")
"""Ways that make several pairs per prompt."""
UnratedPairing = Literal["ring", "all", "random"]
UNRATED_PAIRINGS: tuple[str, ...] = get_args(UnratedPairing)
"""Ways to pair responses that nobody has rated; see `unrated_pairs`."""
WIN_PROBABILITY_CLIP = 1e-3


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses by their numbers: `chosen` is rated at least as high as `rejected`, by `gap`.

    `skipped` says why the pair is not a preference: "tie" or "below_min_gap"; otherwise None.
    """

    chosen: int
    rejected: int
    gap: float
    skipped: str | None = None


def check_pairing(pairs: str, min_gap: float) -> None:
    """Check the options of `make_pairs`.

    Raises:
        ConfigError: an unknown way of pairing, or a minimum gap that is negative or not a number.
    """
    if pairs not in PAIRINGS:
        raise ConfigError(f"pairs='{pairs}' is unknown. {did_you_mean(pairs, PAIRINGS)}")
    if not (math.isfinite(min_gap) and min_gap >= 0):
        raise ConfigError(f"min_gap={min_gap} must be a number ≥ 0. Remedy: 0 keeps every pair except ties.")


def make_pairs(
    ratings: Sequence[float], *, pairs: str = "best_vs_worst", min_gap: float = 0.0, seed: int = 0, key: str = ""
) -> list[Pair]:
    """Pairs of responses, the higher rated one chosen; ties and small gaps are marked as skipped, never dropped.

    best_vs_worst: one pair, highest against lowest rating. best_vs_random: one pair, highest against one drawn
    uniformly from those at least `min_gap` (and more than 0) below it. best_vs_rest: highest against each of the
    others. all: each of the n(n−1)/2 pairs. Of equal ratings, the earliest response is used.

    Args:
        ratings: finite ratings of one prompt's responses (n ≥ 2), higher is better.
        min_gap: minimum rating gap of a preference, in the ratings' unit.
        seed: seed of best_vs_random.
        key: text that belongs to the prompt; the draw depends only on seed and key, not on the order of the rows.

    Example:
        >>> make_pairs([2.0, 5.0, 4.0])
        [Pair(chosen=1, rejected=0, gap=3.0, skipped=None)]
        >>> [(pair.chosen, pair.rejected, pair.skipped) for pair in make_pairs([1.0, 2.0, 2.0], pairs="all")]
        [(1, 0, None), (2, 0, None), (1, 2, 'tie')]
    """
    check_pairing(pairs, min_gap)
    if pairs == "all":
        return [_pair(ratings, i, j, min_gap) for i, j in itertools.combinations(range(len(ratings)), 2)]
    best = max(range(len(ratings)), key=lambda i: (ratings[i], -i))
    others = [i for i in range(len(ratings)) if i != best]
    if pairs == "best_vs_rest":
        return [_pair(ratings, best, i, min_gap) for i in others]
    worst = min(others, key=lambda i: (ratings[i], i))
    if pairs == "best_vs_random":
        usable = [i for i in others if _pair(ratings, best, i, min_gap).skipped is None]
        if usable:
            worst = random.Random(f"{seed}\x1f{key}").choice(usable)
    return [_pair(ratings, best, worst, min_gap)]


def _pair(ratings: Sequence[float], i: int, j: int, min_gap: float) -> Pair:
    chosen, rejected = (i, j) if ratings[i] >= ratings[j] else (j, i)
    gap = float(ratings[chosen] - ratings[rejected])
    skipped = "tie" if gap == 0 else "below_min_gap" if gap < min_gap else None
    return Pair(chosen, rejected, gap, skipped)


def unrated_pairs(
    count: int, *, pairs: UnratedPairing = "ring", per_prompt: int = 1, seed: int = 0, key: str = ""
) -> list[tuple[int, int]]:
    """Pairs of the n responses to a prompt that nobody has rated, by their numbers.

    ring: each response with the next and the last with the first, so n pairs (one of two responses) that connect all.
    all: each of the n(n−1)/2 pairs. random: `per_prompt` of these, or all if there are fewer.

    Args:
        count: n ≥ 2.
        pairs: how they are paired.
        per_prompt: of random.
        seed: of random.
        key: text that belongs to the prompt; the draw depends only on seed and key, not on the order of the rows.

    Raises:
        ConfigError: an unknown way of pairing, or `per_prompt` below 1.

    Example:
        >>> unrated_pairs(3), len(unrated_pairs(5, pairs="all")), len(unrated_pairs(5, pairs="random", per_prompt=4))
        ([(0, 1), (1, 2), (2, 0)], 10, 4)
    """
    if pairs not in UNRATED_PAIRINGS:
        raise ConfigError(f"pairs='{pairs}' is unknown. {did_you_mean(pairs, UNRATED_PAIRINGS)}")
    if per_prompt < 1:
        raise ConfigError(f"{counted(per_prompt, 'pair')} per prompt: give at least 1.")
    every = list(itertools.combinations(range(count), 2))
    if pairs == "ring":
        return every if count == 2 else [(place, (place + 1) % count) for place in range(count)]
    if pairs == "all" or len(every) <= per_prompt:
        return every
    return sorted(random.Random(f"{seed}\x1f{key}").sample(every, per_prompt))


def logit(probability: float) -> float:
    """Log-odds of a win probability, clipped to [0.001, 0.999] so that certainty stays finite.

    Example:
        >>> logit(0.5), round(logit(1.0), 3)
        (0.0, 6.907)
    """
    clipped = min(max(probability, WIN_PROBABILITY_CLIP), 1 - WIN_PROBABILITY_CLIP)
    return math.log(clipped / (1 - clipped))
