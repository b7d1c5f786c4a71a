"""What the budget studies measured for each way to spend an annotator's time, between the sizes that they have.

The numbers are in budget_tables.json, which docs/studies/next_question.py makes from docs/studies/budget.md.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from popmargin.statistics.intervals import Interval

Option = Literal["more", "grade", "inline", "rated", "votes", "ratings", "chain", "random"]
OPTIONS: tuple[Option, ...] = get_args(Option)
"""Ways to spend time, the simplest first: of those that cannot be told apart, the first is named."""
NEEDS_NEW: tuple[Option, ...] = ("more", "grade", "inline", "rated")
"""Those that need preferences without a label."""
_UNITS: dict[Option, tuple[str, ...]] = {
    "more": ("preference",), "grade": ("preference", "grade"), "inline": ("preference", "inline"),
    "rated": ("rating",), "votes": ("vote",), "ratings": ("rating",), "chain": ("chained",), "random": ("comparison",),
}  # fmt: skip


@dataclass(frozen=True)
class Gain:
    """What a way to spend time is worth.

    Attributes:
        points: of held-out accuracy above nothing more, with the interval.
        budget: time in the study's terms: multiples of what its labels took.
        beyond: the budget is above the study's largest, whose gain this is.
    """

    points: Interval
    budget: float
    beyond: bool


@dataclass(frozen=True)
class BudgetTable:
    """One study.

    Attributes:
        name: of its data.
        agreement: how often its two annotators agree.
        prices: seconds of one of each.
        words: of a prompt, and of a response.
        sizes: numbers of labels that were there.
        budgets: further time, in multiples of what those took.
    """

    name: str
    agreement: float
    prices: Mapping[str, float]
    words: tuple[float, float]
    sizes: tuple[int, ...]
    budgets: tuple[float, ...]
    gains: Mapping[Option, Sequence[Sequence[Interval]]]
    """Of every budget and size."""

    def outside(self, labels: int) -> bool:
        """Whether the study has no sizes around this number of labels."""
        return not self.sizes[0] <= labels <= self.sizes[-1]

    def gain(self, option: Option, labels: int, seconds: float, prices: Mapping[str, float]) -> Gain:
        """What some time buys, at other prices: the study's gain of as many questions.

        Between two sizes, and between two budgets, estimate and ends are on a straight line over the logarithm: the
        ends are then too far apart, if anything. Below the smallest budget they are on the line from no time and no
        gain. Outside its sizes the study's nearest is used (see `outside`).

        Args:
            option: what is asked.
            labels: preferences that have a label.
            seconds: to spend.
            prices: seconds of one of each.
        """
        asked = seconds / unit_price(option, prices)
        budget = asked * unit_price(option, self.prices) / (labels * self.prices["preference"])
        tables = self.gains[option]
        beyond = budget > self.budgets[-1]
        if budget < self.budgets[0]:
            first = self._of_size(tables[0], labels)
            return Gain(_between(Interval(0.0, 0.0, 0.0), first, budget / self.budgets[0]), budget, beyond)
        place, share = _place(self.budgets, budget)
        one, other = (self._of_size(tables[at], labels) for at in (place, min(place + 1, len(self.budgets) - 1)))
        return Gain(_between(one, other, share), budget, beyond)

    def _of_size(self, gains: Sequence[Interval], labels: int) -> Interval:
        place, share = _place(self.sizes, labels)
        return _between(gains[place], gains[min(place + 1, len(gains) - 1)], share)


def unit_price(option: Option, prices: Mapping[str, float]) -> float:
    """Seconds of one question of a way to spend time."""
    return sum(prices[name] for name in _UNITS[option])


def difference(one: Interval, other: Interval) -> Interval:
    """One gain less another, as if they were independent (Zou & Donner 2008).

    They are measured on the same held-out preferences, so the interval is too wide, if anything.

    Example:
        >>> difference(Interval(3.0, 2.0, 4.0), Interval(1.0, 1.0, 1.0))
        Interval(estimate=2.0, low=1.0, high=3.0, p=nan)
    """
    apart = one.estimate - other.estimate
    low = math.hypot(one.estimate - one.low, other.high - other.estimate)
    high = math.hypot(one.high - one.estimate, other.estimate - other.low)
    return Interval(apart, apart - low, apart + high)


def _place(known: Sequence[float], value: float) -> tuple[int, float]:
    """The place below a value, and how far it is to the next, by logarithm; the ends outside."""
    value = min(max(value, known[0]), known[-1])
    place = max(number for number, one in enumerate(known) if one <= value)
    if place == len(known) - 1:
        return place, 0.0
    return place, math.log(value / known[place]) / math.log(known[place + 1] / known[place])


def _between(one: Interval, other: Interval, share: float) -> Interval:
    ends = [(1 - share) * getattr(one, end) + share * getattr(other, end) for end in ("estimate", "low", "high")]
    return Interval(*ends)


@cache
def budget_tables() -> tuple[BudgetTable, ...]:
    """The studies."""
    text = (Path(__file__).parent / "budget_tables.json").read_text(encoding="utf-8")
    return tuple(_table(one) for one in json.loads(text)["studies"])


def _table(study: Mapping[str, Any]) -> BudgetTable:
    return BudgetTable(
        name=study["name"],
        agreement=study["agreement"],
        prices=study["prices"],
        words=(study["words"]["prompt"], study["words"]["response"]),
        sizes=tuple(study["sizes"]),
        budgets=tuple(study["budgets"]),
        gains={
            option: [[Interval(*cell) for cell in study["gains"][option][f"{budget:g}"]] for budget in study["budgets"]]
            for option in OPTIONS
        },
    )
