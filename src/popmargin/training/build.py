"""From a configuration to the objects of a run; nothing beyond this point reads the configuration."""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PrinterCallback, ProgressCallback, TrainingArguments, set_seed

from popmargin.config import (
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    PopConfig,
    RunConfig,
    TargetConfig,
    TrainConfig,
    coerce,
)
from popmargin.data.schema import Preferences
from popmargin.engine.target import EMATarget, MarginBank, PolicyTarget, Target
from popmargin.errors import ConfigError, DataError, PopmarginError
from popmargin.margin_sources.base import make_margin
from popmargin.models.policies import process_count
from popmargin.objectives.base import OBJECTIVES
from popmargin.pop.edge_sources import source_of
from popmargin.pop.edges import PopEdges
from popmargin.pop.labelled import edge_weights
from popmargin.pop.scale import StrengthScale
from popmargin.registry import make_options
from popmargin.regularizers.base import REGULARIZERS
from popmargin.tasks.base import Scorer, Task, TaskSettings, open_task, read_task
from popmargin.tokens.base import TOKEN_SELECTORS
from popmargin.training.arguments import QuietProgress, micro_batch_size
from popmargin.training.batches import Collator, TrainingRows
from popmargin.training.combinations import refuse_lone_rows, refuse_meaningless
from popmargin.training.fingerprints import Record
from popmargin.training.inputs import refuse_other_run, with_absolute_paths
from popmargin.training.loss import Loss
from popmargin.training.own_code import OwnCode, copies_used, own_code, reward_facts
from popmargin.training.prepared import PreparedData
from popmargin.training.run_directory import RunDirectory
from popmargin.training.signals import make_signals
from popmargin.training.stopping import Stopping, stopping_on
from popmargin.training.trainer import PreferenceTrainer
from popmargin.training.workspace import Workspace

_LOG = logging.getLogger(__name__)


def make_loss(config: RunConfig) -> Loss:
    """The objective and its companions from the configuration; the target is added later.

    Raises:
        ConfigError: unknown names or options, or a meaningless combination.
    """
    values = dict(config.objective)
    objective = OBJECTIVES.get(_name_of(values, "objective"))
    task, _ = read_task(config.task)
    if task.beta is not None and "beta" in {field.name for field in dataclasses.fields(objective.options)}:
        values = {"beta": task.beta} | values
    options = objective.make_options(values)
    regularizers: list[Any] = []
    for place, entry in enumerate(config.regularizers):
        rest = dict(entry)
        regularizer = REGULARIZERS.get(_name_of(rest, f"regularizers[{place}]"))
        weight = coerce(float, rest.pop("weight", 1.0), f"the weight of regularizer '{regularizer.name}'")
        if regularizer.name in {known.name for _, known, _ in regularizers}:
            raise ConfigError(
                f"The regularizer '{regularizer.name}' is listed twice and would be logged under one name: keep one."
            )
        if not weight >= 0:
            raise ConfigError(f"The weight of regularizer '{regularizer.name}' must be 0 or more, not {weight}.")
        fields = {field.name for field in dataclasses.fields(regularizer.options)}
        if "beta" in fields and hasattr(options, "beta"):
            rest = {"beta": options.beta} | rest  # its reward units are those of the objective
        if "per_token" in fields:
            rest = {"per_token": objective.score_kind(options).startswith("mean_")} | rest  # and so are its nats
        regularizers.append(
            (weight, regularizer, make_options(regularizer.options, rest, f"regularizer '{regularizer.name}'"))
        )
    tokens = scoring = None
    if config.tokens is not None:
        rest = dict(config.tokens)
        scoring = rest.pop("reference", None)
        selector = TOKEN_SELECTORS.get(_name_of(rest, "tokens"))
        tokens = (selector, make_options(selector.options, rest, f"token selector '{selector.name}'"))
    loss = Loss(
        objective=objective,
        options=options,
        regularizers=tuple(regularizers),
        tokens=tokens,
        margin=None if config.margin is None else make_margin(config.margin),
        provides=task.provides,
        scoring=None if scoring is None else str(scoring),
    )
    loss = dataclasses.replace(loss, signals=make_signals(config.signals, loss.needs.columns))
    refuse_meaningless(
        loss,
        config.task_name,
        task.noun,
        data=config.data,
        model=config.model,
        reference=config.reference,
        train=config.train,
        evaluation=config.evaluation,
        stops_on=task.stops_on,
        no_tokens=task.no_tokens,
    )
    return loss


def _name_of(values: dict[str, Any], where: str) -> str:
    """Split the `name` of a part from its options."""
    if "name" not in values:
        example = {"objective": "pop", "tokens": "selective"}.get(where, "sft")
        found = f" (it has {', '.join(values)})" if values else ""
        raise ConfigError(f"{where}.name is missing{found}, e.g. {{name: {example}}}.")
    return str(values.pop("name"))


@dataclass(frozen=True)
class Run:
    """A run's configuration, read once: its loss, task and directory as objects, the rest as checked sections.

    Attributes:
        config: as it is stored in the run directory, with absolute paths; only to be stored and compared.
        loss: objective, margin, regularizers and token selector; the target is added by `make_parts`.
        directory: the run directory.
    """

    config: RunConfig
    loss: Loss
    directory: RunDirectory

    @staticmethod
    def read(config: RunConfig) -> "Run":
        """The run that a configuration describes.

        Raises:
            ConfigError: unknown names or options, or a meaningless combination.
        """
        return Run(with_absolute_paths(config), make_loss(config), RunDirectory(Path(config.output)))

    @staticmethod
    def opened(path: str | Path, config: RunConfig | None = None) -> "Run":
        """A run that was started, as it is evaluated.

        Args:
            path: its run directory.
            config: its configuration with the changes of an evaluation; None for none.

        Raises:
            ConfigError: a change that would make it another run.
            RunError: this is no run directory.
        """
        directory = RunDirectory(Path(path))
        own = directory.config()
        if config is not None:
            refuse_other_run(own, config)
        return dataclasses.replace(Run.read(config or own), directory=directory)

    @property
    def as_trained(self) -> "Run":
        """The run with the settings that it was trained with, whatever is changed to evaluate it."""
        own = with_absolute_paths(RunDirectory(self.directory.path).config())
        return dataclasses.replace(self, config=own)

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.config.name

    @property
    def objective(self) -> str:
        """The name of its objective, as it was given."""
        return str(self.config.objective["name"])

    @property
    def seed(self) -> int:
        """Of initialisation, order and dropout."""
        return self.config.seed

    @property
    def task(self) -> TaskSettings:
        """What its task is opened with."""
        config = self.config
        return TaskSettings(
            name=config.task_name,
            options=read_task(config.task)[1],
            data=config.data,
            model=config.model,
            reference=config.reference,
        )

    @property
    def data(self) -> DataConfig:
        """Where its preferences are, and how they are read and split."""
        return self.config.data

    @property
    def model(self) -> ModelConfig:
        """Its start model and adapter."""
        return self.config.model

    @property
    def pop(self) -> PopConfig:
        """Where its PoP edges come from."""
        return self.config.pop

    @property
    def target(self) -> TargetConfig:
        """What scores the weaker side of an edge."""
        return self.config.target

    @property
    def train(self) -> TrainConfig:
        """Its optimisation."""
        return self.config.train

    @property
    def evaluation(self) -> EvaluationConfig:
        """What is measured."""
        return self.config.evaluation

    @property
    def code(self) -> list[OwnCode]:
        """The user's own components."""
        return own_code(self.task.name, self.loss, self.evaluation)

    def workspace(self, test: Preferences | None = None) -> Workspace:
        """Its task and data, opened, which other runs may share.

        Args:
            test: held-out preferences that were chosen already; None takes those that the run names.
        """
        return Workspace(open_task(self.task), self.data, test=test)

    def record(self, workspace: Workspace) -> Record:
        """What the run is trained on and measured with, by content."""
        record = workspace.record(self.pop, self.loss, self.code)
        return dataclasses.replace(record, facts={**record.facts, **reward_facts(self.evaluation)})

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Before any work: whether the run can be started, or gone on with, in its directory.

        Raises:
            ConfigError, RunError: as `RunDirectory.check`.
        """
        self.directory.check(self.config, resume=resume, overwrite=overwrite)

    def start(self, record: Record, *, resume: bool, overwrite: bool) -> None:
        """Make its directory ready, for a new run or to go on; see `RunDirectory.start`."""
        self.directory.start(self.config, record, resume=resume, overwrite=overwrite)

    @property
    def copies(self) -> list[str]:
        """What to say where the run directory's copies of the user's own code are used; none where the files are."""
        return copies_used(self.code, self.directory.path)

    def with_own_edges(self) -> "Run":
        """A resumed run keeps its edges, even if their source has grown."""
        own, named = self.directory.path / "edges.parquet", self.pop.edges
        if named is None or not source_of(named).grows or not own.is_file():
            return self
        pop = dataclasses.replace(self.pop, edges=str(own))
        return dataclasses.replace(self, config=dataclasses.replace(self.config, pop=pop))


@dataclass(frozen=True)
class Parts:
    """The parts of a trainer; nothing here has touched the run directory yet."""

    task: Task
    policy: Any
    scorer: Scorer
    loss: Loss
    collator: Collator
    edges: PopEdges | None
    scale: StrengthScale | None = None
    stopping: Stopping | None = None


def make_parts(run: Run, workspace: Workspace) -> Parts:
    """The model, its scorer, the loss with its target, rows and edges of a run.

    Raises:
        ConfigError, DataError: the objective needs something that the data or the configuration lacks.
    """
    loss, task, data = run.loss, workspace.task, workspace.train
    refuse_lone_rows(loss, micro_batch_size(run.train, process_count()) * process_count())
    needs = loss.needs
    order = loss.signals.get("order")
    edges = workspace.edges(run.pop, order) if needs.edges else None
    scale = fitted_to = strengths = None
    if needs.scale:
        scale, fitted_to = workspace.scale(run.pop, order)
        strengths = workspace.strengths(run.pop, scale)
        _say_what_is_unknown(scale)
    columns = {
        name: data.column(name, loss.signals.get(name), beta=loss.beta, scale=strengths)
        for name in loss.columns(data.preferences)
    }
    if strengths is not None:
        columns["scale"] = strengths.astype(np.float32)
    workspace.check_rows(run.evaluation)
    # The start model's scores are asked for first: it may itself become the model that is trained.
    reference = data.reference if loss.uses_reference else None
    scoring = None if loss.scoring is None else task.reference(data.encoded, loss.scoring)
    bank = _bank_of_start_gaps(loss, run.target, data)
    if not loss.decoupling:
        task.release()
    set_seed(run.seed)
    model = task.make_model(run.model)
    scorer = task.scorer(
        model,
        loss.kind,
        precision=run.model.precision,
        tokens=loss.tokens,
        statistics=run.train.token_statistics,
    )
    scorer = task.prepare(model, scorer, run.train)
    scorer = task.decoupled(scorer, loss.decoupling) if loss.decoupling else scorer
    if scorer.alone and process_count() > 1:
        raise ConfigError(
            "The model is forwarded one response at a time (the log says why), which several processes cannot do in "
            "lockstep: train in one process."
        )
    loss = _with_target(loss, run.target, bank, model)
    collator = Collator(
        rows=training_rows(loss, workspace, edges),
        inputs=task.inputs(
            data.encoded,
            scorer,
            reference=reference,
            scoring=scoring,
        ),
        columns=columns,
        weaker=needs.weaker,
        target_forward=loss.target.forward if loss.target is not None else "none",
        tokens_per_batch=run.train.tokens_per_batch,
    )
    used = edges if edges is not None else fitted_to
    stopping = stopping_on(run.train, task, model, workspace.test.encoded)
    return Parts(task, model, scorer, loss, collator, used, scale, stopping)


def _say_what_is_unknown(scale: StrengthScale) -> None:
    if scale.unknown:
        _LOG.warning(
            "%d of %d training preferences have no comparison: they train at the middle of the strength scale",
            scale.unknown,
            len(scale),
        )


def make_trainer(arguments: TrainingArguments, parts: Parts, settings: TrainConfig | None = None) -> PreferenceTrainer:
    """The trainer of a run; this creates the run's checkpoint folder.

    Args:
        arguments: transformers' own.
        parts: of the run.
        settings: the order of its rows, and whether weights are averaged; None for the defaults.
    """
    chosen = TrainConfig() if settings is None else settings
    config: Any = getattr(parts.policy, "config", None)
    arguments.use_cache = getattr(config, "use_cache", False)  # otherwise transformers saves False, whatever it was
    try:
        trainer = PreferenceTrainer(
            model=parts.policy,
            args=arguments,
            loss=parts.loss,
            collator=parts.collator,
            scorer=parts.scorer,
            write=parts.task.checkpoint,
            clustered=chosen.edge_batching == "clustered",
            average=None if chosen.average is None else EMATarget(parts.policy, chosen.average),
            stopping=parts.stopping,
        )
    except PopmarginError:
        raise
    except ValueError as error:  # transformers refuses incompatible trainer_arguments
        raise ConfigError(f"train.trainer_arguments: {error}") from error
    for shown in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(shown)
    trainer.add_callback(QuietProgress())
    return trainer


def training_rows(loss: Loss, workspace: Workspace, edges: PopEdges | None) -> TrainingRows:
    """The rows of an epoch: preferences, or PoP edges between them.

    Raises:
        DataError: no edge says which preference is stronger.
    """
    if edges is None:
        return TrainingRows.of_preferences(len(workspace.train))
    stronger, weaker = edges.resolve(workspace.train.ids)
    everyone = loss.needs.weaker == "gradient"
    if not len(stronger) and not everyone:
        raise DataError(
            f"No PoP edge says which preference is stronger ({len(edges)} in), so there is nothing to train on. Label "
            "more pairs, or choose an objective without PoP edges."
        )
    return TrainingRows.of_edges(stronger, weaker, len(workspace.train), everyone=everyone, weight=edge_weights(edges))


def _bank_of_start_gaps(loss: Loss, settings: TargetConfig, data: PreparedData) -> MarginBank | None:
    if loss.needs.weaker != "target" or settings.kind != "bank":
        return None
    return MarginBank(data.task.start_gaps(data.encoded, loss.kind, lambda: data.reference), settings.decay)


def _with_target(loss: Loss, settings: TargetConfig, bank: MarginBank | None, model: Any) -> Loss:
    if loss.needs.weaker != "target":
        return loss
    target: Target = PolicyTarget() if bank is None else bank
    if settings.kind == "ema":
        target = EMATarget(model, settings.decay)
    return dataclasses.replace(loss, target=target)
