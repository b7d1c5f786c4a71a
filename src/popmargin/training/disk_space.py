"""Room on the disk: looked at before a checkpoint is written, and once for a whole run."""

import errno
import logging
import math
import shutil
from pathlib import Path
from typing import Any

from torch import nn

from popmargin.training.checkpoints import checkpoints_in

_LOG = logging.getLogger(__name__)
_MOMENTS = 2  # Adam's, in fp32
_REST = 1 << 16  # state of the random numbers, lists, logs of a short run


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of a folder, which need not be there yet."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


def model_bytes(model: nn.Module, *, adapter: bool) -> int:
    """Bytes of the weights that are saved, in the dtype that they have in memory."""
    return sum(
        value.numel() * value.element_size() for value in model.parameters() if value.requires_grad or not adapter
    )


def checkpoint_bytes(folder: Path, model: nn.Module, *, adapter: bool, copies: int) -> int:
    """Bytes of the next checkpoint: those of the last one, or an estimate for AdamW.

    Args:
        folder: of the checkpoints.
        model: the policy.
        adapter: whether only trained weights are saved.
        copies: of the trained weights in fp32 that are saved besides, such as an averaged target.
    """
    for last in reversed(checkpoints_in(folder)):
        return sum(file.stat().st_size for file in last.rglob("*") if file.is_file())
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    return model_bytes(model, adapter=adapter) + 4 * (_MOMENTS + copies) * trained + _REST


def refuse_full(folder: Path, needed: int) -> None:
    """Refuse to begin a checkpoint that does not fit.

    Raises:
        OSError: as if it had been written and the disk had become full.
    """
    free = free_bytes(folder)
    if free < needed:
        said = f"it needs about {in_words(needed)}, and {in_words(free)} are free on the disk of {folder}"
        raise OSError(errno.ENOSPC, said)


def warn_of_little_room(
    folder: Path, one: int, model: int, *, steps: int, every: int, limit: int | None, by_the_clock: bool
) -> None:
    """Say before a run if what it keeps does not fit on the disk.

    Args:
        folder: of the checkpoints.
        one: bytes of a checkpoint.
        model: bytes of the trained model.
        steps: optimizer steps of the run.
        every: steps between checkpoints; 0 for none by steps.
        limit: checkpoints kept; None or 0 for all.
        by_the_clock: whether checkpoints are also made in time.
    """
    made = math.ceil(steps / every) if every else int(by_the_clock) * (limit or 1)
    kept = min(made, limit or made)
    there = sum(file.stat().st_size for last in checkpoints_in(folder) for file in last.rglob("*") if file.is_file())
    needed = one * min(made, kept + 1) + model - there
    free = free_bytes(folder)
    if free < needed:
        _LOG.warning(
            "The run keeps up to %d checkpoints of about %s, and the trained model of %s: that is %s more than is free "
            "on the disk of %s (%s). Make room, or lower train.save_total_limit. What does not fit is left out.",
            kept,
            in_words(one),
            in_words(model),
            in_words(needed - free),
            folder,
            in_words(free),
        )


def in_words(count: int) -> str:
    """Bytes for a message.

    Example:
        >>> in_words(1_500), in_words(2_500_000), in_words(16_000_000_000)
        ('2 kB', '2.5 MB', '16 GB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.0f} kB"


def sizes(trainer: Any, whole: nn.Module | None = None, *, merged: bool = False) -> tuple[int, int]:
    """Bytes of a trainer's next checkpoint, and of its trained model.

    Args:
        trainer: of the run.
        whole: what is saved at the end, where that is more than what is trained; None for the same.
        merged: whether the adapter is merged into all weights at the end, which are then saved in fp32 at most.
    """
    folder, model = Path(str(trainer.args.output_dir)), trainer.model
    adapter = hasattr(model, "peft_config")
    size = checkpoint_bytes(folder, model, adapter=adapter, copies=trainer.saved_copies)
    saved = whole or model
    if merged:
        return size, 4 * sum(value.numel() for value in saved.parameters() if not value.requires_grad)
    return size, model_bytes(saved, adapter=adapter)
