"""One draw of a budget study: a training part, an annotator, and every arm fitted and measured.

Axis suffixes: U responses, D features, P preferences of the data, G held-out clusters, L ridges.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from popmargin.errors import DataError, counted
from popmargin.statistics.calibration import share_right
from popmargin.study.budget.annotator import Answers
from popmargin.study.budget.arms import ARMS, BudgetArm
from popmargin.study.budget.budget_config import BudgetConfig
from popmargin.study.budget.human_strengths import HumanStrengths
from popmargin.study.budget.price_list import Prices
from popmargin.study.budget.purchases import Market, UnaffordableError, buy
from popmargin.training.head_fit import fit_heads

_OF_ARM = 7919  # keeps the numbers of untrained heads apart from those of other draws


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The split that all draws share.

    Attributes:
        measured: preferences that only measure (rows of the data).
        development: the others.
        clusters: names of the clusters that measure (G).
        cluster: of each measured preference, a place in `clusters`.
    """

    measured: Int64[np.ndarray, " M"]
    development: Int64[np.ndarray, " P"]
    clusters: list[str]
    cluster: Int64[np.ndarray, " M"]

    @staticmethod
    def of(strengths: HumanStrengths, config: BudgetConfig) -> "Parts":
        """Groups drawn by the study's seed; in a rehearsal, some of the groups that are not held out measure.

        Raises:
            DataError: too few groups.
        """
        groups = np.unique(strengths.apart)
        order = np.random.default_rng(config.seed).permutation(groups)
        held = math.ceil(config.held_out * len(order))
        rest = order[held:]
        again = math.ceil(config.held_out * len(rest))
        measuring, others = (rest[:again], rest[again:]) if config.rehearse else (order[:held], rest)
        if len(others) < 3 or len(measuring) < 1:
            raise DataError(
                f"The data have {counted(len(groups), 'group')} that can be kept apart; a study needs about 8 or more, "
                "for measuring, validation and training. Give data with more prompts, or a finer data.apart."
            )
        measured = np.flatnonzero(np.isin(strengths.apart, measuring))
        names, place = np.unique(strengths.cluster[measured], return_inverse=True)
        return Parts(
            measured=measured, development=np.flatnonzero(np.isin(strengths.apart, others)),
            clusters=[strengths.clusters[name] for name in names], cluster=place.astype(np.int64),
        )  # fmt: skip

    @property
    def sizes(self) -> Int64[np.ndarray, " G"]:
        """Preferences of each cluster that measures (G,)."""
        return np.bincount(self.cluster, minlength=len(self.clusters))


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What all draws share.

    Attributes:
        strengths: the data.
        features: of each response (U, D).
        parts: the split.
        prices: of labels.
    """

    strengths: HumanStrengths
    features: Float64[np.ndarray, "U D"]
    parts: Parts
    prices: Prices


def run_draw(ground: Ground, config: BudgetConfig, size: int, draw: int) -> dict[str, Any]:
    """Every arm at every budget, with `size` preferences at the beginning.

    Returns:
        JSON values: size, draw, processor seconds, and in `cells` one entry for each budget with its arms: for each
        ridge the share right on the validation groups and the right preferences by cluster, what was bought, and the
        seconds of annotators; or in `left_out` why an arm is not there.
    """
    began = time.process_time()
    market = _market(ground, config, draw)
    cells: list[dict[str, Any]] = []
    shared: dict[str, Any] = {}
    for budget in config.budgets:
        arms: dict[str, Any] = {}
        left_out: dict[str, str] = {}
        for name in config.arm_names:
            arm = ARMS[name]
            if name in shared:
                arms[name] = shared[name]
                continue
            try:
                arms[name] = _measured(arm, market, ground, config, size, budget, draw)
            except UnaffordableError as reason:
                left_out[name] = str(reason)
                continue
            if arm.buys in ("nothing", "coin", "untrained", "length"):
                shared[name] = arms[name]
        cells.append({"budget": budget, "arms": arms, "left_out": left_out})
    return {"size": size, "draw": draw, "seconds": round(time.process_time() - began, 3), "cells": cells}


def _market(ground: Ground, config: BudgetConfig, draw: int) -> Market:
    """The annotator of a draw, its pool in random order, and its validation groups."""
    seed = (config.seed, draw)
    rng = np.random.default_rng([*seed, 0])
    rows = ground.parts.development
    groups = rng.permutation(np.unique(ground.strengths.apart[rows]))
    choosing = groups[: max(1, math.ceil(config.validation * len(groups)))]
    choose = np.isin(ground.strengths.apart[rows], choosing)
    return Market(
        answers=Answers.drawn(ground.strengths, seed, config.rating_steps), pool=rng.permutation(rows[~choose]),
        pilot=rows[choose], prices=ground.prices, noise=config.comparison_noise, rank_weight=config.rank_weight,
    )  # fmt: skip


def _measured(
    arm: BudgetArm, market: Market, ground: Ground, config: BudgetConfig, size: int, budget: float, draw: int
) -> dict[str, Any]:
    strengths = ground.strengths
    if arm.buys == "length":
        words = np.array([len(text) for _, text in strengths.texts], dtype=np.float64)
        return _scored(arm, [words], market, ground, {}, 0.0)
    if arm.buys == "untrained":
        head = np.random.default_rng([config.seed, draw, _OF_ARM]).standard_normal(ground.features.shape[1])
        return _scored(arm, [ground.features @ head], market, ground, {}, 0.0)
    bought = buy(arm, market, size, budget)
    data = bought.data(ground.features, market.answers)
    heads = fit_heads(data, bought.loss, config.ridges, hidden=config.hidden, seed=draw)
    found = _scored(
        arm, [head.rewards(ground.features) for head in heads], market, ground, bought.counts, bought.seconds
    )
    return found | {"unfinished": sum(not head.converged for head in heads)}


def _scored(
    arm: BudgetArm,
    rewards: Sequence[Float64[np.ndarray, " U"]],
    market: Market,
    ground: Ground,
    counts: dict[str, int],
    seconds: float,
) -> dict[str, Any]:
    strengths, parts = ground.strengths, ground.parts

    def right(reward_U: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return share_right(reward_U[strengths.better[rows]] - reward_U[strengths.worse[rows]])

    by_cluster = [
        np.bincount(parts.cluster, weights=right(reward_U, parts.measured), minlength=len(parts.clusters))
        for reward_U in rewards
    ]
    return {
        "validation": [round(float(right(reward_U, market.pilot).mean()), 6) for reward_U in rewards],
        "right": [sums.tolist() for sums in by_cluster],
        "seconds": round(seconds, 3),
        "counts": counts,
    }
