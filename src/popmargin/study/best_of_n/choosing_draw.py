"""One draw of a best-of-n study: an annotator, every arm fitted, and what each chooses among the same samples.

Axis suffixes: U distinct samples, S samples, D features, P prompts, N numbers of samples.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from popmargin.errors import DataError
from popmargin.evaluation.best_of_n import expected_best
from popmargin.statistics.calibration import share_right
from popmargin.study.best_of_n.best_of_n_config import GOLD, BestOfNConfig
from popmargin.study.best_of_n.gold_samples import GoldSamples
from popmargin.study.budget.annotator import Answers
from popmargin.study.budget.arms import ARMS, BudgetArm
from popmargin.study.budget.human_strengths import HumanStrengths
from popmargin.study.budget.price_list import Prices
from popmargin.study.budget.purchases import Market, UnaffordableError, buy
from popmargin.training.head_fit import fit_heads

_OF_ARM = 7919  # keeps the numbers of untrained heads apart from those of other draws
_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What all draws share.

    Attributes:
        measured: samples that are chosen among.
        strengths: preferences between training samples.
        features: of the training responses, then of distinct measured samples (U, D).
        place: row of `features` of each measured sample (S,).
        prices: of labels.
        ns: numbers of samples that are chosen among.
    """

    measured: GoldSamples
    strengths: HumanStrengths
    features: Float64[np.ndarray, "U D"]
    place: Int64[np.ndarray, " S"]
    prices: Prices
    ns: list[int]


@dataclass(frozen=True)
class Chosen:
    """What an arm's scores of the measured samples are worth.

    Attributes:
        right: pairs of a prompt's samples that are ranked right (P,); ties of the scores are half right.
        best: expected gold reward of the best of n (P, N).
    """

    right: Float64[np.ndarray, " P"]
    best: Float64[np.ndarray, "P N"]


def told_apart(samples: GoldSamples) -> Int64[np.ndarray, " P"]:
    """Pairs of each prompt's samples whose gold rewards differ (P,)."""
    gaps = (samples.gold[place][:, None] - samples.gold[place] for place in samples.places)
    return np.array([int((gap > 0).sum()) for gap in gaps], dtype=np.int64)


def chosen_by(scores: Float64[np.ndarray, " S"], samples: GoldSamples, ns: Sequence[int]) -> Chosen:
    """What these scores are worth as a ranking of pairs, and as a choice among n.

    Example:
        >>> samples = GoldSamples(texts=[("p", "a"), ("p", "b")], gold=np.array([0.0, 1.0]), ends=np.array([0, 2]),
        ...                       clusters=["p"])
        >>> found = chosen_by(np.array([0.2, 0.1]), samples, [1, 2])
        >>> found.right.tolist(), found.best.tolist()
        ([0.0], [[0.5, 0.0]])
    """
    right: list[float] = []
    best: list[np.ndarray] = []
    for place in samples.places:
        own, gold = scores[place], samples.gold[place]
        better = gold[:, None] > gold
        right.append(float(share_right((own[:, None] - own)[better]).sum()))
        best.append(expected_best(own, gold, ns))
    return Chosen(np.array(right), np.array(best))


def run_draw(ground: Ground, config: BestOfNConfig, size: int, draw: int) -> dict[str, Any]:
    """Every arm with `size` preferences at the beginning.

    Returns:
        JSON values: size, draw, seconds, and in `arms` for each arm the pairs that are ranked right by prompt, the gold
        reward of the best of n by prompt, what was bought, and the annotator's seconds; or in `left_out` why it is not
        there.

    Raises:
        DataError: so many preferences cannot be drawn.
    """
    began = time.process_time()
    market = market_of(ground, config, draw)
    arms: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name in config.arm_names:
        try:
            arms[name] = _measured(name, market, ground, config, size, draw)
        except UnaffordableError as reason:
            left_out[name] = str(reason)
    if "base" in left_out:
        raise DataError(
            f"{config.samples.training}: {size} preferences cannot be drawn: {left_out['base']}. Give smaller "
            "sizes, or more training samples."
        )
    return {
        "size": size, "draw": draw, "seconds": round(time.process_time() - began, 3), "arms": arms,
        "left_out": left_out,
    }  # fmt: skip


def market_of(ground: Ground, config: BestOfNConfig, draw: int) -> Market:
    """The annotator of a draw, its preferences in random order, and its validation prompts."""
    seed = (config.seed, draw)
    rng = np.random.default_rng([*seed, 0])
    apart = ground.strengths.apart
    groups = rng.permutation(np.unique(apart))
    choosing = groups[: max(1, math.ceil(config.validation * len(groups)))]
    choose = np.isin(apart, choosing)
    return Market(
        answers=Answers.drawn(ground.strengths, seed, config.rating_steps),
        pool=rng.permutation(np.flatnonzero(~choose)),
        pilot=np.flatnonzero(choose),
        prices=ground.prices,
        noise=config.comparison_noise,
        rank_weight=config.rank_weight,
    )


def _measured(name: str, market: Market, ground: Ground, config: BestOfNConfig, size: int, draw: int) -> dict[str, Any]:
    if name == GOLD:
        return _written(chosen_by(ground.measured.gold, ground.measured, ground.ns))
    arm = ARMS[name]
    if arm.buys == "length":
        lengths = np.array([len(text) for _, text in ground.measured.texts], dtype=np.float64)
        return _written(chosen_by(lengths, ground.measured, ground.ns))
    if arm.buys == "untrained":
        head = np.random.default_rng([config.seed, draw, _OF_ARM]).standard_normal(ground.features.shape[1])
        return _written(chosen_by((ground.features @ head)[ground.place], ground.measured, ground.ns))
    return _fitted(arm, market, ground, config, size, draw)


def _fitted(
    arm: BudgetArm, market: Market, ground: Ground, config: BestOfNConfig, size: int, draw: int
) -> dict[str, Any]:
    """A head on what the arm bought, with the ridge that is best on the validation prompts of this draw."""
    bought = buy(arm, market, size, config.budget)
    heads = fit_heads(
        bought.data(ground.features, market.answers), bought.loss, config.ridges, hidden=config.hidden, seed=draw
    )
    better, worse = ground.strengths.better[market.pilot], ground.strengths.worse[market.pilot]
    rewards = [head.rewards(ground.features) for head in heads]
    right = [float(share_right(reward_U[better] - reward_U[worse]).mean()) for reward_U in rewards]
    best = int(np.argmax(right))
    return _written(chosen_by(rewards[best][ground.place], ground.measured, ground.ns)) | {
        "ridge": config.ridges[best], "validation": round(right[best], _DIGITS), "counts": bought.counts,
        "minutes": round(bought.seconds / 60, 3), "unfinished": sum(not head.converged for head in heads),
    }  # fmt: skip


def _written(found: Chosen) -> dict[str, Any]:
    return {"right": found.right.tolist(), "best": found.best.round(_DIGITS).tolist()}
