"""Callbacks of training: metric lines, and evaluations of the policy along the way."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from popmargin.files import append_jsonl
from popmargin.training.memory import peak_megabytes, reset_peak
from popmargin.training.run_directory import RunDirectory
from popmargin.training.stopping import Stopping
from popmargin.training.trainer import PreferenceTrainer

Probe = Callable[[Any, int], dict[str, Any]]
"""Evaluates a policy during training: (model, step) → values for curves.jsonl."""

_TIMED = ("runtime", "per_second", "total_flos")


class JsonlCallback(TrainerCallback):
    """Writes metrics that depend only on seed and data to metrics.jsonl, and speed to timing.jsonl.

    Args:
        trainer: counts tokens.
        directory: the run's files.
        pauses: the callback whose time does not count.
    """

    def __init__(self, trainer: PreferenceTrainer, directory: RunDirectory, pauses: "ProbeCallback") -> None:
        self._trainer, self._directory, self._pauses = trainer, directory, pauses
        self._last = (0.0, 0)

    def _now(self) -> tuple[float, int]:
        return time.perf_counter() - self._pauses.seconds, self._trainer.tokens_seen

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._last = self._now()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        values = {k: v for k, v in logs.items() if not any(part in k for part in _TIMED)}
        append_jsonl(self._directory.path / "metrics.jsonl", {**values, "step": state.global_step})
        now = self._now()
        seconds = now[0] - self._last[0]
        timing = {
            "step": state.global_step,
            "seconds": round(seconds, 3),
            "tokens_per_second": round((now[1] - self._last[1]) / seconds, 1),
        }
        append_jsonl(self._directory.path / "timing.jsonl", timing)
        self._last = now


class StopCallback(TrainerCallback):
    """Measures the held-out side after every epoch, before a checkpoint is written, and stops the training.

    Args:
        stopping: what it measures and keeps.
        trainer: the one with the policy.
        directory: the run's files.
    """

    def __init__(self, stopping: Stopping, trainer: PreferenceTrainer, directory: RunDirectory) -> None:
        self._stopping, self._trainer, self._directory = stopping, trainer, directory

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not float(state.epoch).is_integer() and state.global_step < state.max_steps:
            return
        average = self._trainer.average
        with contextlib.nullcontext() if average is None else average.scoring():
            values = self._stopping.look(state.global_step)
        if state.is_world_process_zero:
            append_jsonl(self._directory.path / "curves.jsonl", {**values, "step": state.global_step})
        if self._stopping.over:
            control.should_training_stop = True


class ProbeCallback(TrainerCallback):
    """Evaluates the policy at evenly spaced steps; its time and memory do not count as training's.

    Args:
        probe: the evaluation; None for none.
        trainer: the one with the policy.
        directory: the run's files.
        points: number of points; the last one is the evaluation after training.
    """

    def __init__(self, probe: Probe | None, trainer: PreferenceTrainer, directory: RunDirectory, points: int) -> None:
        self._probe, self._trainer, self._directory, self._points = probe, trainer, directory, points
        self.seconds = 0.0
        self.memory = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        moments = {round(state.max_steps * i / self._points) for i in range(1, self._points)} - {0, state.max_steps}
        if self._probe is None or state.global_step not in moments or not state.is_world_process_zero:
            return
        started = time.perf_counter()
        self.memory = max(self.memory, peak_megabytes())
        average = self._trainer.average
        with contextlib.nullcontext() if average is None else average.scoring():
            values = self._probe(self._trainer.model, state.global_step)
        append_jsonl(self._directory.path / "curves.jsonl", {**values, "step": state.global_step})
        reset_peak()
        self.seconds += time.perf_counter() - started
