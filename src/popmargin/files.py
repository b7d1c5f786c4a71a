"""Files that appear when they are complete, and names of files that are not there."""

import difflib
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from popmargin.errors import RunError


@contextmanager
def whole_file(path: str | Path) -> Generator[Path]:
    """A path to write to, which takes the place of `path` at the end, so that no reader meets half a file.

    The folder is made when missing. After an error `path` is as it was, and nothing is left beside it.

    Raises:
        RunError: `path` is a folder, or cannot be written.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part") if target.name else target
    try:
        if target.is_dir():
            raise RunError(f"{path} is a folder. Name the file to write.")
        with suppress(FileExistsError):  # a file in the folder's place: to write says so
            target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(target)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error}). Name another place.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def no_such_file(path: str | Path, *, what: str = "file") -> str:
    """A sentence that a file or folder is not there, with names like it in its folder, or the folder that is missing.

    Args:
        path: what a user gave.
        what: "file" or "folder", or more exactly what was looked for.

    Example:
        >>> no_such_file("nowhere/run.yaml")
        'No such file: nowhere/run.yaml (there is no folder nowhere).'
    """
    start, folder = f"No such {what}: {path}", Path(path).parent
    if not folder.is_dir():
        return f"{start} (there is no folder {folder})."
    near = near_names(path)
    return f"{start}. {near}" if near else f"{start}."


def near_names(path: str | Path) -> str:
    """A question whether names like this one, in its folder, were meant; empty if there are none."""
    wanted = Path(path)
    try:
        names = sorted(entry.name for entry in wanted.parent.iterdir() if not entry.name.startswith("."))
    except OSError:
        return ""
    stems = {name: Path(name).stem.lower() for name in names}
    like = difflib.get_close_matches(wanted.stem.lower(), list(stems.values()), n=3, cutoff=0.7)
    near = [str(wanted.parent / name) for name in names if stems[name] in like][:3]
    return f"Did you mean {' or '.join(near)}?" if near else ""
