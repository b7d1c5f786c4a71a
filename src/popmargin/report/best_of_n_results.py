"""The results of a best-of-n study as plain numbers: curves of the gold reward, accuracies, and differences."""

import dataclasses
import json
from dataclasses import dataclass, field

from popmargin.report.budget_results import plain
from popmargin.statistics.intervals import Interval

FORMAT = "popmargin-best-of-n-1"


@dataclass(frozen=True, kw_only=True)
class ChoiceArm:
    """An arm with so many first labels.

    Attributes:
        name: its key.
        label: its name in the report.
        control: it learns nothing, or is the gold reward itself.
        minutes: of annotators, all in all.
        accuracy: on pairs of samples that it was not trained on (a share).
        curve: gold reward of its choice among n samples, for each n.
        share_of_possible: what its choice gains at the largest n, of what choosing by the gold reward gains.
        counts: what was bought, the mean over draws.
        unfinished: fits that ended at their last step, of all ridges and draws.
    """

    name: str
    label: str
    control: bool
    minutes: float
    accuracy: Interval
    curve: list[Interval]
    share_of_possible: float
    counts: dict[str, float] = field(default_factory=dict[str, float])
    unfinished: int = 0


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An arm against another, paired by draw and prompt, and what the study could have seen.

    Attributes:
        name: the arm.
        against: the arm that it is compared with.
        accuracy: difference of the accuracies.
        accuracy_power: the share of such studies that would tell the wanted difference from 0; None with one draw.
        curve: difference of the gold reward of the choice, for each n.
        gold_power: as `accuracy_power`, of the gold reward at the largest n.
    """

    name: str
    against: str
    accuracy: Interval
    accuracy_power: float | None
    curve: list[Interval]
    gold_power: float | None


@dataclass(frozen=True, kw_only=True)
class ChoiceCell:
    """One number of first labels.

    Attributes:
        size: preferences at the beginning.
        arms: by name, in order.
        left_out: why an arm is not there.
        start: the mean gold reward of a sample.
        possible: what choosing by the gold reward itself gains at the largest n.
        differences: of arms that learn.
    """

    size: int
    arms: dict[str, ChoiceArm]
    left_out: dict[str, str]
    start: float
    possible: float
    differences: list[Difference]


@dataclass(frozen=True, kw_only=True)
class BestOfNResults:
    """A whole best-of-n study.

    Attributes:
        title: heading of the report.
        cells: numbers of first labels.
        ns: numbers of samples that are chosen among.
        divergences: from the policy that is sampled, for each n, nats.
        draws: repetitions.
        prompts: whose samples are chosen among.
        facts: about the samples, shown unchanged.
        difference: of accuracy that the power is of, a share.
        gain_difference: of the gold reward that the power is of, a share of what choosing by it gains.
        measured_first: when the measured prompts were first used; None for a rehearsal.
        config: YAML.
        seconds: of this command.
        cpu_seconds: of all draws.
    """

    title: str
    cells: list[ChoiceCell]
    ns: list[int]
    divergences: list[float]
    draws: int
    prompts: int
    facts: dict[str, str]
    difference: float
    gain_difference: float
    measured_first: str | None
    config: str
    seconds: float
    cpu_seconds: float

    def to_json(self) -> str:
        """As JSON text; what is undefined is null."""
        tree = {"format": FORMAT, **dataclasses.asdict(self)}
        return json.dumps(plain(tree), ensure_ascii=False, indent=1, allow_nan=False) + "\n"
