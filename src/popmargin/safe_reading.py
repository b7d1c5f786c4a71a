"""Files read whole: regular ones, no larger than a limit, as UTF-8 and as JSON that is not too deep.

A file that a user names can be anything. A pipe would block, a device never ends, a bomb unpacks to more than memory
holds, and deep JSON ends Python's recursion: each becomes an error that names the file and the remedy.
"""

import json
import stat
from pathlib import Path
from typing import IO, Any, cast

from popmargin.errors import PopmarginError, RunError

MOST_TEXT = 64 * 2**20
"""Bytes of a text that is read whole, such as a template or a configuration."""
MOST_WHOLE = 2**30
"""Bytes, unpacked, of data that must be read whole (`.json`, UTF-16, a packed Parquet file) and of one image."""
MOST_LINE = 2**28
"""Bytes, unpacked, of one line or cell of data."""

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def odd_kind(path: str | Path) -> str | None:
    """What a path is if it is there and no regular file: a pipe, a socket, a device or a folder; links are followed.

    Example:
        >>> odd_kind("."), odd_kind("/dev/null"), odd_kind("nowhere")
        ('a folder', 'a device', None)
    """
    try:
        return _KINDS.get(stat.S_IFMT(Path(path).stat().st_mode))
    except (OSError, ValueError):
        return None


def check_regular(path: str | Path, error: type[PopmarginError]) -> None:
    """Refuse what is there and no regular file, before opening it blocks.

    Raises:
        PopmarginError: of the given type.
    """
    kind = odd_kind(path)
    if kind is not None:
        raise error(f"{path} is {kind}, not a file. Give a regular file.")


def read_bounded(file: IO[bytes], path: str | Path, most: int, error: type[PopmarginError], remedy: str = "") -> bytes:
    """The rest of an open file, unless it is longer than so many bytes.

    Raises:
        PopmarginError: of the given type.
    """
    data = file.read(most + 1)
    if len(data) > most:
        raise error(f"{path} has more than {most:,} bytes{remedy or '. Give a smaller file.'}")
    return data


def read_text(path: str | Path, error: type[PopmarginError], *, what: str = "", most: int = MOST_TEXT) -> str:
    """The text of a file in UTF-8, without a byte order mark; line ends become line feeds.

    Args:
        path: the file.
        error: the type of errors.
        what: comes before the file in messages.
        most: bytes that it may have.

    Raises:
        FileNotFoundError: there is no such file.
        PopmarginError: of the given type; it names the file and the remedy.
    """
    named = f"{what} {path}" if what else str(path)
    kind = odd_kind(path)
    if kind is not None:
        raise error(f"{named} cannot be read: it is {kind}, not a file. Give a regular file.")
    try:
        with Path(path).open("rb") as file:
            data = read_bounded(file, named, most, error)
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as failed:
        raise error(f"{named} cannot be read: byte {failed.start} is not UTF-8. Save the file as UTF-8.") from failed
    except (OSError, ValueError) as failed:
        if isinstance(failed, PopmarginError):
            raise
        said = getattr(failed, "strerror", None) or failed
        raise error(f"{named} cannot be read ({said}). Check the path and its permissions.") from failed
    if "\0" in text:
        raise error(f"{named} cannot be read: it holds NUL bytes, so it is no text. Save the file as UTF-8.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON, or lists and objects lie in one another too deeply.

    Example:
        >>> parse_json("[" * 100_000)
        Traceback (most recent call last):
        ValueError: lists and objects lie in one another too deeply
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("lists and objects lie in one another too deeply") from error


def read_json(path: str | Path, remedy: str = "It is damaged: restore it, or make it again.") -> Any:
    """The value in a JSON file that popmargin or a library wrote.

    Args:
        path: the file.
        remedy: what to do where it is not JSON, a sentence.

    Raises:
        FileNotFoundError: there is no such file.
        RunError: it is no regular file, too large, or not JSON; the message names the file.
    """
    text = read_text(path, RunError, most=MOST_LINE)
    try:
        return parse_json(text)
    except ValueError as error:
        raise RunError(f"{path} is not JSON ({error}). {remedy}") from error


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """The object in a JSON file that has to be there.

    Args:
        path: the file.
        remedy: what to do where it cannot be read, a sentence.

    Raises:
        RunError: there is no such file, or it is not a JSON object.

    Example:
        >>> read_object(Path("nowhere/run.json"), "Train again.")
        Traceback (most recent call last):
        popmargin.errors.RunError: nowhere/run.json cannot be read (No such file or directory). Train again.
    """
    try:
        found = read_json(path, remedy)
    except FileNotFoundError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}). {remedy}") from error
    if not isinstance(found, dict):
        raise RunError(f"{path} is not a JSON object. {remedy}")
    return cast("dict[str, Any]", found)
