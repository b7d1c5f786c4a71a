"""How every recipe begins: the data are split, and the start model is measured as the reference of all policies."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popmargin.config import RunConfig
from popmargin.rounds.plan import Output, Plan, Stage
from popmargin.rounds.rounds_config import RoundsConfig
from popmargin.rounds.stages.measure_policy import add_measure
from popmargin.rounds.stages.split_data import add_split
from popmargin.rounds.stages.trained_models import start_inputs

_SAMPLING = ("samples", "temperature", "top_p", "top_k", "max_new_tokens")


@dataclass(frozen=True)
class Opening:
    """What the stages of all rounds share.

    Attributes:
        plan: the recipe's.
        base: settings of all runs.
        start: the start model as an input of a training; empty where it is a name.
        data: the stage that splits the data.
        measured: inputs of every measuring.
    """

    plan: Plan
    base: RunConfig
    start: Mapping[str, Output | Path]
    data: Stage
    measured: Mapping[str, Output | Path]

    def measure(self, name: str, policy: Output) -> None:
        """Append the measuring of a round's policy."""
        add_measure(self.plan, f"{name}/measure", self.base, policy=policy, inputs=self.measured)

    def training(self, rows: Output) -> dict[str, Output | Path]:
        """The inputs of a training from the start model."""
        return {**self.start, "data.train": rows, "data.test": self.data["test"]}


def open_plan(
    plan: Plan,
    config: RoundsConfig,
    *,
    own: Mapping[str, str],
    seed_prompts: int | None = None,
    rounds: int = 0,
    prompts_per_round: int | None = None,
    known: str | None = None,
) -> Opening:
    """Append the first stages of a recipe.

    Args:
        plan: of the recipe.
        config: of the rounds.
        own: fields of a run that the recipe sets, and the options that set them; `base` may not.
        seed_prompts, rounds, prompts_per_round, known: see `add_split`.

    Raises:
        ConfigError: `base` sets a field that the recipe sets.
    """
    base = config.base_config(own=dict(own))
    start = start_inputs(base)
    data = add_split(
        plan,
        base,
        seed_prompts=seed_prompts,
        rounds=rounds,
        prompts_per_round=prompts_per_round,
        seed=config.seed,
        known=known,
    )
    measured = start | {"data.test": data["test"]}
    if base.evaluation.reward is not None:
        reference = add_measure(plan, "start/measure", base, policy=None, inputs=measured)
        measured = measured | {"reference": reference["generations"]}
    return Opening(plan, base, start, data, measured)


def sampling_of(options: Any) -> dict[str, Any]:
    """How the options of a recipe say to sample."""
    return {name: getattr(options, name) for name in _SAMPLING if hasattr(options, name)}
