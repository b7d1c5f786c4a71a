"""The configuration of a study."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from popmargin.bounds import Positive, Seed, SomeShareOrCount
from popmargin.config import RunConfig, apply_overrides, from_dict, merge, read_yaml, section
from popmargin.errors import ConfigError, did_you_mean
from popmargin.files import is_folder_name


@section("tune")
class TuneConfig:
    """A search for each arm's learning rate and β, the same for all arms, before the study itself.

    Attributes:
        learning_rates: values to try; empty keeps the arm's own.
        beta_factors: multiples of the objective's β to try; objectives without a β have none.
        validation_size: share (below 1) or number of training prompts held out for choosing; the study itself also
            trains on them.
        reuse: folder of another study whose search results to reuse, by arm name; nothing is searched.
    """

    learning_rates: list[Positive] = field(default_factory=list[float])
    beta_factors: list[Positive] = field(default_factory=lambda: [1.0])
    validation_size: SomeShareOrCount = 0.2
    reuse: str | None = None

    def __post_init__(self) -> None:
        if not self.beta_factors:
            raise ConfigError("tune.beta_factors must name at least one factor, e.g. [1.0].")


@section()
class StudyConfig:
    """Arms that differ in some settings and share all others.

    Example:
        >>> arms = {"dpo": {"objective": {"name": "dpo"}}, "pop": {"objective": {"name": "pop"}, "label": "DPO-PoP"}}
        >>> study = StudyConfig(arms=arms, seeds=[0, 1], base={"data": {"train": "preferences.jsonl"}})
        >>> study.run_config("pop", 1).output, study.label("pop")
        ('runs/study/runs/pop/seed-1', 'DPO-PoP')

    Attributes:
        title: heading of the report.
        output: folder of the study.
        seeds: training seeds; every arm is trained with each.
        baseline: the arm that the others are compared with.
        base: settings of all runs, as in a run's configuration.
        arms: the settings that differ, by arm; `label` is its name in the report.
        tune: first choose learning rates and β of the arms on a validation split; null uses them as given.
    """

    title: str = "Study"
    output: str = "runs/study"
    seeds: list[Seed] = field(default_factory=lambda: [0])
    baseline: str = "dpo"
    base: dict[str, Any] = field(default_factory=dict[str, Any])
    arms: dict[str, Any] = field(default_factory=dict[str, Any])
    tune: TuneConfig | None = None

    def __post_init__(self) -> None:
        if not self.arms or not self.seeds:
            raise ConfigError("A study needs at least one arm and one seed.")
        strange = [arm for arm in self.arms if not is_folder_name(str(arm))]
        if strange:
            raise ConfigError(
                f"arms: {strange[0]!r} cannot be the name of a folder. Rename it; `label` may be anything."
            )
        if self.baseline not in self.arms:
            raise ConfigError(f"The baseline '{self.baseline}' is not an arm. {did_you_mean(self.baseline, self.arms)}")

    def label(self, arm: str) -> str:
        """The arm's name in the report."""
        return str(self.arms[arm].get("label", arm))

    def run_config(self, arm: str, seed: int) -> RunConfig:
        """The configuration of one run.

        Raises:
            ConfigError: an unknown key; the message names the arm.
        """
        changes = {key: value for key, value in self.arms[arm].items() if key != "label"}
        place = {"name": arm, "seed": seed, "output": str(Path(self.output) / "runs" / arm / f"seed-{seed}")}
        shared = {"reference": {"cache": str(Path(self.output) / "reference")}}
        try:
            return from_dict(RunConfig, merge(merge(merge(shared, self.base), changes), place))
        except ConfigError as error:
            raise ConfigError(f"arm '{arm}': {error}") from error

    def run_configs(self) -> dict[str, list[RunConfig]]:
        """The configurations of all runs, by arm."""
        return {arm: [self.run_config(arm, seed) for seed in self.seeds] for arm in self.arms}


def load_study(
    path: str | Path, overrides: Sequence[str] = (), changes: Mapping[str, Any] | None = None
) -> StudyConfig:
    """A study from YAML, with changes and `--base.train.epochs 2` flags put over it.

    Raises:
        ConfigError: unknown keys or values that do not fit; the message names the file.

    Example:
        >>> from popmargin.study.standard import standard_study_path
        >>> load_study(standard_study_path(), ["--base.train.epochs", "2"]).run_config("dpo", 0).train.epochs
        2.0
    """
    values = apply_overrides(merge(read_yaml(path), changes or {}), overrides)
    try:
        study = from_dict(StudyConfig, values)
        study.run_configs()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return study
