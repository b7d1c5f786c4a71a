"""From a configuration to the objects that a run is made of; past this point nothing reads the configuration."""

import dataclasses
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback, ProgressCallback, TrainingArguments, set_seed

from popmargin.config import RunConfig, TargetConfig, TrainConfig, coerce
from popmargin.engine.target import EMATarget, MarginBank, PolicyTarget, Target
from popmargin.errors import ConfigError, PopmarginError
from popmargin.margin_sources.base import make_margin
from popmargin.models.policies import device, process_count
from popmargin.objectives.base import OBJECTIVES
from popmargin.pop.edge_sources import source_of
from popmargin.pop.edges import PopEdges
from popmargin.pop.scale import StrengthScale
from popmargin.pop.strengths import half_normal_strengths
from popmargin.registry import make_options
from popmargin.regularizers.base import REGULARIZERS
from popmargin.tasks.base import TASKS, Scorer, Task
from popmargin.tokens.base import TOKEN_SELECTORS
from popmargin.training.batches import Collator, TrainingRows
from popmargin.training.combinations import refuse_lone_rows, refuse_meaningless
from popmargin.training.fingerprints import Record
from popmargin.training.inputs import with_absolute_paths
from popmargin.training.loss import Loss
from popmargin.training.own_code import OwnCode, copies_used, own_code, reward_facts
from popmargin.training.prepared import PreparedData
from popmargin.training.run_directory import RunDirectory
from popmargin.training.signals import make_signals
from popmargin.training.trainer import PreferenceTrainer
from popmargin.training.workspace import Workspace

_LOG = logging.getLogger(__name__)


def make_loss(config: RunConfig) -> Loss:
    """The objective and its companions from their configuration; the target is added later.

    Raises:
        ConfigError: unknown names or options, or a combination without meaning.
    """
    values = dict(config.objective)
    objective = OBJECTIVES.get(_name_of(values, "objective"))
    task = TASKS.get(config.task)
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
            rest = {"beta": options.beta} | rest  # its reward units are the objective's
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
    refuse_meaningless(loss, config, task.noun)
    return loss


def _name_of(values: dict[str, Any], where: str) -> str:
    """Takes the `name` of a part out of its values."""
    if "name" not in values:
        example = {"objective": "pop", "tokens": "selective"}.get(where, "sft")
        found = f" (it has {', '.join(values)})" if values else ""
        raise ConfigError(f"{where}.name is missing{found}, e.g. {{name: {example}}}.")
    return str(values.pop("name"))


@dataclass(frozen=True)
class Run:
    """A run's configuration, read once: its loss and directory as objects, the rest as checked sections.

    Attributes:
        config: as it is stored in the run directory, with absolute paths.
        loss: objective, margin, regularizers and token selector; the target is added by `make_parts`.
        directory: where the run lies.
    """

    config: RunConfig
    loss: Loss
    directory: RunDirectory

    @staticmethod
    def read(config: RunConfig) -> "Run":
        """The run that a configuration describes.

        Raises:
            ConfigError: unknown names or options, or a combination without meaning.
        """
        return Run(with_absolute_paths(config), make_loss(config), RunDirectory(Path(config.output)))

    @property
    def code(self) -> list[OwnCode]:
        """The user's own components."""
        return own_code(self.config, self.loss)

    def record(self, workspace: Workspace) -> Record:
        """What the run is trained on and measured with, by content."""
        record = workspace.record(self.config.pop, self.loss, self.code)
        return dataclasses.replace(record, facts={**record.facts, **reward_facts(self.config.evaluation)})

    @property
    def copies(self) -> list[str]:
        """What to say where the run directory's copies of the user's own code are used; none where the files are."""
        return copies_used(self.code, self.directory.path)

    def with_own_edges(self) -> "Run":
        """A run that goes on keeps its edges, though their source may have grown."""
        own, named = self.directory.path / "edges.parquet", self.config.pop.edges
        if named is None or not source_of(named).grows or not own.is_file():
            return self
        pop = dataclasses.replace(self.config.pop, edges=str(own))
        return dataclasses.replace(self, config=dataclasses.replace(self.config, pop=pop))


@dataclass(frozen=True)
class Parts:
    """What a trainer is made of: nothing here has touched the run directory yet."""

    task: Task
    policy: Any
    scorer: Scorer
    loss: Loss
    collator: Collator
    edges: PopEdges | None
    scale: StrengthScale | None = None


def make_parts(run: Run, workspace: Workspace) -> Parts:
    """The model, its scorer, the loss with its target, rows and edges of a run.

    Raises:
        ConfigError, DataError: the objective needs what the data or the configuration does not give.
    """
    config, loss, task, data = run.config, run.loss, workspace.task, workspace.train
    refuse_lone_rows(loss, _micro_batch_size(config.train, process_count()) * process_count())
    needs = loss.needs
    order = loss.signals.get("order")
    edges = workspace.edges(config.pop, order) if needs.edges else None
    scale = fitted_to = strengths = None
    if needs.scale:
        scale, fitted_to = workspace.scale(config.pop, order)
        strengths = half_normal_strengths(scale.strength)
        _say_what_is_unknown(scale)
    columns = {
        name: data.column(name, loss.signals.get(name), beta=loss.beta, scale=strengths)
        for name in loss.columns(data.preferences)
    }
    if strengths is not None:
        columns["scale"] = strengths.astype(np.float32)
    workspace.check_rows()
    set_seed(config.seed)
    model = task.make_model(config.model)
    scorer = task.scorer(
        model,
        loss.kind,
        precision=config.model.precision,
        tokens=loss.tokens,
        statistics=config.train.token_statistics,
    )
    scorer = task.prepare(model, scorer, config.train)
    scorer = task.decoupled(scorer, loss.decoupling) if loss.decoupling else scorer
    if scorer.alone and process_count() > 1:
        raise ConfigError(
            "The model is forwarded one response at a time (the log says why), which several processes cannot do in "
            "lockstep: train in one process."
        )
    loss = _with_target(loss, config.target, data, model)
    collator = Collator(
        rows=_training_rows(loss, workspace, edges),
        inputs=task.inputs(
            data.encoded,
            scorer,
            reference=data.reference if loss.uses_reference else None,
            scoring=None if loss.scoring is None else task.reference(data.encoded, loss.scoring),
        ),
        columns=columns,
        weaker=needs.weaker,
        target_forward=loss.target.forward if loss.target is not None else "none",
        tokens_per_batch=config.train.tokens_per_batch,
    )
    return Parts(task, model, scorer, loss, collator, edges if edges is not None else fitted_to, scale)


def _say_what_is_unknown(scale: StrengthScale) -> None:
    if scale.unknown:
        _LOG.warning(
            "%d of %d training preferences have no comparison: they train at the middle of the strength scale",
            scale.unknown,
            len(scale),
        )


def make_trainer(arguments: TrainingArguments, parts: Parts, *, clustered: bool = False) -> PreferenceTrainer:
    """The trainer of a run; it creates the run's checkpoint folder."""
    settings: Any = getattr(parts.policy, "config", None)
    arguments.use_cache = getattr(settings, "use_cache", False)  # or transformers saves False, whatever it was
    try:
        trainer = PreferenceTrainer(
            model=parts.policy,
            args=arguments,
            loss=parts.loss,
            collator=parts.collator,
            scorer=parts.scorer,
            write=parts.task.checkpoint,
            clustered=clustered,
        )
    except PopmarginError:
        raise
    except ValueError as error:  # transformers refuses trainer_arguments that do not fit together
        raise ConfigError(f"train.trainer_arguments: {error}") from error
    for shown in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(shown)
    trainer.add_callback(_QuietProgress())
    return trainer


def _training_rows(loss: Loss, workspace: Workspace, edges: PopEdges | None) -> TrainingRows:
    if edges is None:
        return TrainingRows.of_preferences(len(workspace.train))
    stronger, weaker = edges.resolve(workspace.train.ids)
    everyone = loss.needs.weaker == "gradient"
    return TrainingRows.of_edges(stronger, weaker, len(workspace.train), everyone=everyone)


def _with_target(loss: Loss, settings: TargetConfig, data: PreparedData, model: Any) -> Loss:
    if loss.needs.weaker != "target":
        return loss
    target: Target = PolicyTarget()
    if settings.kind == "ema":
        target = EMATarget(model, settings.decay)
    elif settings.kind == "bank":
        gaps = data.task.start_gaps(data.encoded, loss.kind, lambda: data.reference)
        target = MarginBank(gaps, settings.decay)
    return dataclasses.replace(loss, target=target)


def training_arguments(settings: TrainConfig, seed: int, folder: Path) -> TrainingArguments:
    """transformers' arguments for a run.

    Args:
        settings: of the optimisation.
        seed: of order and dropout.
        folder: of the checkpoints.

    Raises:
        ConfigError: a batch that cannot be divided, or unknown trainer_arguments.
    """
    processes = process_count()
    micro = _micro_batch_size(settings, processes)
    accumulation, rest = divmod(settings.batch_size, micro * processes)
    if rest or not accumulation:
        raise ConfigError(
            f"train.batch_size {settings.batch_size} is not a multiple of train.micro_batch_size {micro} x "
            f"{processes} process(es)."
        )
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    # Renamed in transformers 5.
    checkpointing = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    values: dict[str, Any] = {
        "output_dir": str(folder),
        "seed": seed,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "learning_rate": settings.learning_rate,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulation,
        "warmup_steps": settings.warmup_ratio,  # below 1 it is a share of the steps
        "lr_scheduler_type": settings.scheduler,
        "weight_decay": settings.weight_decay,
        "adam_beta1": settings.betas[0],
        "adam_beta2": settings.betas[1],
        "max_grad_norm": settings.max_grad_norm,
        checkpointing: settings.gradient_checkpointing,
        "logging_steps": settings.logging_steps,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps" if settings.save_steps else "no",
        "save_steps": settings.save_steps or 500,
        "save_total_limit": settings.save_total_limit,
        "report_to": settings.report_to or "none",
        "remove_unused_columns": False,
        "use_cpu": device().type == "cpu",
        "dataloader_pin_memory": torch.cuda.is_available(),
        "accelerator_config": {"non_blocking": torch.cuda.is_available()},  # copies of pinned batches cause no sync
        "ddp_find_unused_parameters": False,
        "disable_tqdm": False,
    }
    try:
        return TrainingArguments(**(values | settings.trainer_arguments))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"train: {error}") from error


def _micro_batch_size(settings: TrainConfig, processes: int) -> int:
    return settings.micro_batch_size or math.ceil(settings.batch_size / processes)


class _QuietProgress(ProgressCallback):
    """The progress bar with its ETA; metrics go to metrics.jsonl instead of the screen."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        bar: Any = getattr(self, "training_bar", None)
        if bar is not None and logs and "loss" in logs:
            bar.set_postfix({k: f"{logs[k]:.3f}" for k in ("loss", "accuracy") if k in logs})
