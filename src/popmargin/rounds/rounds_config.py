"""The configuration of rounds: a recipe with its options, and the settings that all its trainings share."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from popmargin.bounds import Seed
from popmargin.config import RunConfig, apply_overrides, from_dict, merge, read_yaml, section
from popmargin.errors import ConfigError

REPORT = "report.html"
"""The report in the folder of the stages."""


@section()
class RoundsConfig:
    """A recipe, and what its trainings and evaluations share.

    Example:
        >>> config = RoundsConfig(recipe={"name": "spa", "rounds": 2}, base={"train": {"learning_rate": 1e-5}})
        >>> config.base_config().train.learning_rate, config.output
        (1e-05, 'runs/rounds')

    Attributes:
        title: heading of the report.
        output: folder of the stages.
        seed: of every stage that draws random numbers: splits, samples, labels and trainings.
        recipe: `name` and its options.
        base: settings of all runs, as in a run's configuration; its evaluation section measures every round.
    """

    title: str = "Rounds"
    output: str = "runs/rounds"
    seed: Seed = 0
    recipe: dict[str, Any] = field(default_factory=dict[str, Any])
    base: dict[str, Any] = field(default_factory=dict[str, Any])

    def base_config(self, *, own: Mapping[str, str] | None = None, **changes: Any) -> RunConfig:
        """A run's configuration: the shared settings, with changes put over them.

        Args:
            own: fields that the recipe sets itself, and what to set instead; `output` and `name` are always set.
            changes: put over the shared settings.

        Raises:
            ConfigError: unknown keys or values that do not fit, or a field that the recipe sets itself.
        """
        for name, instead in ({"output": "output", "name": "nothing"} | dict(own or {})).items():
            section, _, field = name.partition(".")
            value = self.base.get(section)
            if section in self.base and (not field or (isinstance(value, Mapping) and field in value)):
                raise ConfigError(
                    f"base.{name} has no effect: every stage has its own. Remove it"
                    + (f", and set {instead} instead." if instead != "nothing" else ".")
                )
        try:
            return from_dict(RunConfig, merge(merge({"seed": self.seed}, self.base), changes))
        except ConfigError as error:
            raise ConfigError(f"base: {error}") from error


def load_rounds(
    path: str | Path, overrides: Sequence[str] = (), changes: Mapping[str, Any] | None = None
) -> RoundsConfig:
    """Rounds from YAML, with changes and `--recipe.rounds 2` flags put over it.

    Raises:
        ConfigError: unknown keys or values that do not fit; the message names the file.
    """
    values = apply_overrides(merge(read_yaml(path), changes or {}), overrides)
    try:
        config = from_dict(RoundsConfig, values)
        config.base_config()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return config
