"""The results of a budget study: what each arm is worth at equal minutes, as plain numbers."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

from popmargin.statistics.intervals import Interval

FORMAT = "popmargin-budget-1"


@dataclass(frozen=True, kw_only=True)
class ArmKind:
    """An arm of the study, whatever the minutes.

    Attributes:
        name: its key.
        label: its name in the report.
        control: it learns nothing.
        needs_new: it buys new preferences.
        objective: what it trains with.
    """

    name: str
    label: str
    control: bool
    needs_new: bool
    objective: str


@dataclass(frozen=True, kw_only=True)
class Spending:
    """An arm with so many minutes.

    Attributes:
        name: of the arm.
        minutes: of annotators, all in all.
        accuracy: on held-out preferences (a share).
        gain: accuracy above nothing more, paired.
        above_new: accuracy above as many minutes of new preferences, paired; None if there are none.
        counts: what was bought, the mean over draws.
        ridge: that validation groups chose.
        unfinished: fits that ended at their last step, of all ridges and draws.
    """

    name: str
    minutes: float
    accuracy: Interval
    gain: Interval
    above_new: Interval | None
    counts: dict[str, float] = field(default_factory=dict[str, float])
    ridge: float | None = None
    unfinished: int = 0


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to take.

    Attributes:
        best: the arm with the highest accuracy.
        take: the simplest arm that cannot be told apart from it.
        ties: the arms that cannot be told apart from it, the simplest first.
    """

    best: str
    take: str
    ties: list[str]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A main comparison, and what the study could have seen.

    Attributes:
        name: the arm.
        against: the arm that it is compared with.
        difference: in accuracy, paired.
        power: the share of such studies that would tell the wanted difference from 0.
        detectable: the smallest difference that 80% of such studies would tell from 0.
    """

    name: str
    against: str
    difference: Interval
    power: float
    detectable: float


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One size and one budget.

    Attributes:
        size: preferences at the beginning.
        budget: further minutes, in multiples of what those took.
        minutes: allowed, all in all.
        arms: by name, in order.
        left_out: why an arm is not there.
        advice: if new preferences can be had.
        advice_old: if they cannot.
        main: the main comparisons; none with a single draw.
    """

    size: int
    budget: float
    minutes: float
    arms: dict[str, Spending]
    left_out: dict[str, str]
    advice: Advice
    advice_old: Advice
    main: list[Comparison]


@dataclass(frozen=True, kw_only=True)
class BudgetResults:
    """A whole budget study.

    Attributes:
        title: heading of the report.
        kinds: the arms.
        cells: sizes and budgets.
        draws: repetitions.
        clusters: held-out clusters.
        preferences: held-out preferences.
        prices: seconds of one of each.
        facts: about the data, shown unchanged.
        difference: that the power is of, a share.
        held_out_used: when the held-out groups were first used; None for a rehearsal.
        config: YAML.
        seconds: of this command.
        cpu_seconds: of all draws.
    """

    title: str
    kinds: list[ArmKind]
    cells: list[Cell]
    draws: int
    clusters: int
    preferences: int
    prices: dict[str, float]
    facts: dict[str, str]
    difference: float
    held_out_used: str | None
    config: str
    seconds: float
    cpu_seconds: float

    def label(self, name: str) -> str:
        """An arm's name in the report."""
        return next((kind.label for kind in self.kinds if kind.name == name), name)

    def to_json(self) -> str:
        """As JSON text; what is undefined is null."""
        tree = {"format": FORMAT, **dataclasses.asdict(self)}
        return json.dumps(plain(tree), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """Values for JSON: what is not finite is None."""
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    if isinstance(value, list):
        return [plain(inner) for inner in value]  # pyright: ignore[reportUnknownVariableType]
    return None if isinstance(value, float) and not math.isfinite(value) else value
