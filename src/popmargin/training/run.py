"""One training run, from configuration to run directory."""

import contextlib
import dataclasses
import functools
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback, ProgressCallback, TrainingArguments, set_seed

from popmargin.account import Step
from popmargin.config import RunConfig, coerce
from popmargin.engine.batch import Collator, TrainingRows
from popmargin.engine.compiled import compile_layers
from popmargin.engine.rewards import refuse_noise, scoring_plan
from popmargin.engine.scores import pair_scores
from popmargin.engine.target import EMATarget, MarginBank, PolicyTarget, Target
from popmargin.errors import ConfigError, PopmarginError
from popmargin.generate.ends import save_ends
from popmargin.label.store.address import is_store
from popmargin.margin_sources import make_margin
from popmargin.models.policies import bf16_is_slower, device, make_policy
from popmargin.models.reward_models import make_reward_model
from popmargin.objectives.base import OBJECTIVES
from popmargin.pop.edges import PopEdges
from popmargin.pop.scale import StrengthScale
from popmargin.pop.strengths import half_normal_strengths
from popmargin.registry import make_options
from popmargin.regularizers.base import REGULARIZERS
from popmargin.tokens.base import TOKEN_SELECTORS
from popmargin.training.account import seen_steps, training_steps
from popmargin.training.callbacks import JsonlCallback, Probe, ProbeCallback
from popmargin.training.combinations import refuse_lone_rows, refuse_meaningless
from popmargin.training.final import is_merged, save_trained
from popmargin.training.inputs import with_absolute_paths
from popmargin.training.memory import peak_megabytes, reset_peak
from popmargin.training.prepare import Workspace
from popmargin.training.run_directory import RunDirectory, versions
from popmargin.training.trainer import Loss, NothingLeftError, PreferenceTrainer

_LOG = logging.getLogger(__name__)


def make_loss(config: RunConfig) -> Loss:
    """The objective and its companions from their configuration; the target is added later.

    Raises:
        ConfigError: unknown names or options, or a combination without meaning.
    """
    values = dict(config.objective)
    objective = OBJECTIVES.get(_name_of(values, "objective"))
    rewards = config.task == "reward"
    if rewards and "beta" in {field.name for field in dataclasses.fields(objective.options)}:
        values = {"beta": 1.0} | values  # a reward is in reward units already
    options = objective.make_options(values)
    regularizers: list[Any] = []
    for place, entry in enumerate(config.regularizers):
        rest = dict(entry)
        regularizer = REGULARIZERS.get(_name_of(rest, f"regularizers[{place}]"))
        weight = coerce(float, rest.pop("weight", 1.0), f"the weight of regularizer '{regularizer.name}'")
        if regularizer.name in {known.name for _, known, _ in regularizers}:
            raise ConfigError(
                f"The regularizer '{regularizer.name}' stands twice, and would be logged under one name: keep one."
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
    tokens = None
    if config.tokens is not None:
        rest = dict(config.tokens)
        rest.pop("reference", None)  # read by `make_parts`
        selector = TOKEN_SELECTORS.get(_name_of(rest, "tokens"))
        tokens = (selector, make_options(selector.options, rest, f"token selector '{selector.name}'"))
    loss = Loss(
        objective=objective,
        options=options,
        regularizers=tuple(regularizers),
        tokens=tokens,
        margin=None if config.margin is None else make_margin(config.margin),
        rewards=rewards,
    )
    refuse_meaningless(loss, config)
    return loss


def _name_of(values: dict[str, Any], where: str) -> str:
    """Takes the `name` of a part out of its values."""
    if "name" not in values:
        example = {"objective": "pop", "tokens": "selective"}.get(where, "sft")
        found = f" (it has {', '.join(values)})" if values else ""
        raise ConfigError(f"{where}.name is missing{found}, e.g. {{name: {example}}}.")
    return str(values.pop("name"))


def train(
    config: RunConfig,
    *,
    workspace: Workspace | None = None,
    resume: bool = False,
    overwrite: bool = False,
    probe: Probe | None = None,
    keep_model: bool = False,
    earlier: Sequence[Step] = (),
) -> tuple[RunDirectory, Any]:
    """Train one policy, or one reward model; what came in, was kept and was left out is said first, on stderr.

    Args:
        config: the run.
        workspace: data, tokens and models shared with other runs; made when not given.
        resume: go on from the last checkpoint in the run directory.
        overwrite: delete a run that is in the way.
        probe: measures the policy at `evaluation.curve_points` moments of the training.
        keep_model: also return the trained policy.
        earlier: the account of what became of the data before they were handed over.

    Returns:
        The run directory, and the policy (or None).

    Raises:
        ConfigError, DataError, RunError: with what to do about it.
    """
    directory = RunDirectory(Path(config.output))
    # First of all: it joins the other processes, if any, and chooses this one's device.
    arguments = training_arguments(config, directory)
    config, loss = with_absolute_paths(config), make_loss(config)
    first = arguments.process_index == 0
    if first:  # a slower process might find what this one has begun
        directory.check(config, resume=resume, overwrite=overwrite)
    workspace = workspace or Workspace(config)
    if config.model.precision == "bf16":
        _say_if_bf16_is_slow()
    account = [*earlier, *workspace.account]
    workspace.tell(account if first else ())
    own = _with_own_edges(config, directory) if resume else config
    record = workspace.record(own, loss)
    if resume and directory.started:
        directory.check_record(record)
    if resume and directory.finished:
        return directory, (workspace.trained(directory.model) if keep_model else None)
    parts = make_parts(own, workspace)
    rows = training_steps(config, workspace, parts)
    workspace.tell(rows if first else ())
    with arguments.main_process_first(local=False):
        if first:
            directory.start(config, record, resume=resume, overwrite=overwrite)
            if parts.edges is not None:
                parts.edges.save(directory.path / "edges.parquet")
            if parts.scale is not None:
                parts.scale.save(directory.path / "scale.parquet")
    checkpoint = directory.checkpoint() if resume else None
    trainer = make_trainer(config, arguments, parts)
    if checkpoint is not None:
        trainer.load_state(checkpoint)
    pauses = ProbeCallback(probe, trainer, directory, config.evaluation.curve_points if probe else 0)
    trainer.add_callback(pauses)
    trainer.add_callback(JsonlCallback(trainer, directory, pauses))
    reset_peak()
    started = time.perf_counter()
    with contextlib.suppress(NothingLeftError):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - started - pauses.seconds
    memory = max(pauses.memory, peak_megabytes())
    facts = save_trained(trainer, config, workspace, directory.model)
    if trainer.is_world_process_zero():
        workspace.tokenizer.save_pretrained(directory.model)
        if config.task == "policy":
            ends = sorted({*workspace.ends, *workspace.train.tokenized.report.ends})
            save_ends(directory.model, workspace.start_model, ends, workspace.tokenizer.pad_token_id)
        measured = {
            "steps": trainer.state.global_step,
            "train_seconds": seconds,
            "tokens": trainer.tokens_seen,
            "tokens_per_second": trainer.tokens_seen / seconds,
            "peak_memory_mb": memory,
            "resumed": checkpoint is not None,
        }
        seen = seen_steps(config, directory, trainer.state.global_step, len(parts.collator.rows))
        workspace.tell(seen)
        told = {"account": [step.to_dict() for step in (*account, *rows, *seen)]}
        directory.finish(_facts(config, workspace, parts) | measured | facts | told)
    trainer.accelerator.wait_for_everyone()  # so that every process finds the run finished
    if not keep_model:
        return directory, None
    return directory, (workspace.trained(directory.model) if is_merged(config) else trainer.model)


def _with_own_edges(config: RunConfig, directory: RunDirectory) -> RunConfig:
    """A run that goes on keeps its edges, though its label store may have grown."""
    own = directory.path / "edges.parquet"
    if config.pop.edges is None or not is_store(config.pop.edges) or not own.is_file():
        return config
    return dataclasses.replace(config, pop=dataclasses.replace(config.pop, edges=str(own)))


@dataclass(frozen=True)
class Parts:
    """What a trainer is made of: nothing here has touched the run directory yet."""

    policy: Any
    loss: Loss
    collator: Collator
    edges: PopEdges | None
    scale: StrengthScale | None = None


def make_parts(config: RunConfig, workspace: Workspace) -> Parts:
    """The policy, loss with its target, rows and edges of a run.

    Raises:
        ConfigError, DataError: the objective needs what the data or the configuration does not give.
    """
    loss = make_loss(config)
    refuse_lone_rows(loss, _micro_batch_size(config, process_count()) * process_count())
    scorer = (config.tokens or {}).get("reference")
    needs = loss.needs
    edges = workspace.edges(config.pop) if needs.edges else None
    columns = {name: workspace.train.column(name) for name in ("margin", "soft_label") if getattr(needs, name)}
    scale = fitted_to = None
    if needs.scale:
        scale, fitted_to = workspace.scale(config.pop)
        columns["scale"] = half_normal_strengths(scale.strength).astype(np.float32)
        _say_what_is_unknown(scale)
    workspace.check_rows()
    set_seed(config.seed)
    make = make_reward_model if loss.rewards else make_policy
    policy = make(workspace.start_model, config.model)
    layout = scoring_plan(policy, rewards=loss.rewards).layout
    if layout == "alone" and process_count() > 1:
        raise ConfigError(
            "The model is forwarded one response at a time (the log says why), which several processes cannot do in "
            "step: train it in one process."
        )
    if not config.model.dropout:
        refuse_noise(policy, rewards=loss.rewards)
    if config.train.frozen_cache_gb and process_count() > 1:
        _LOG.warning("train.frozen_cache_gb does nothing with several processes: all layers run in every step")
    elif config.train.frozen_cache_gb:
        workspace.share_frozen_layers(policy, config.train.frozen_cache_gb)
    if config.train.compile:
        compile_layers(policy)
    loss = _with_target(loss, config, workspace, policy)
    collator = Collator(
        rows=_training_rows(loss, workspace, edges),
        tokenized=workspace.train.tokenized,
        pad_id=workspace.tokenizer.pad_token_id,
        columns=columns,
        reference=workspace.train_reference if loss.uses_reference else None,
        scoring=workspace.train_scoring(str(scorer)) if scorer is not None else None,
        weaker=needs.weaker,
        target_forward=loss.target.forward if loss.target is not None else "none",
        layout=layout,
        tokens_per_batch=config.train.tokens_per_batch,
        whole=loss.rewards,
    )
    return Parts(policy, loss, collator, edges if edges is not None else fitted_to, scale)


@functools.cache
def _say_if_bf16_is_slow() -> None:
    if bf16_is_slower():
        _LOG.warning("bf16 is slower than fp32 on this CPU, which emulates it: leave out model.precision.")


def _say_what_is_unknown(scale: StrengthScale) -> None:
    if scale.unknown:
        _LOG.warning(
            "%d of %d training preferences stand in no comparison: they train with the middle of the strength scale",
            scale.unknown,
            len(scale),
        )


def make_trainer(config: RunConfig, arguments: TrainingArguments, parts: Parts) -> PreferenceTrainer:
    """The trainer of a run; it creates the run's checkpoint folder."""
    settings: Any = parts.policy.config
    arguments.use_cache = getattr(settings, "use_cache", False)  # or transformers saves False, whatever it was
    try:
        trainer = PreferenceTrainer(
            model=parts.policy,
            args=arguments,
            loss=parts.loss,
            collator=parts.collator,
            precision=config.model.precision,
            clustered=config.train.edge_batching == "clustered",
            token_statistics=config.train.token_statistics,
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


def _with_target(loss: Loss, config: RunConfig, workspace: Workspace, policy: Any) -> Loss:
    if loss.needs.weaker != "target":
        return loss
    decay, target = config.target.decay, PolicyTarget()
    made: Target = target
    if config.target.kind == "ema":
        made = EMATarget(policy, decay)
    elif config.target.kind == "bank":
        made = MarginBank(_start_gaps(loss, workspace), decay)
    return dataclasses.replace(loss, target=made)


def _start_gaps(loss: Loss, workspace: Workspace) -> torch.Tensor:
    """Gaps of all training preferences under the start model; log-ratios to itself are 0.

    Those of a reward model count as 0 too: what an untrained head says of them means nothing.
    """
    count = len(workspace.train)
    kind = loss.objective.score_kind(loss.options)
    if kind in ("log_ratio", "mean_log_ratio"):
        return torch.zeros(count)
    if workspace.config.reference.model is not None:
        raise ConfigError(
            f"target.kind `bank` with the objective '{loss.objective.name}' starts from the start model's log-probs, "
            "which are cached only when it is the reference too: leave out reference.model, or choose another target."
        )
    everyone = np.arange(count)
    tokenized = workspace.train.tokenized
    lengths = torch.from_numpy(np.concatenate([tokenized.chosen.lengths, tokenized.rejected.lengths]))
    values = workspace.train_reference.tokens(everyone)
    return pair_scores(kind, values, None, lengths).gap


def training_arguments(config: RunConfig, directory: RunDirectory) -> TrainingArguments:
    """transformers' arguments for a run.

    Raises:
        ConfigError: a batch that cannot be divided, or unknown trainer_arguments.
    """
    settings = config.train
    processes = process_count()
    micro = _micro_batch_size(config, processes)
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
        "output_dir": str(directory.checkpoints),
        "seed": config.seed,
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


def process_count() -> int:
    """Processes that train one run together, also before they have met."""
    import os

    if torch.distributed.is_initialized():
        return int(torch.distributed.get_world_size())
    return int(os.environ.get("WORLD_SIZE", "1"))


def _micro_batch_size(config: RunConfig, processes: int) -> int:
    return config.train.micro_batch_size or math.ceil(config.train.batch_size / processes)


def _facts(config: RunConfig, workspace: Workspace, parts: Parts) -> dict[str, Any]:
    edges, scale = parts.edges, parts.scale
    return {
        "name": config.name,
        "seed": config.seed,
        "task": config.task,
        "objective": config.objective["name"],
        "versions": versions(),
        "train_fingerprint": workspace.train.preferences.fingerprint(),
        "test_fingerprint": workspace.test.preferences.fingerprint(),
        "train_preferences": len(workspace.train),
        "test_preferences": len(workspace.test),
        "train_tokenization": workspace.train.tokenized.report.to_dict(),
        "test_tokenization": workspace.test.tokenized.report.to_dict(),
        "rows": len(parts.collator.rows),
        "edges_fingerprint": edges.fingerprint() if edges is not None else None,
        "edge_comparisons": edges.parameters.get("comparisons") if edges is not None else None,
        "scale": None if scale is None else scale.parameters | {"unknown": scale.unknown},
    }


class _QuietProgress(ProgressCallback):
    """The progress bar with its ETA; metrics go to metrics.jsonl instead of the screen."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        bar: Any = getattr(self, "training_bar", None)
        if bar is not None and logs and "loss" in logs:
            bar.set_postfix({k: f"{logs[k]:.3f}" for k in ("loss", "accuracy") if k in logs})
