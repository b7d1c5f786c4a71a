"""The configuration of a run: its sections."""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, cast

from pydantic import BeforeValidator

from popmargin.bounds import Seed
from popmargin.config.checked import section
from popmargin.config.evaluation import EvaluationConfig
from popmargin.config.model import ModelConfig, ReferenceConfig
from popmargin.config.optimisation import TrainConfig
from popmargin.config.pop import PopConfig, TargetConfig
from popmargin.config.preferences import DataConfig
from popmargin.errors import ConfigError


def _task(value: Any) -> Any:
    """A task without options is its name alone, however it is written."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"task must be a name, or a mapping with `name` and options, not {value!r}.")
    given = cast("Mapping[Any, Any]", value)
    if strange := [key for key in given if not isinstance(key, str)]:
        raise ConfigError(f"task.{strange[0]}: a key must be text. Write it in quotes.")
    if not isinstance(given.get("name"), str):
        found = f" (it has {', '.join(given)})" if given else ""
        raise ConfigError(f"task.name is missing or not text{found}, e.g. {{name: images}}.")
    return given["name"] if len(given) == 1 else dict(given)


TaskChoice = Annotated[str | dict[str, Any], BeforeValidator(_task)]
"""The name of a task, or a mapping with its name and options."""


@section(of_all=True)
class RunConfig:
    """One training run.

    Example:
        >>> config = RunConfig(seed=3, objective={"name": "dpo", "beta": 0.2})
        >>> config.seed, config.objective, config.task
        (3, {'name': 'dpo', 'beta': 0.2}, 'policy')

    Attributes:
        name: shown in reports.
        output: the run directory.
        seed: seed for initialisation, order and dropout.
        task: train a `policy`; a `reward` model: a head on the start model whose reward replaces the log-ratio in the
            objective, in reward units (so `objective.beta` is 1 unless set); or `images`, a text-to-image model. With
            options: a mapping with `name`, e.g. {name: images, prompt_dropout: 0.2}.
        model: the start model.
        data: the preferences.
        objective: `name` and its options.
        regularizers: terms added to the loss: `name`, `weight`, and their options.
        tokens: a token selector: `name`, its options, and `reference`, a separate model that scores tokens (a folder
            or hub id with the same tokenizer; default: the run's reference); null uses every token.
        margin: margin subtracted from each preference's reward margin before the objective:
            `source` (`fixed`, `ratings` or `pop`) and its options, e.g. {source: fixed, value: 1.0},
            {source: ratings, scale: 1.0} or {source: pop, margin_min: 0.0, margin_max: 10.0}; null for none.
        signals: which column of the data is used as `margin`, `soft_label`, `order` (of sampled PoP edges), `weight`,
            or as another column that the run's parts read: for each its `column`, `unit` (reward, nats or probability)
            and `scale`, e.g. {margin: {column: strength, scale: 0.5}}; {weight: null} ignores the data's weights. By
            default the data's own columns are used. See docs/signals.md.
        pop: where PoP edges come from.
        target: what scores the weaker side of an edge.
        reference: the reference model and its cache.
        train: optimization.
        evaluation: what is measured.
    """

    name: str = "run"
    output: str = "runs/run"
    seed: Seed = 0
    task: TaskChoice = "policy"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: dict[str, Any] = field(default_factory=lambda: {"name": "pop"})
    regularizers: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    tokens: dict[str, Any] | None = None
    margin: dict[str, Any] | None = None
    signals: dict[str, Any] = field(default_factory=dict[str, Any])
    pop: PopConfig = field(default_factory=PopConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    @property
    def task_name(self) -> str:
        """The name of the task, without its options."""
        return self.task if isinstance(self.task, str) else str(self.task["name"])
