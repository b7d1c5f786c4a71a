"""Files that appear when they are complete."""

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
