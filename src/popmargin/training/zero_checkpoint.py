"""A checkpoint of DeepSpeed's ZeRO that another number of processes goes on with than wrote it.

Each process has written its part. The first one converts them into DeepSpeed's "universal checkpoint": the state of
each weight in files of its own, of which every process then reads what is to be its part. That copy lies beside the
checkpoints, which stay as they are, and is removed once all have read it.

DeepSpeed 0.19.8 reads such a copy for ZeRO-3 with two faults, which are mended here: all groups of weights get the
settings of the first one, such as its weight decay, and share one count of AdamW's steps, which then grows too fast.
"""

import contextlib
import io
import shutil
from argparse import Namespace
from collections.abc import Generator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from popmargin.engine.processes import from_first_process
from popmargin.errors import RunError, counted
from popmargin.training.disk_space import refuse_full

CONVERTED = ".converted"
"""The folder of the copy, beside the checkpoints."""
_KEPT = frozenset({"adamw_torch", "adamw_torch_fused"})
"""Optimizers whose state the conversion knows: two moments and a count of steps."""


def parts_of(checkpoint: Path) -> int:
    """In how many parts ZeRO has written the state of a checkpoint's optimizer; 0 for another kind of checkpoint."""
    return len(list(checkpoint.glob("global_step*/*zero_pp_rank_*_optim_states.pt")))


def is_for_others(trainer: Any, checkpoint: Path) -> bool:
    """Whether a checkpoint was written by ZeRO, in another number of processes than now train."""
    return trainer.is_deepspeed_enabled and parts_of(checkpoint) not in (0, trainer.args.world_size)


def refuse_unconvertible(trainer: Any, checkpoint: Path) -> None:
    """Check that a checkpoint of ZeRO can be given to this number of processes.

    Raises:
        RunError: it cannot; with the remedy.
    """
    if not is_for_others(trainer, checkpoint):
        return
    config = trainer.accelerator.state.deepspeed_plugin.deepspeed_config
    offloaded = config.get("zero_optimization", {}).get("offload_optimizer") or {}
    optimizer = str(getattr(trainer.args.optim, "value", trainer.args.optim))
    if "optimizer" in config:
        why = "an optimizer of its own configuration"
    elif optimizer not in _KEPT:
        why = f"the optimizer {optimizer}"
    elif offloaded.get("device") == "nvme":
        why = "optimizer states that are offloaded to NVMe"
    else:
        return
    parts = parts_of(checkpoint)
    raise RunError(
        f"{checkpoint} is in parts of {counted(parts, 'process', 'processes')}, and with {why} DeepSpeed cannot give "
        f"them to {trainer.args.world_size}. Go on with {parts}; FSDP2 goes on with any number."
    )


def load_for_others(trainer: Any, engine: Any, checkpoint: Path) -> None:
    """Give an engine its part of a checkpoint that other processes have written; every process must call this.

    Args:
        trainer: transformers' trainer.
        engine: DeepSpeed's, before its first step.
        checkpoint: the whole checkpoint.

    Raises:
        RunError: the disk is too small for the copy, or it cannot be made; in every process.
    """
    with _converted(trainer, checkpoint) as copy:
        settings = engine._config
        settings.load_universal_checkpoint = True
        try:
            engine.load_checkpoint(str(copy))
        finally:
            settings.load_universal_checkpoint = False
        shared = copy / _tag(checkpoint) / "zero" / "optimizer_state.pt"
        saved = torch.load(shared, map_location="cpu", weights_only=False)  # which DeepSpeed has read too
        _mend(engine.optimizer.optimizer, saved["param_groups"])
        trainer.accelerator.wait_for_everyone()  # all have read it


def _mend(optimizer: torch.optim.Optimizer, saved: list[dict[str, Any]]) -> None:
    """Each group with its own settings, and each state with its own count of steps."""
    for group, settings in zip(optimizer.param_groups, saved, strict=True):
        group.update({name: value for name, value in settings.items() if name != "params"})
    for state in optimizer.state.values():
        if isinstance(state.get("step"), torch.Tensor):
            state["step"] = state["step"].clone()


@contextlib.contextmanager
def _converted(trainer: Any, checkpoint: Path) -> Generator[Path]:
    """The copy of a checkpoint, made by the first process; all wait for it."""
    copy = checkpoint.parent / CONVERTED
    first, failed = trainer.is_world_process_zero(), None
    try:
        if first:
            failed = _convert(checkpoint, copy)
        failed = from_first_process(failed)
        if failed is not None:
            raise RunError(
                f"{checkpoint} could not be converted for {counted(trainer.args.world_size, 'process', 'processes')} "
                f"({failed}). Make room or go on with {parts_of(checkpoint)}."
            )
        yield copy
    finally:
        if first:
            shutil.rmtree(copy, ignore_errors=True)


def _convert(checkpoint: Path, copy: Path) -> str | None:
    """Write the copy; returns why it could not be written."""
    convert: Any = import_module("deepspeed.checkpoint.ds_to_universal").main  # it is not installed everywhere

    shutil.rmtree(copy, ignore_errors=True)  # of a process that was killed
    source = checkpoint / _tag(checkpoint)
    options = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False}
    options |= {"strict": True, "inject_missing_state": True}  # which only Megatron writes
    try:
        refuse_full(checkpoint.parent, _bytes_of_copy(source))
        target = copy / source.name
        target.mkdir(parents=True)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            convert(Namespace(input_folder=str(source), output_folder=str(target), **options))
    except Exception as error:  # whatever it is, the other processes wait to be told
        return str(getattr(error, "strerror", None) or error or type(error).__name__)
    return None


def _bytes_of_copy(source: Path) -> int:
    """At most: the states of weights in pieces and joined, the first part once more, and what the model has besides."""
    states = [file.stat().st_size for file in source.glob("*_optim_states.pt")]
    others = sum(file.stat().st_size for file in source.glob("*_model_states.pt"))
    return 2 * sum(states) + max(states) + 2 * others


def _tag(checkpoint: Path) -> str:
    """The folder in which DeepSpeed has written."""
    return (checkpoint / "latest").read_text().strip()
