"""Atomic files, in the format that their name says; hints for mistyped names."""

import difflib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from popmargin.errors import ConfigError, RunError

if TYPE_CHECKING:
    import numpy as np

PARQUET = (".parquet",)
HTML = (".html", ".htm")
_LOG = logging.getLogger(__name__)


@contextmanager
def whole_file(path: str | Path, suffixes: Sequence[str] = ()) -> Generator[Path]:
    """A path to write to, which replaces `path` at the end, so that readers never see half a file.

    The folder is created if missing. After an error `path` is unchanged, and nothing is left next to it.

    Args:
        path: the file.
        suffixes: allowed suffixes, if there is one format; none allows any name.

    Raises:
        ConfigError: the name has another suffix.
        RunError: `path` is a folder, or cannot be written.
    """
    check_suffix(path, suffixes)
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part") if target.name else target
    try:
        if target.is_dir():
            raise RunError(f"{path} is a folder. Give a file name.")
        with suppress(FileExistsError):  # a file in the folder's place: writing reports it
            target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(target)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error}). Choose another place.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path, *, replace: bool = False) -> Generator[Path]:
    """A new folder to write into, which replaces `path` at the end; like `whole_file` for several files.

    Args:
        path: the folder.
        replace: whether an existing one is replaced.

    Raises:
        RunError: `path` exists and is not empty, or cannot be written.
    """
    target = Path(path)
    partial, old = (target.with_name(f".{target.name}.{os.getpid()}.{end}") for end in ("part", "old"))
    try:
        if target.exists() and not (target.is_dir() and (replace or not any(target.iterdir()))):
            raise RunError(f"{path} is there already. Name a new folder.")
        partial.mkdir(parents=True)
        yield partial
        if target.exists():
            target.replace(old)
        partial.replace(target)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error}). Choose another place.") from error
    finally:
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)


def append_jsonl(path: Path, values: Mapping[str, Any]) -> None:
    """Append one line of JSON to a log; a truncated last line is removed first, with a message.

    Raises:
        RunError: it cannot be written, for instance because the disk is full.
    """
    try:
        with path.open("ab+") as file:
            torn = _torn_end(file)
            if torn:
                _LOG.warning("%s: its last line was not written to its end; its %d bytes are cut off.", path, torn)
                file.truncate(file.seek(0, os.SEEK_END) - torn)
            file.write((json.dumps(values, sort_keys=True) + "\n").encode())
    except OSError as error:
        raise RunError(
            f"{path}: a line cannot be written ({error.strerror or error}). Make room or check its permissions, then "
            "go on with the same command (train: with --resume)."
        ) from error


def _torn_end(file: IO[bytes]) -> int:
    """Bytes at the end of a log after its last line break; leaves the position at the end."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return 0
    file.seek(-1, os.SEEK_END)
    if file.read(1) == b"\n":
        return 0
    file.seek(0)
    return size - (file.read().rfind(b"\n") + 1)


def read_jsonl(path: Path, *, lenient: bool = False) -> list[dict[str, Any]]:
    """All complete lines of a log; none if there is no such file. A truncated last line is skipped, with a message.

    Args:
        path: the log.
        lenient: skip every line that is not JSON, with a message: for logs that nothing depends on.

    Raises:
        RunError: a line before it is not JSON.
    """
    if not path.is_file():
        return []
    whole, _, torn = path.read_bytes().rpartition(b"\n")
    if torn:
        _LOG.warning("%s: its last line is incomplete and is skipped.", path)
    lines: list[dict[str, Any]] = []
    for number, line in enumerate(whole.split(b"\n"), 1):
        try:
            found: Any = json.loads(line) if line.strip() else None
            if found is not None and not isinstance(found, dict):
                raise ValueError("no object")
        except ValueError as error:
            if not lenient:
                raise RunError(f"{path}:{number}: not JSON ({error}). Remove the line, or train again.") from error
            _LOG.warning("%s:%d is not JSON and is skipped.", path, number)
        else:
            lines += [] if found is None else [cast(dict[str, Any], found)]
    return lines


def check_suffix(path: str | Path, suffixes: Sequence[str]) -> None:
    """Refuse a name with the suffix of another format; no suffixes allow any name.

    Example:
        >>> check_suffix("edges.csv", [".parquet"])
        Traceback (most recent call last):
        popmargin.errors.ConfigError: edges.csv: this is written as .parquet. The name must end in that.
    """
    if suffixes and not Path(path).name.lower().endswith(tuple(suffixes)):
        known = " or ".join([", ".join(suffixes[:-1]), suffixes[-1]] if len(suffixes) > 1 else suffixes)
        one = "one of these" if len(suffixes) > 1 else "that"
        raise ConfigError(f"{path}: this is written as {known}. The name must end in {one}.")


def check_output(
    path: str | Path, suffixes: Sequence[str] = (), *, overwrite: bool, inputs: Iterable[str | Path | None] = ()
) -> None:
    """Check an output path before doing any work.

    Args:
        path: the file to write.
        suffixes: as in `whole_file`.
        overwrite: whether the user allowed replacing an existing file.
        inputs: the inputs; those that are not paths, such as hub ids, do not matter.

    Raises:
        ConfigError: the suffix is of another format, the file exists, or it is an input.
        RunError: the path is a folder.
    """
    check_suffix(path, suffixes)
    target = Path(path)
    if target.is_dir():
        raise RunError(f"{path} is a folder. Give a file name.")
    for source in inputs:
        if source is not None and _lies_in(target, Path(source)):
            raise ConfigError(f"{path} is also the input ({source}). Write to another file.")
    if target.exists() and not overwrite:
        raise ConfigError(f"{path} already exists. Choose another file, or pass --overwrite to replace it.")


def _lies_in(target: Path, source: Path) -> bool:
    """Whether a file is the source, under any name, or is inside it if that is a folder."""
    with suppress(OSError):
        if target.exists() and source.exists() and target.samefile(source):
            return True
        return source.resolve() in (target.resolve(), *(target.resolve().parents if source.is_dir() else ()))
    return False


def is_folder_name(name: str) -> bool:
    """Whether a name is that of one visible folder, which leads nowhere else.

    Example:
        >>> [is_folder_name(name) for name in ("dpo β=0.1", "../dpo", "/dpo", ".dpo", "a\\nb")]
        [True, False, False, False, False]
    """
    plain = name.isprintable() and "\\" not in name and not name.startswith(".")
    return bool(name) and plain and Path(name).name == name


def no_such_file(path: str | Path, *, what: str = "file") -> str:
    """A sentence that a file or folder does not exist, with similar names in its folder, or the missing folder.

    Args:
        path: what a user gave.
        what: "file" or "folder", or more precisely what was expected.

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
    """A question whether a similar name in its folder was meant; empty if there is none."""
    wanted = Path(path)
    try:
        names = sorted(entry.name for entry in wanted.parent.iterdir() if not entry.name.startswith("."))
    except OSError:
        return ""
    stems = {name: Path(name).stem.lower() for name in names}
    like = difflib.get_close_matches(wanted.stem.lower(), list(stems.values()), n=3, cutoff=0.7)
    near = [str(wanted.parent / name) for name in names if stems[name] in like][:3]
    return f"Did you mean {' or '.join(near)}?" if near else ""


def user_cache() -> Path:
    """The user's cache folder: $POPMARGIN_CACHE, or ~/.cache/popmargin."""
    return Path(os.environ.get("POPMARGIN_CACHE", Path.home() / ".cache" / "popmargin"))


def digest(*parts: "bytes | np.ndarray") -> str:
    """BLAKE2b (hex, 16 bytes) of some bytes, which may be as large as memory."""
    found = hashlib.blake2b(digest_size=16)
    for number, part in enumerate(parts):
        found.update(b"\x1f" * bool(number))
        found.update(part)
    return found.hexdigest()


def folder_digest(folder: Path, suffixes: Sequence[str]) -> str:
    """BLAKE2b (hex, 16 bytes) of the names and contents of the files in a folder whose names end so."""
    parts: list[bytes] = []
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.name.endswith(tuple(suffixes)):
            with file.open("rb") as opened:
                parts += [file.name.encode(), hashlib.file_digest(opened, "blake2b").digest()]
    return digest(*parts)
