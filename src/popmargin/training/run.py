"""One training run, from configuration to run directory."""

import contextlib
import functools
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import TrainingArguments

from popmargin.account import Step
from popmargin.code_permission import note_given
from popmargin.config import RunConfig, to_dict
from popmargin.data.goals import as_given, goal_facts
from popmargin.models.policies import bf16_is_slower
from popmargin.models.sharding import Sharding
from popmargin.tasks.base import Task
from popmargin.training.arguments import training_arguments
from popmargin.training.build import Parts, Run, make_parts, make_trainer
from popmargin.training.callbacks import JsonlCallback, Probe, ProbeCallback, StopCallback
from popmargin.training.checkpoint_times import SavingCallback, stopping_with_a_checkpoint
from popmargin.training.checkpoints import checkpoints_in
from popmargin.training.disk_space import sizes, warn_of_little_room
from popmargin.training.final import save_trained
from popmargin.training.fingerprints import Record
from popmargin.training.memory import peak_megabytes, reset_peak
from popmargin.training.run_account import seen_steps, training_steps
from popmargin.training.run_directory import LOGS, RunDirectory, versions
from popmargin.training.trainer import NothingLeftError, PreferenceTrainer
from popmargin.training.watch import Watch, watchers_of
from popmargin.training.workspace import Workspace

_LOG = logging.getLogger(__name__)


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
    """Train one model; the account of the data (in, kept, left out) is printed first, on stderr.

    Args:
        config: the run.
        workspace: data, tokens and models shared with other runs; created if not given.
        resume: continue from the last checkpoint in the run directory.
        overwrite: delete an existing run in the folder.
        probe: evaluates the model at `evaluation.curve_points` points during training.
        keep_model: also return the trained model.
        earlier: the account of the data before it was passed in.

    Returns:
        The run directory, and the model (or None).

    Raises:
        ConfigError, DataError, RunError: with the remedy.
    """
    note_given(to_dict(config))
    # First: it joins the other processes, if any, and chooses this one's device.
    directory = RunDirectory(Path(config.output))
    arguments = training_arguments(config.train, config.seed, directory.checkpoints)
    run, first = Run.read(config), arguments.process_index == 0
    if first:  # a slower process might find files that this one has begun
        run.check(resume=resume, overwrite=overwrite)
    workspace = workspace or run.workspace()
    if run.model.quantization == "none":  # accelerate knows which weights in 4 bits it cannot divide
        workspace.task.sharding = Sharding.of(arguments)
    if run.model.precision == "bf16":
        _say_if_bf16_is_slow()
    account = [*earlier, *workspace.account]
    workspace.tell(account if first else ())
    started, run = run, run.with_own_edges() if resume else run
    for copy in run.copies if first else ():
        _LOG.warning("%s: %s", directory.path, copy)
    record = run.record(workspace)
    if resume and directory.started:
        directory.check_record(record)
    if resume and directory.finished:
        directory.facts()
        directory.check_model()
        return directory, (workspace.task.load(directory.model) if keep_model else None)
    parts = make_parts(run, workspace)
    account += (rows := training_steps(started, workspace, parts))
    workspace.tell(rows if first else ())
    with arguments.main_process_first(local=False):
        if first:
            _start(started, record, parts, resume=resume, overwrite=overwrite)
    trainer, measured = _optimise(run, arguments, parts, probe, resume=resume)
    sides = (workspace.train.encoded, workspace.test.encoded)
    facts = save_trained(trainer, workspace.task, run.model, directory.model, sides) | measured
    if trainer.is_world_process_zero():
        stopping = trainer.stopping
        warned = Watch(watchers_of(parts.loss)).see_all(directory.metrics())
        notes = [] if stopping is None else [stopping.told(trainer.state.global_step)]
        notes += [f"warning at {sentence}" for sentence in warned]
        seen = seen_steps(run, trainer.state.global_step, len(parts.collator.rows), notes)
        workspace.tell(seen)
        facts["account"] = [step.to_dict() for step in (*account, *seen)]
        directory.finish(_facts(run, workspace, parts) | facts | {"warnings": warned})
        if arguments.save_strategy == "no":  # those by the clock were for going on
            shutil.rmtree(directory.checkpoints, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()  # so that every process sees the finished run
    merged = keep_model and workspace.task.merges(run.model)
    if merged:
        return directory, workspace.task.load(directory.model)
    return directory, (workspace.task.whole(trainer.model) if keep_model else None)


def _start(run: Run, record: Record, parts: Parts, *, resume: bool, overwrite: bool) -> None:
    run.start(record, resume=resume, overwrite=overwrite)
    if parts.edges is not None:
        parts.edges.save(run.directory.path / "edges.parquet")
    if parts.scale is not None:
        parts.scale.save(run.directory.path / "scale.parquet")
    run.directory.list_files()


def _optimise(
    run: Run,
    arguments: TrainingArguments,
    parts: Parts,
    probe: Probe | None,
    *,
    resume: bool,
) -> tuple[PreferenceTrainer, dict[str, Any]]:
    """Run the remaining optimizer steps; returns the trainer after the last one, and measurements of the training."""
    directory = run.directory
    trainer = make_trainer(arguments, parts, run.train)
    trainer.logs = [directory.path / name for name in LOGS]
    checkpoint = _checkpoint(directory, trainer) if resume else None
    if checkpoint is not None:
        trainer.load_state(checkpoint)
        trainer.watch.see_all(directory.metrics())  # what was said before is not said again
    pauses = ProbeCallback(probe, trainer, directory, run.evaluation.curve_points if probe else 0)
    saving = SavingCallback(run.train.save_minutes, trainer)
    stopping = trainer.stopping
    stops = () if stopping is None else (StopCallback(stopping, trainer, directory),)
    for callback in (pauses, saving, *stops, *parts.task.watch(parts.loss.beta)):
        trainer.add_callback(callback)
    trainer.add_callback(JsonlCallback(trainer, directory, pauses))
    _look_for_room(trainer, run, parts.task)
    reset_peak()
    started = time.perf_counter()
    with contextlib.suppress(NothingLeftError), stopping_with_a_checkpoint(saving):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.average is not None:
        trainer.average.take()
    if stopping is not None:
        stopping.take()
    seconds = time.perf_counter() - started - pauses.seconds
    return trainer, {
        "steps": trainer.state.global_step,
        "train_seconds": seconds,
        "tokens": trainer.tokens_seen,
        "tokens_per_second": trainer.tokens_seen / seconds,
        "peak_memory_mb": max(pauses.memory, peak_megabytes()),
        "resumed": checkpoint is not None,
        **({} if stopping is None else {"stopping": stopping.facts()}),
    }


def _look_for_room(trainer: PreferenceTrainer, run: Run, task: Task) -> None:
    """Say once if the disk is too small for what the run keeps."""
    if not trainer.is_world_process_zero():
        return
    arguments, rows = trainer.args, len(trainer.collator.rows)
    steps = arguments.max_steps if arguments.max_steps > 0 else int(run.train.epochs * rows / run.train.batch_size) + 1
    one, model = sizes(trainer, task.whole(trainer.model), merged=task.merges(run.model))
    warn_of_little_room(
        run.directory.checkpoints,
        one,
        model,
        steps=steps,
        every=int(arguments.save_steps) if arguments.save_strategy == "steps" else 0,
        limit=arguments.save_total_limit,
        by_the_clock=run.train.save_minutes > 0,
    )


def _checkpoint(directory: RunDirectory, trainer: PreferenceTrainer) -> Path | None:
    """The checkpoint to go on from; the first process looks, and says which it cannot use."""
    found: list[Path | None] = [None]
    if trainer.is_world_process_zero():
        found = [directory.checkpoint(_LOG.warning)]
        if found == [None] and checkpoints_in(directory.checkpoints):
            _LOG.warning("No checkpoint in %s is whole, so training begins anew.", directory.checkpoints)
    return broadcast_object_list(found)[0]


@functools.cache
def _say_if_bf16_is_slow() -> None:
    if bf16_is_slower():
        _LOG.warning("bf16 is slower than fp32 on this CPU, which emulates it: remove model.precision.")


def _facts(run: Run, workspace: Workspace, parts: Parts) -> dict[str, Any]:
    edges, scale = parts.edges, parts.scale
    goal = goal_facts(workspace.train.preferences)
    return {
        "name": run.name,
        "goal": None if goal is None else goal.to_dict(),
        "seed": run.seed,
        "task": run.task.name,
        "objective": run.objective,
        "versions": versions(),
        "train_fingerprint": workspace.train.preferences.fingerprint(),
        "test_fingerprint": as_given(workspace.test.preferences).fingerprint(),
        "train_preferences": len(workspace.train),
        "test_preferences": len(workspace.test),
        "train_tokenization": workspace.train.encoded.report.to_dict(),
        "test_tokenization": workspace.test.encoded.report.to_dict(),
        "rows": len(parts.collator.rows),
        "edges_fingerprint": edges.fingerprint() if edges is not None else None,
        "edge_comparisons": edges.parameters.get("comparisons") if edges is not None else None,
        "scale": None if scale is None else scale.parameters | {"unknown": scale.unknown},
    }
