"""The configuration of recommenders: events, item vectors, what is measured, and the arms of a comparison."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Literal, TypeVar

from popmargin.bounds import Count, PositiveShare, Seed, Size
from popmargin.config import RunConfig, apply_overrides, from_dict, merge, opened, read_yaml, section
from popmargin.errors import ConfigError, did_you_mean
from popmargin.files import is_folder_name
from popmargin.recommend.baselines.base import BASELINES, Baseline
from popmargin.registry import make_options

DEFAULTS: Mapping[str, Any] = {"task": {"name": "items"}, "objective": {"name": "preferdiff"}}
"""What the run of a model is unless it says otherwise."""
_MADE = ("model.path", "data.train", "data.test", "name", "output", "seed")
_OF_BASELINE = ("recommender", "options", "label")


@section("data")
class EventsConfig:
    """The file of events or sequences, and its split.

    Attributes:
        path: JSONL, JSON, CSV, TSV, RecBole's .inter or Parquet, each also with .gz; a row is an event (user, item,
            time) or a user (items, a list).
        columns: our names and the file's, where they are not recognised, e.g. {item: sku}.
        grades: feedback that is written as text, and its number, e.g. {click: 1, cart: 2}.
        bad_rows: `raise` refuses a file with rows that cannot be used, `drop` leaves them out and reports them.
        split: by `user` (the data's own split if there is one), `leave_one_out`, or by `time`.
        shares: of training, validation and test; not of leave_one_out.
        seed: of the shuffle of users; not of the study's seeds, so that all of them have the same test.
        prefixes: models train on every item but the first, not only on the last of each sequence.
    """

    path: str = ""
    columns: dict[str, str] = field(default_factory=dict[str, str])
    grades: dict[str, float] = field(default_factory=dict[str, float])
    bad_rows: Literal["raise", "drop"] = "raise"
    split: Literal["user", "leave_one_out", "time"] = "user"
    shares: list[PositiveShare] = field(default_factory=lambda: [0.8, 0.1, 0.1])
    seed: Seed = 0
    prefixes: bool = False

    def __post_init__(self) -> None:
        if len(self.shares) != 3 or abs(sum(self.shares) - 1) > 1e-9:
            raise ConfigError(f"data.shares is {self.shares}. Give three shares that add up to 1.")


@section("vectors")
class VectorsConfig:
    """Where the vectors of items come from.

    Attributes:
        source: `learned` in training; from `cooccurrence` in the training part; or from a `file`.
        path: of the file: .npz, .safetensors or .parquet with ids.
        dimension: of vectors that are learned or come from co-occurrence.
        whiten: how often vectors that are not learned are whitened.
        missing: `refuse` items without a vector in the file, or give them the `mean` of the others.
    """

    source: Literal["learned", "cooccurrence", "file"] = "cooccurrence"
    path: str = ""
    dimension: Size = 64
    whiten: Count = 1
    missing: Literal["refuse", "mean"] = "refuse"

    def __post_init__(self) -> None:
        if (self.source == "file") != bool(self.path):
            wanted = "needs" if self.source == "file" else "has no"
            raise ConfigError(f"vectors: source {self.source} {wanted} path. Set source: file and path together.")


@section("evaluation")
class RankingConfig:
    """What is measured, alike for all arms.

    Attributes:
        part: `test`, or `valid` while settings are being chosen.
        cutoffs: places that count.
        exclude_history: items of a history are not recommended again.
        draws: rankings of each model with noise of their own, whose metrics are averaged.
    """

    part: Literal["test", "valid"] = "test"
    cutoffs: list[Size] = field(default_factory=lambda: [5, 10, 20])
    exclude_history: bool = True
    draws: Size = 3

    def __post_init__(self) -> None:
        if not self.cutoffs or sorted(set(self.cutoffs)) != self.cutoffs:
            raise ConfigError(f"evaluation.cutoffs is {self.cutoffs}. Give different numbers, the smallest first.")


@section()
class RecommendConfig:
    """Recommenders that are compared: arms that differ in some settings and share all others.

    Example:
        >>> arms = {"knn": {"recommender": "item_knn"}, "diff": {"task": {"guidance": 4.0}, "label": "PreferDiff"}}
        >>> study = RecommendConfig(data=EventsConfig(path="events.csv"), arms=arms, baseline="knn")
        >>> study.label("diff"), study.vectors_of("diff").source, list(study.models)
        ('PreferDiff', 'cooccurrence', ['diff'])

    Attributes:
        title: heading of the report.
        output: folder of the study.
        seeds: of models, and of baselines that have a seed; every other baseline is fitted once.
        baseline: the arm that the others are compared with.
        data: the events, and their split.
        vectors: of items; an arm can have its own.
        evaluation: what is measured.
        base: settings of all models, as in a run's configuration (task, objective, train …).
        arms: `{recommender: NAME, options: {…}}` for a baseline; for a model, what differs from `base`, and `vectors`.
            `label` is an arm's name in the report.
    """

    title: str = "Recommenders"
    output: str = "runs/recommenders"
    seeds: list[Seed] = field(default_factory=lambda: [0])
    baseline: str = "item_knn"
    data: EventsConfig = field(default_factory=EventsConfig)
    vectors: VectorsConfig = field(default_factory=VectorsConfig)
    evaluation: RankingConfig = field(default_factory=RankingConfig)
    base: dict[str, Any] = field(default_factory=dict[str, Any])
    arms: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    def __post_init__(self) -> None:
        if not self.arms or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError("A comparison needs an arm or more, and a seed or more, each once.")
        if self.baseline not in self.arms:
            raise ConfigError(f"The baseline '{self.baseline}' is not an arm. {did_you_mean(self.baseline, self.arms)}")
        strange = [arm for arm in self.arms if not is_folder_name(str(arm))]
        if strange:
            raise ConfigError(
                f"arms: {strange[0]!r} cannot be the name of a folder. Rename it; `label` may be anything."
            )
        for arm, values in self.arms.items():
            if "recommender" in values:
                _check_baseline(arm, values)

    def label(self, arm: str) -> str:
        """The arm's name in the report."""
        return str(self.arms[arm].get("label", arm))

    def baseline_of(self, arm: str) -> Baseline | None:
        """The registered recommender of an arm; None for a model."""
        name = self.arms[arm].get("recommender")
        return None if name is None else BASELINES.get(name)

    def options_of(self, arm: str, seed: int) -> dict[str, Any]:
        """The options of a baseline, with the seed if it has one and the arm does not set it."""
        own = dict(self.arms[arm].get("options") or {})
        return {"seed": seed} | own if self.has_seeds(arm) else own

    def has_seeds(self, arm: str) -> bool:
        """Whether the arm is fitted once for every seed."""
        found = self.baseline_of(arm)
        if found is None:
            return True
        named = {option.name for option in dataclasses.fields(found.options)}
        return "seed" in named and "seed" not in (self.arms[arm].get("options") or {})

    @property
    def models(self) -> list[str]:
        """The arms that are trained models."""
        return [arm for arm, values in self.arms.items() if "recommender" not in values]

    def vectors_of(self, arm: str) -> VectorsConfig:
        """The vectors of a model's items.

        Raises:
            ConfigError: unknown keys or values that do not fit; the message names the arm.
        """
        changes = self.arms[arm].get("vectors", {})
        if not isinstance(changes, Mapping):
            raise ConfigError(f"arm '{arm}': vectors must be a mapping, e.g. {{source: learned}}, not {changes!r}.")
        shared = dataclasses.asdict(self.vectors)
        if changes.get("source") not in (None, shared["source"]):
            shared.pop("path")
        try:
            return from_dict(VectorsConfig, {**shared, **changes}, "vectors")
        except ConfigError as error:
            raise ConfigError(f"arm '{arm}': {error}") from error

    def run_config(self, arm: str, seed: int, place: Mapping[str, Any] | None = None) -> RunConfig:
        """The configuration of the run that trains a model.

        Args:
            arm: its name.
            seed: of the run.
            place: where data, start model and run lie; none while only the settings are checked.

        Raises:
            ConfigError: an unknown key, or one that the comparison sets itself; the message names the arm.
        """
        changes = {key: value for key, value in self.arms[arm].items() if key not in ("label", "vectors")}
        return model_run(merge(self.base, changes), arm, seed, self.vectors_of(arm), place, f"arm '{arm}'")


@section()
class TrainedConfig:
    """One model that is trained from a file of events.

    Example:
        >>> config = TrainedConfig(data=EventsConfig(path="events.csv"), run={"train": {"epochs": 2}})
        >>> config.run_config().train.epochs, config.output, config.prepared_folder
        (2.0, 'runs/shop', 'runs/shop-data')

    Attributes:
        output: the run directory.
        prepared: folder of the split, its rows and the start model; by default that of the run with -data behind it.
        seed: of the run.
        data: the events, and their split.
        vectors: of items.
        run: settings of the run, as for popmargin train (task, objective, train …).
    """

    output: str = "runs/shop"
    prepared: str | None = None
    seed: Seed = 0
    data: EventsConfig = field(default_factory=EventsConfig)
    vectors: VectorsConfig = field(default_factory=VectorsConfig)
    run: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def prepared_folder(self) -> str:
        """Where the split and the start model are."""
        return self.prepared or f"{self.output}-data"

    def run_config(self, place: Mapping[str, Any] | None = None) -> RunConfig:
        """The configuration of the run; see `RecommendConfig.run_config`."""
        where = merge({"output": self.output}, place or {})
        return model_run(self.run, Path(self.output).name, self.seed, self.vectors, where, "run")


@section()
class MeasuredConfig:
    """On what a trained recommender is measured, and how.

    Attributes:
        data: the events, and their split; by default those of the training.
        evaluation: what is measured.
    """

    data: EventsConfig = field(default_factory=EventsConfig)
    evaluation: RankingConfig = field(default_factory=RankingConfig)


def model_run(
    values: Mapping[str, Any],
    name: str,
    seed: int,
    vectors: VectorsConfig,
    place: Mapping[str, Any] | None,
    where: str,
) -> RunConfig:
    """The run of a model, from its settings and where its data, start model and output lie.

    Raises:
        ConfigError: unknown keys or values that do not fit, or something that is set here.
    """
    for made in _MADE:
        first, _, last = made.partition(".")
        inside = values.get(first)
        if first in values and (not last or (isinstance(inside, Mapping) and last in inside)):
            raise ConfigError(f"{where}: {made} is set by the comparison or training itself. Remove it.")
    wanted = merge(merge(DEFAULTS, values), merge({"name": name, "seed": seed}, place or {}))
    task = opened("task", wanted["task"])
    if vectors.source == "learned" and isinstance(task, Mapping) and "dimension" not in task:
        wanted = merge(wanted, {"task": {"dimension": vectors.dimension}})
    try:
        config = from_dict(RunConfig, wanted)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    if config.task_name != "items":
        raise ConfigError(f"{where}: the task is '{config.task_name}', but recommenders need items. Remove it.")
    return config


def _check_baseline(arm: str, values: Mapping[str, Any]) -> None:
    """Refuse an unknown recommender, key or option, where the arm stands."""
    unknown = [key for key in values if key not in _OF_BASELINE]
    if unknown:
        known = did_you_mean(unknown[0], _OF_BASELINE)
        raise ConfigError(f"arm '{arm}': unknown key '{unknown[0]}' beside recommender. {known}")
    options = values.get("options") or {}
    if not isinstance(values["recommender"], str) or not isinstance(options, Mapping):
        raise ConfigError(f"arm '{arm}': write {{recommender: NAME, options: {{…}}}}.")
    try:
        found = BASELINES.get(values["recommender"])
        make_options(found.options, dict(options), f"options of '{found.name}'")
    except ConfigError as error:
        raise ConfigError(f"arm '{arm}': {error}") from error


def check_arms(study: RecommendConfig) -> None:
    """Refuse options of an arm's task or objective before any work.

    Raises:
        ConfigError: an option that is unknown or does not fit; the message names the arm.
    """
    for arm in study.models:
        config = study.run_config(arm, study.seeds[0])
        try:
            _check_parts(config)
        except ConfigError as error:
            raise ConfigError(f"arm '{arm}': {error}") from error


def _check_parts(config: RunConfig) -> None:
    from popmargin.tasks.base import read_task
    from popmargin.training.build import make_loss

    read_task(config.task)
    make_loss(config)


ConfigT = TypeVar("ConfigT", RecommendConfig, TrainedConfig)


def load_recommend_config(
    kind: type[ConfigT], path: str | Path, overrides: Sequence[str] = (), changes: Mapping[str, Any] | None = None
) -> ConfigT:
    """A comparison or a training from YAML, with changes and `--data.split time` flags put over it.

    Raises:
        ConfigError: unknown keys or values that do not fit; the message names the file.
    """
    values = apply_overrides(merge(read_yaml(path), changes or {}), overrides)
    try:
        config = from_dict(kind, values)
        if not config.data.path:
            raise ConfigError("data.path is missing: name the file of events, e.g. data: {path: events.csv}.")
        if isinstance(config, RecommendConfig):
            check_arms(config)
        else:
            _check_parts(config.run_config())
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return config
