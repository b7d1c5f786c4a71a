"""Checkpoints that are whole or are not there, and are used only if every byte is as it was written.

checkpoint-N/checkpoint.json   the step, and size and SHA-256 of every other file; written last
.unfinished/checkpoint-N       one that is being written; renamed when it is whole
"""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from popmargin import listed_files
from popmargin.errors import RunError

MANIFEST = "checkpoint.json"
UNFINISHED = ".unfinished"
_PREFIX = "checkpoint-"


def publish(unfinished: Path, folder: Path) -> None:
    """Seal a written checkpoint and move it to its place; a checkpoint that stands there is replaced.

    Args:
        unfinished: the folder that was written, `.unfinished/checkpoint-N`.
        folder: where it goes, on the same file system.
    """
    files = [file for file in unfinished.rglob("*") if file.is_file()]
    listed_files.write_list(unfinished, files, name=MANIFEST, facts={"step": step_of(folder)})
    if folder.exists():
        shutil.rmtree(folder)
    unfinished.replace(folder)
    listed_files.sync_folder(folder.parent)
    shutil.rmtree(unfinished.parent, ignore_errors=True)


def step_of(checkpoint: Path) -> int:
    """The optimizer step of a checkpoint, from its name."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def checkpoints_in(folder: Path) -> list[Path]:
    """All checkpoints of a folder, whole or not, oldest first."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal()]
    return sorted((path for path in found if path.is_dir()), key=step_of)


def fault_of(checkpoint: Path) -> str | None:
    """Why a checkpoint must not be used, as the end of a sentence; None if every file is as it was written."""
    fault = listed_files.fault_of(checkpoint, name=MANIFEST)
    if fault is None and (step := listed_files.read_list(checkpoint, MANIFEST).get("step")) != step_of(checkpoint):
        return f"its {MANIFEST} is that of step {step}"
    return fault


def newest_whole(folder: Path, say: Callable[[str], None] | None = None) -> Path | None:
    """The newest checkpoint of which every file is as it was written; None if there is none.

    Args:
        folder: of the checkpoints.
        say: is told of each newer one that cannot be used, and why.
    """
    for checkpoint in reversed(checkpoints_in(folder)):
        fault = fault_of(checkpoint)
        if fault is None:
            return checkpoint
        if say is not None:
            say(f"{checkpoint} is not used: {fault}.")
    return None


def refuse_broken(checkpoint: Path) -> None:
    """Check a checkpoint that a user names.

    Raises:
        RunError: it must not be used; the message names the file, and an earlier checkpoint that can be.
    """
    fault = fault_of(checkpoint)
    if fault is None:
        return
    other = newest_whole(checkpoint.parent)
    remedy = f"Resume from {other} instead." if other is not None else "Train from the start."
    raise RunError(f"{checkpoint} cannot be resumed from: {fault}. {remedy}")


def remove_old(folder: Path, limit: int | None, kept: Iterable[str | Path | None]) -> None:
    """Delete the oldest checkpoints beyond a limit.

    Args:
        folder: of the checkpoints.
        limit: how many stay; None or 0 keeps all.
        kept: those that are never deleted: the one that was just published, and the best one.
    """
    found = checkpoints_in(folder)
    safe = {Path(path).resolve() for path in kept if path is not None}
    for checkpoint in found[: max(0, len(found) - limit)] if limit else ():
        if checkpoint.resolve() not in safe:
            shutil.rmtree(checkpoint, ignore_errors=True)
