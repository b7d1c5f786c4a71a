"""From an arm and its minutes to what a head is fitted to.

Axis suffixes: N preferences that were bought, P preferences of the data.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.special import expit

from popmargin.errors import counted
from popmargin.pop.fit import fit_arrays
from popmargin.pop.strengths import trained_strengths
from popmargin.pop.zero import right_share
from popmargin.study.budget.annotator import Answers, calibrated, grades
from popmargin.study.budget.arms import BudgetArm
from popmargin.study.budget.price_list import Prices
from popmargin.training.batches import TrainingRows
from popmargin.training.head_fit import HeadData, simple_loss
from popmargin.training.loss import Loss

_RIDGE = 0.1  # of the strength scale, the default of `fit_strengths`


@dataclass(frozen=True, kw_only=True)
class Market:
    """What can be bought in a draw.

    Attributes:
        answers: of the annotator.
        pool: preferences that may be bought, in the order in which they are (rows of the data).
        pilot: preferences of the validation groups, whose right labels are known.
        prices: of labels.
        noise: temperature of comparisons, log-odds.
        rank_weight: λ of `pop_rank`.
    """

    answers: Answers
    pool: Int64[np.ndarray, " P"]
    pilot: Int64[np.ndarray, " n"]
    prices: Prices
    noise: float
    rank_weight: float


@dataclass(frozen=True, kw_only=True)
class Bought:
    """What an arm has for its minutes.

    Attributes:
        rows: preferences that are trained on (N,), rows of the data.
        right: whether the label is right (N,).
        training: rows of an epoch.
        loss: of a row.
        columns: numbers of each preference (N,).
        seconds: that were spent, of those allowed.
        counts: what was bought; what was left out.
    """

    rows: Int64[np.ndarray, " N"]
    right: Bool[np.ndarray, " N"]
    training: TrainingRows
    loss: Loss
    columns: dict[str, Float64[np.ndarray, " N"]] = field(default_factory=dict[str, Any])
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict[str, int])

    def data(self, features: Float64[np.ndarray, "U D"], answers: Answers) -> HeadData:
        """The same with features."""
        better, worse = answers.strengths.better[self.rows], answers.strengths.worse[self.rows]
        return HeadData(
            features=features, chosen=np.where(self.right, better, worse), rejected=np.where(self.right, worse, better),
            rows=self.training, columns=self.columns,
        )  # fmt: skip


class UnaffordableError(Exception):
    """The minutes, or the data, are too few for this arm; the message says why."""


def buy(arm: BudgetArm, market: Market, size: int, budget: float) -> Bought:
    """What an arm has, with `size` labelled preferences at the beginning and `budget` times their price to spend.

    Raises:
        UnaffordableError: the pool has too few preferences, or the minutes buy nothing.
    """
    prices = market.prices
    spent = size * prices.preference
    allowed = (1 + budget) * spent
    if arm.buys in ("nothing", "coin"):
        return _labelled(arm, market, size, spent)
    if arm.needs_new:
        each = {
            "preferences": prices.preference,
            "grades": prices.preference + prices.grade,
            "inline": prices.preference + prices.inline,
            "rated": prices.rating,
        }[arm.buys]
        count = math.floor(allowed / each + 1e-9)
        return _NEW[arm.buys](arm, market, count, count * each)
    return _OLD[arm.buys](arm, market, size, spent, allowed - spent)


def _first(market: Market, count: int) -> Int64[np.ndarray, " N"]:
    if count > len(market.pool):
        raise UnaffordableError(f"the pool has {counted(len(market.pool), 'preference')}, and {count} could be bought")
    if count < 2:
        raise UnaffordableError("the minutes buy no two preferences")
    return market.pool[:count]


def _labelled(arm: BudgetArm, market: Market, count: int, seconds: float) -> Bought:
    """Preferences with the annotator's label, or a coin's."""
    rows = _first(market, count)
    right = market.answers.right(rows)
    if arm.buys == "coin":
        right = np.random.default_rng([*market.answers.seed, 5]).random(count) < 0.5
    return Bought(
        rows=rows, right=right, training=TrainingRows.of_preferences(count), loss=simple_loss(arm.objective, beta=1.0),
        seconds=seconds, counts={"preferences": count},
    )  # fmt: skip


def _graded(arm: BudgetArm, market: Market, count: int, seconds: float) -> Bought:
    rows = _first(market, count)
    seen = market.answers.seen[rows]
    soft = grades(seen, market.answers.seen[market.pilot])
    return Bought(
        rows=rows, right=seen > 0, training=TrainingRows.of_preferences(count), loss=simple_loss("cdpo", beta=1.0),
        columns={"soft_label": soft}, seconds=seconds, counts={"preferences": count, "grades": count},
    )  # fmt: skip


def _inline(arm: BudgetArm, market: Market, count: int, seconds: float) -> Bought:
    """New preferences in a ring: each is compared with the one before it."""
    rows = _first(market, count)
    return _with_edges(arm, market, rows, count, seconds)


def _rated(arm: BudgetArm, market: Market, count: int, seconds: float) -> Bought:
    """New preferences whose responses were rated: the higher rated one is preferred, equal ones only as soft labels."""
    rows = _first(market, count)
    gap = market.answers.rating_gap(rows)
    _, slope = calibrated(market.answers.rating_gap(market.pilot), np.ones(len(market.pilot), dtype=bool), level=False)
    if arm.margin:
        told = gap != 0
        rows, gap = rows[told], gap[told]
        if len(rows) < 2:
            raise UnaffordableError("all ratings are equal")
        columns, loss = {"margin": slope * np.abs(gap)}, simple_loss("dpo_rating_margin", beta=1.0)
    else:
        columns, loss = {"soft_label": expit(slope * np.abs(gap))}, simple_loss("cdpo", beta=1.0)
    return Bought(
        rows=rows, right=gap >= 0, training=TrainingRows.of_preferences(len(rows)), loss=loss, columns=columns,
        seconds=seconds, counts={"preferences": count, "rated": count, "equal_ratings_left_out": count - len(rows)},
    )  # fmt: skip


def _voted(arm: BudgetArm, market: Market, size: int, spent: float, left: float) -> Bought:
    """Further annotators' labels, as many of each preference as of any other, or one more."""
    rows = _first(market, size)
    count = math.floor(left / market.prices.vote + 1e-9)
    if not count:
        raise UnaffordableError("the minutes buy no vote")
    votes = count // size + (np.arange(size) < count % size)
    share = market.answers.vote_share(rows, votes)
    right = market.answers.right(rows)
    return Bought(
        rows=rows, right=right, training=TrainingRows.of_preferences(size), loss=simple_loss("cdpo", beta=1.0),
        columns={"soft_label": np.where(right, share, 1 - share)}, seconds=spent + count * market.prices.vote,
        counts={"preferences": size, "votes": count},
    )  # fmt: skip


def _rated_again(arm: BudgetArm, market: Market, size: int, spent: float, left: float) -> Bought:
    """Ratings of the responses of labelled preferences, once each; the label stays."""
    rows, answers = _first(market, size), market.answers
    count = min(size, math.floor(left / market.prices.rating + 1e-9))
    if not count:
        raise UnaffordableError("the minutes buy no rating")

    def toward_label(some: np.ndarray) -> np.ndarray:
        return np.where(answers.right(some), 1.0, -1.0) * answers.rating_gap(some)

    level, slope = calibrated(toward_label(market.pilot), answers.right(market.pilot), level=True)
    gap = np.where(np.arange(size) < count, toward_label(rows), 0.0)
    if arm.margin:
        columns, loss = {"margin": slope * gap}, simple_loss("dpo_rating_margin", beta=1.0)
    else:
        certain = float(np.clip(answers.right(market.pilot).mean(), 0.5, 0.99))
        known = np.arange(size) < count
        columns = {"soft_label": np.where(known, expit(level + slope * gap), certain)}
        loss = simple_loss("cdpo", beta=1.0)
    return Bought(
        rows=rows, right=answers.right(rows), training=TrainingRows.of_preferences(size), loss=loss, columns=columns,
        seconds=spent + count * market.prices.rating, counts={"preferences": size, "rated": count},
    )  # fmt: skip


def _compared(arm: BudgetArm, market: Market, size: int, spent: float, left: float) -> Bought:
    rows, prices = _first(market, size), market.prices
    if arm.scheme == "iterative":  # each preference is read once, and one partner for each comparison
        count = math.floor((left - size * prices.reading) / prices.chained + 1e-9)
        if count < size:
            raise UnaffordableError("the minutes are fewer than one comparison for each preference takes")
        asked = market.answers.compared(rows, count, scheme="iterative", signed=arm.signed, noise=market.noise)
        return _with_edges(arm, market, rows, count, spent + size * prices.reading, prices.chained, asked)
    each = prices.chained if arm.scheme == "chain" else prices.comparison
    count = math.floor(left / each + 1e-9)
    if not count:
        raise UnaffordableError("the minutes buy no comparison")
    most = size * max(1, (size - 1) // (4 if arm.scheme == "chain" else 2))
    return _with_edges(arm, market, rows, min(count, most), spent, each)


def _with_edges(
    arm: BudgetArm,
    market: Market,
    rows: Int64[np.ndarray, " N"],
    count: int,
    spent: float,
    each: float = 0.0,
    asked: Any = None,
) -> Bought:
    """Preferences with comparisons between them, as edges or as a strength scale."""
    answers, size = market.answers, len(rows)
    if asked is None:
        asked = answers.compared(rows, count, scheme=arm.scheme, signed=arm.signed, noise=market.noise)
    stronger, weaker, comparisons = asked
    options: dict[str, Any] = {"rank_weight": market.rank_weight} if arm.objective == "pop_rank" else {}
    loss = simple_loss(arm.objective, beta=1.0, **options)
    columns: dict[str, np.ndarray] = {}
    if loss.needs.scale:
        # The fit's mode, whose ranks are those of its mean but for few: training reads ranks alone.
        fitted, _ = fit_arrays(stronger, weaker, size, ridge=_RIDGE, estimate="mode", errors="none")
        right = right_share(fitted, agreement=answers.strengths.agreement) if arm.zero else None
        columns["scale"] = trained_strengths(fitted.round(9), right)
        training = TrainingRows.of_preferences(size)
    else:
        training = TrainingRows.of_edges(stronger, weaker, size, everyone=loss.needs.weaker == "gradient")
    return Bought(
        rows=rows, right=answers.right(rows), training=training, loss=loss, columns=columns,
        seconds=spent + comparisons * each, counts={"preferences": size, "comparisons": comparisons},
    )  # fmt: skip


_NEW: dict[str, Any] = {"preferences": _labelled, "grades": _graded, "inline": _inline, "rated": _rated}
_OLD: dict[str, Any] = {"votes": _voted, "ratings": _rated_again, "comparisons": _compared}
