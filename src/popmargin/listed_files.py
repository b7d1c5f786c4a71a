"""Lists of the files of a folder, with size and SHA-256: written last, and compared before the files are used."""

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from popmargin.errors import RunError
from popmargin.files import whole_file

LISTED = "popmargin_files.json"
"""The list of a run directory, and of the folder of its trained model."""
_FORMAT = 1


def write_list(folder: Path, files: Iterable[Path], *, name: str = LISTED, facts: Mapping[str, Any] = {}) -> None:
    """List some files of a folder once they are on the disk.

    Args:
        folder: it holds them.
        files: inside it, at any depth.
        name: of the list.
        facts: further entries of it.
    """
    found = sorted(files)
    written = {file.relative_to(folder).as_posix(): _sealed(file) for file in found}
    told = {"format": _FORMAT, **facts, "files": written}
    content = json.dumps({**told, "sha256": _digest(told)}, indent=1) + "\n"
    with whole_file(folder / name) as partial, partial.open("w", encoding="utf-8") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    for inner in {folder, *(file.parent for file in found)}:
        sync_folder(inner)


def _sealed(file: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, once it is on the disk."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        return {"size": file.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def _digest(told: Mapping[str, Any]) -> str:
    """SHA-256 of what a list says, so that damage to the list is not taken for damage to a file."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def sync_folder(folder: Path) -> None:
    """Have the disk know the names in a folder; where folders cannot be opened, this is left to the system."""
    if os.name == "posix":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def read_list(folder: Path, name: str = LISTED) -> dict[str, Any]:
    """The contents of a list.

    Raises:
        ValueError: it is not what `write_list` writes.
        OSError: it cannot be read.
    """
    try:
        found: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
        own = found.pop("sha256", None)  # older versions wrote none
        files = {str(place): (int(of["size"]), str(of["sha256"])) for place, of in found["files"].items()}
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{name} is no list of files") from error
    if found.get("format") != _FORMAT or own not in (None, _digest(found)):
        raise ValueError(f"{name} is not what was written")
    return {**found, "files": files}


def fault_of(folder: Path, *, name: str = LISTED, only: Sequence[str] | None = None) -> str | None:
    """What is wrong with the listed files of a folder, as the end of a sentence; None if they are as written.

    Args:
        folder: with its list.
        name: of the list.
        only: the files to look at, each the path of a file or of a folder; None for all. Those not listed are passed
            over: they were added later.
    """
    try:
        stat = (folder / name).stat()
        files = read_list(folder, name)["files"]
    except FileNotFoundError:
        return f"it has no {name}, which is written last"
    except OSError as error:
        return f"its {name} cannot be read ({error.strerror or error})"
    except ValueError:
        return f"its {name} cannot be read"
    stamps = [(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)]
    for place in files:
        if only is not None and not any(place == wanted or place.startswith(f"{wanted}/") for wanted in only):
            continue
        try:
            stat = (folder / place).stat()
        except (OSError, ValueError):
            return f"{place} is missing"
        stamps.append((place, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return _fault_of(folder.resolve(), name, tuple(stamps))


@functools.lru_cache(maxsize=256)
def _fault_of(folder: Path, name: str, stamps: tuple[tuple[str, int, int, int], ...]) -> str | None:
    """Files are read once as long as neither they nor their list change."""
    files = read_list(folder, name)["files"]
    for place, found, _, _ in stamps[1:]:
        size, digest = files[place]
        if found != size:
            return f"{place} has {found:,} bytes, and {size:,} were written"
        try:
            with (folder / place).open("rb") as opened:
                if hashlib.file_digest(opened, "sha256").hexdigest() != digest:
                    return f"{place} is not what was written"
        except OSError as error:
            return f"{place} cannot be read ({error.strerror or error})"
    return None


def refuse_changed(folder: Path, only: Sequence[str] | None = None, *, remedy: str) -> None:
    """Refuse files that are not as they were listed; a folder without a list was made by an older version and passes.

    Args:
        folder: of a run or a model.
        only: as in `fault_of`.
        remedy: what to do, a sentence.

    Raises:
        RunError: one has changed or is missing, or the list cannot be read.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "weights").write_text("1.0")
        >>> write_list(folder, [folder / "weights"])
        >>> _ = (folder / "weights").write_text("2.0")
        >>> refuse_changed(folder, remedy="Copy it again.")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        popmargin.errors.RunError: ...: weights is not what was written. Copy it again. If the change is meant, ...
    """
    if not (folder / LISTED).exists():
        return
    fault = fault_of(folder, only=only)
    if fault is not None:
        raise RunError(f"{folder}: {fault}. {remedy} If the change is meant, delete {folder / LISTED}.")
