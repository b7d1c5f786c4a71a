"""One training run, from configuration to run directory."""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from popmargin.config import RunConfig, coerce, to_dict
from popmargin.engine.batch import Collator, TrainingRows
from popmargin.engine.scores import pair_scores
from popmargin.engine.target import EMATarget, MarginBank, PolicyTarget, Target
from popmargin.errors import ConfigError
from popmargin.models import device, load_policy, make_policy
from popmargin.objectives.base import OBJECTIVES
from popmargin.pop.edges import PopEdges
from popmargin.registry import make_options
from popmargin.regularizers.base import REGULARIZERS
from popmargin.tokens.base import TOKEN_SELECTORS
from popmargin.training.memory import peak_megabytes, reset_peak
from popmargin.training.prepare import Workspace
from popmargin.training.run_directory import RunDirectory, append_jsonl, versions
from popmargin.training.trainer import Loss, PreferenceTrainer

Probe = Callable[[Any, int], dict[str, Any]]
"""Measures a policy during training: (model, step) → values for curves.jsonl."""


def make_loss(config: RunConfig) -> Loss:
    """The objective and its companions from their configuration; the target is added later.

    Raises:
        ConfigError: unknown names or options, or a combination without meaning.
    """
    values = dict(config.objective)
    if "name" not in values:
        raise ConfigError("objective.name is missing, e.g. objective: {name: pop}.")
    objective = OBJECTIVES.get(str(values.pop("name")))
    regularizers: list[Any] = []
    for entry in config.regularizers:
        rest = dict(entry)
        regularizer = REGULARIZERS.get(str(rest.pop("name", None)))
        weight = coerce(float, rest.pop("weight", 1.0), f"the weight of regularizer '{regularizer.name}'")
        options = make_options(regularizer.options, rest, f"regularizer '{regularizer.name}'")
        regularizers.append((weight, regularizer, options))
    tokens = None
    if config.tokens is not None:
        rest = dict(config.tokens)
        selector = TOKEN_SELECTORS.get(str(rest.pop("name", None)))
        tokens = (selector, make_options(selector.options, rest, f"token selector '{selector.name}'"))
    return Loss(
        objective=objective,
        options=objective.make_options(values),
        regularizers=tuple(regularizers),
        tokens=tokens,
    )


def train(
    config: RunConfig,
    *,
    workspace: Workspace | None = None,
    resume: bool = False,
    overwrite: bool = False,
    probe: Probe | None = None,
    keep_model: bool = False,
) -> tuple[RunDirectory, Any]:
    """Train one policy.

    Args:
        config: the run.
        workspace: data, tokens and models shared with other runs; made when not given.
        resume: go on from the last checkpoint in the run directory.
        overwrite: delete a run that is in the way.
        probe: measures the policy at `evaluation.curve_points` moments of the training.
        keep_model: also return the trained policy.

    Returns:
        The run directory, and the policy (or None).

    Raises:
        ConfigError, DataError, RunError: with what to do about it.
    """
    loss = make_loss(config)
    directory = RunDirectory(Path(config.output))
    # First of all: it joins the other processes, if any, and chooses this one's device.
    arguments = training_arguments(config, directory)
    workspace = workspace or Workspace(config)
    if resume and directory.finished and to_dict(directory.config()) == to_dict(config):
        return directory, (load_policy(directory.model, workspace.start_model) if keep_model else None)
    edges = workspace.edges(config.pop) if loss.objective.needs.edges else None
    rows = _training_rows(loss, workspace, edges)
    columns = {
        name: workspace.train.column(name) for name in ("margin", "soft_label") if getattr(loss.objective.needs, name)
    }
    set_seed(config.seed)
    policy = make_policy(workspace.start_model, config.model)
    loss = _with_target(loss, config, workspace, policy)
    reference = workspace.train_reference if loss.uses_reference else None
    collator = Collator(
        rows=rows,
        tokenized=workspace.train.tokenized,
        pad_id=workspace.tokenizer.pad_token_id,
        columns=columns,
        reference=reference,
        weaker=loss.objective.needs.weaker,
        target_forward=loss.target.forward if loss.target is not None else "none",
    )
    with arguments.main_process_first(local=False):
        if arguments.process_index == 0:
            directory.start(config, resume=resume, overwrite=overwrite)
            if edges is not None:
                edges.save(directory.path / "edges.parquet")
    checkpoint = directory.checkpoint() if resume else None
    trainer = PreferenceTrainer(
        model=policy,
        args=arguments,
        loss=loss,
        collator=collator,
        precision=config.model.precision,
        clustered=config.train.edge_batching == "clustered",
        callbacks=[_JsonlCallback(directory)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(_default_progress())
    trainer.add_callback(_quiet_progress())
    if probe is not None and config.evaluation.curve_points:
        trainer.add_callback(_ProbeCallback(probe, policy, directory, config.evaluation.curve_points))
    if checkpoint is not None:
        trainer.load_state(checkpoint)
    reset_peak()
    started = time.perf_counter()
    output = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = (
        time.perf_counter()
        - started
        - sum(
            callback.seconds for callback in trainer.callback_handler.callbacks if isinstance(callback, _ProbeCallback)
        )
    )
    memory = peak_megabytes()
    if trainer.is_world_process_zero():
        trainer.save_model(str(directory.model))
        (directory.model / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing here reads
        workspace.tokenizer.save_pretrained(directory.model)
        directory.finish(
            _facts(config, workspace, rows, edges)
            | {
                "steps": output.global_step,
                "train_seconds": seconds,
                "tokens": trainer.tokens_seen,
                "tokens_per_second": trainer.tokens_seen / seconds,
                "peak_memory_mb": memory,
                "resumed": checkpoint is not None,
            }
        )
    trainer.accelerator.wait_for_everyone()  # so that every process finds the run finished
    return directory, (policy if keep_model else None)


def _training_rows(loss: Loss, workspace: Workspace, edges: PopEdges | None) -> TrainingRows:
    if edges is None:
        return TrainingRows.of_preferences(len(workspace.train))
    stronger, weaker = edges.resolve(workspace.train.ids)
    everyone = loss.objective.needs.weaker == "gradient"
    return TrainingRows.of_edges(stronger, weaker, len(workspace.train), everyone=everyone)


def _with_target(loss: Loss, config: RunConfig, workspace: Workspace, policy: Any) -> Loss:
    if loss.objective.needs.weaker != "target":
        return loss
    decay, target = config.target.decay, PolicyTarget()
    made: Target = target
    if config.target.kind == "ema":
        made = EMATarget(policy, decay)
    elif config.target.kind == "bank":
        made = MarginBank(_start_gaps(loss, workspace), decay)
    return Loss(
        objective=loss.objective,
        options=loss.options,
        regularizers=loss.regularizers,
        tokens=loss.tokens,
        target=made,
    )


def _start_gaps(loss: Loss, workspace: Workspace) -> torch.Tensor:
    """Gaps of all training preferences under the start model; log-ratios to itself are 0."""
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
    processes = int(torch.distributed.get_world_size()) if torch.distributed.is_initialized() else _launched_processes()
    micro = settings.micro_batch_size or math.ceil(settings.batch_size / processes)
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
        "ddp_find_unused_parameters": False,
        "disable_tqdm": False,
    }
    try:
        return TrainingArguments(**(values | settings.trainer_arguments))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"train: {error}") from error


def _launched_processes() -> int:
    import os

    return int(os.environ.get("WORLD_SIZE", "1"))


def _facts(config: RunConfig, workspace: Workspace, rows: TrainingRows, edges: PopEdges | None) -> dict[str, Any]:
    return {
        "name": config.name,
        "seed": config.seed,
        "objective": config.objective["name"],
        "versions": versions(),
        "train_fingerprint": workspace.train.preferences.fingerprint(),
        "test_fingerprint": workspace.test.preferences.fingerprint(),
        "train_preferences": len(workspace.train),
        "test_preferences": len(workspace.test),
        "train_tokenization": workspace.train.tokenized.report.to_dict(),
        "test_tokenization": workspace.test.tokenized.report.to_dict(),
        "rows": len(rows),
        "edges_fingerprint": edges.fingerprint() if edges is not None else None,
        "edge_comparisons": edges.parameters.get("comparisons") if edges is not None else None,
    }


def _default_progress() -> type[TrainerCallback]:
    from transformers.trainer_callback import ProgressCallback

    return ProgressCallback


def _quiet_progress() -> TrainerCallback:
    class QuietProgress(_default_progress()):
        """The progress bar with its ETA; metrics go to metrics.jsonl instead of the screen."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            bar: Any = getattr(self, "training_bar", None)
            if bar is not None and logs and "loss" in logs:
                bar.set_postfix({k: f"{logs[k]:.3f}" for k in ("loss", "accuracy") if k in logs})

    return QuietProgress()


class _JsonlCallback(TrainerCallback):
    """Metrics that depend on seed and data alone to metrics.jsonl; speed to timing.jsonl."""

    _TIMED = ("runtime", "per_second", "total_flos")

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._started = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        values = {k: v for k, v in logs.items() if not any(part in k for part in self._TIMED)}
        append_jsonl(self._directory.path / "metrics.jsonl", {**values, "step": state.global_step})
        elapsed = time.perf_counter() - self._started
        append_jsonl(self._directory.path / "timing.jsonl", {"step": state.global_step, "seconds": round(elapsed, 3)})


class _ProbeCallback(TrainerCallback):
    """Measures the policy at evenly spaced moments; its time is not training time."""

    def __init__(self, probe: Probe, policy: Any, directory: RunDirectory, points: int) -> None:
        self._probe, self._policy, self._directory, self._points = probe, policy, directory, points
        self.seconds = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # The last point is the evaluation after training.
        moments = {round(state.max_steps * i / self._points) for i in range(1, self._points)} - {0, state.max_steps}
        if state.global_step in moments and state.is_world_process_zero:
            started = time.perf_counter()
            values = self._probe(self._policy, state.global_step)
            append_jsonl(self._directory.path / "curves.jsonl", {**values, "step": state.global_step})
            self.seconds += time.perf_counter() - started
