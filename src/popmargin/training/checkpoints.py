"""Checkpoints that are whole or are not there, and are used only if every byte is as it was written.

checkpoint-N/checkpoint.json   the step, and size and SHA-256 of every other file; written last
.unfinished/checkpoint-N       one that is being written; renamed when it is whole
"""

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

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
    files = sorted(file for file in unfinished.rglob("*") if file.is_file())
    written = {file.relative_to(unfinished).as_posix(): _seal(file) for file in files}
    manifest = {"format": 1, "step": step_of(folder), "files": written}
    with (unfinished / MANIFEST).open("w", encoding="utf-8") as opened:
        opened.write(json.dumps(manifest, indent=1) + "\n")
        opened.flush()
        os.fsync(opened.fileno())
    for inner in {unfinished, *(file.parent for file in files)}:
        _sync(inner)
    if folder.exists():
        shutil.rmtree(folder)
    unfinished.replace(folder)
    _sync(folder.parent)
    shutil.rmtree(unfinished.parent, ignore_errors=True)


def _seal(file: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, once it is on the disk."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        return {"size": file.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def _sync(folder: Path) -> None:
    """Have the disk know the names in a folder; where folders cannot be opened, this is left to the system."""
    if os.name == "posix":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def step_of(checkpoint: Path) -> int:
    """The optimizer step of a checkpoint, from its name."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def checkpoints_in(folder: Path) -> list[Path]:
    """All checkpoints of a folder, whole or not, oldest first."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal()]
    return sorted((path for path in found if path.is_dir()), key=step_of)


def fault_of(checkpoint: Path) -> str | None:
    """Why a checkpoint must not be used, as the end of a sentence; None if every file is as it was written."""
    try:
        found = [(file.relative_to(checkpoint).as_posix(), file.stat())
                 for file in sorted(checkpoint.rglob("*")) if file.is_file()]  # fmt: skip
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"
    stamps = [(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in found]
    return _fault_of(checkpoint, tuple(stamps))


@functools.lru_cache(maxsize=64)
def _fault_of(checkpoint: Path, stamps: tuple[tuple[str, int, int, int], ...]) -> str | None:
    """Files are read once as long as none changes."""
    sizes = {name: size for name, size, _, _ in stamps}
    if MANIFEST not in sizes:
        return f"it has no {MANIFEST}, which is written last"
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        step, files = manifest["step"], {name: (of["size"], of["sha256"]) for name, of in manifest["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return f"its {MANIFEST} cannot be read"
    if step != step_of(checkpoint):
        return f"its {MANIFEST} is that of step {step}"
    for name, (size, digest) in files.items():
        if name not in sizes:
            return f"{name} is missing"
        if sizes[name] != size:
            return f"{name} has {sizes[name]:,} bytes, and {size:,} were written"
        try:
            with (checkpoint / name).open("rb") as opened:
                if hashlib.file_digest(opened, "sha256").hexdigest() != digest:
                    return f"{name} is not what was written"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror or error})"
    return None


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
