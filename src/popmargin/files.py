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
    wanted = Path(path)
    folder = wanted.parent
    start = f"No such {what}: {path}"
    try:
        if not folder.is_dir():
            return f"{start} (there is no folder {folder})."
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        return f"{start}."
    stems = {name: Path(name).stem.lower() for name in names}
    like = difflib.get_close_matches(wanted.stem.lower(), list(stems.values()), n=3, cutoff=0.7)
    near = [name for name in names if stems[name] in like][:3]
    if not near:
        return f"{start}."
    return f"{start}. Did you mean {' or '.join(str(folder / name) for name in near)}?"
