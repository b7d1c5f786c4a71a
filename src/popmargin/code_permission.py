"""Which user code may run: what the user names in this process, never what only a stored configuration names.

A run directory, or the folder of a study, can come from anyone, and its configuration can name any file or module. So
whatever reads one notes the code that it names (`note_stored`), and the loader of user code (`user_code`) refuses that
until the user names it too: on the command line, in a YAML file of this command, or in Python.
"""

import hashlib
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from popmargin.errors import ConfigError, RunError
from popmargin.files import no_such_file
from popmargin.user_files import file_of, files_of

_NAMED: set[str] = set()
"""Files, modules, and names in them that the user named in this process, as `_keys` writes them."""
_STORED: dict[str, tuple[Path, str]] = {}
"""A name in a file or module → the stored configuration that names it, and its field."""


def note_named(*values: Any) -> None:
    """Note the code that the user names now, anywhere in some values: `file.py`, `file.py:name` or `module:name`."""
    for value in values:
        for _, text in _texts(value):
            _NAMED.update(_keys(text)[-1:])


def note_given(values: Any) -> None:
    """Note the code in a configuration that a caller made; what was read from a stored one needs permission still."""
    for _, text in _texts(values):
        key = _keys(text)[-1:]
        _NAMED.update(key if key and key[0] not in _STORED else ())


def allow_code(files: Iterable[str | Path]) -> None:
    """Allow whole files or modules to run in this process, whatever names them.

    Args:
        files: `path/to/file.py`, or the name of a module.

    Raises:
        ConfigError: there is no such file.
    """
    for one in map(str, files):
        if one.endswith(".py") and not Path(one).expanduser().is_file():
            raise ConfigError(f"--code: {no_such_file(one)}")
        _NAMED.add(_keys(f"{one}:all")[0])


def code_flags(values: Any) -> str:
    """The flags that allow the files of code in a configuration, each after a space, for a command to run next.

    Example:
        >>> code_flags({"objective": {"name": "my_objective.py:hinge"}, "evaluation": {"reward": None}})
        ' --code my_objective.py'
    """
    places = (text.rpartition(":")[0].removeprefix("reward:") for _, text in _texts(values))
    return "".join(f" --code {shlex.quote(place)}" for place in dict.fromkeys(places) if place.endswith(".py"))


def note_stored(values: Any, source: Path) -> None:
    """Note the code that a stored configuration names.

    Args:
        values: of the configuration, nested.
        source: its file.
    """
    for field, text in _texts(values):
        for key in _keys(text)[1:]:
            _STORED.setdefault(key, (source, field))


def refuse_unnamed(spec: str, what: str) -> None:
    """Refuse code that a stored configuration names and the user does not; otherwise it counts as named from now on.

    Args:
        spec: `file.py:name` or `module:name`.
        what: what it is, for the message ("objective").

    Raises:
        RunError: it lists all such code of the configuration, with the way to allow it.
    """
    place, named = _keys(spec)
    if place in _NAMED or named in _NAMED:
        return
    if named not in _STORED:
        _NAMED.add(named)
        return
    source, _ = _STORED[named]
    unnamed = {
        key: field
        for key, (file, field) in _STORED.items()
        if file == source and not {key, key.rpartition(":")[0]} & _NAMED and _is_code(key)
    }
    unnamed.setdefault(named, what)
    lines = [f"  {field} is {key}{_contents(key)}\n" for key, field in unnamed.items()]
    places = dict.fromkeys(key.rpartition(":")[0] for key in unnamed)
    flags = " ".join(f"--code {shlex.quote(place)}" for place in places)
    raise RunError(
        f"{source} names code that this command does not name, so it was not run:\n{''.join(lines)}Read it. If you "
        f"trust it, repeat the command with {flags} (in Python: allow_code=)."
    )


def _texts(value: Any, field: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str | Path):
        yield field, str(value)
    elif isinstance(value, Mapping):
        for name, one in cast(Mapping[Any, Any], value).items():
            yield from _texts(one, f"{field}.{name}" if field else str(name))
    elif isinstance(value, list | tuple | set | frozenset):
        for one in cast(Iterable[Any], value):
            yield from _texts(one, field)


def _keys(text: str) -> list[str]:
    """The file or module that a text names, and the name in it; the first alone for a file, none for other texts."""
    while text.startswith("reward:"):
        text = text.removeprefix("reward:")
    place, colon, name = text.rpartition(":")
    if not colon:
        return [_file(text)] if text.endswith(".py") else []
    key = _file(place) if place.endswith(".py") else _module(text)
    return [key, f"{key}:{name}"]


def _file(place: str) -> str:
    try:
        return str(Path(place).expanduser().resolve())
    except (OSError, RuntimeError, ValueError):  # no path at all
        return place


def _module(spec: str) -> str:
    """The file of a module in the working directory, otherwise its name."""
    try:
        file = file_of(spec)
    except (OSError, ValueError):
        file = None
    return spec.rpartition(":")[0] if file is None else str(file)


def _is_code(key: str) -> bool:
    """Whether a text with a colon is the name of code, not a split (`data:train`), an address or a model."""
    return Path(key.rpartition(":")[0]).suffix == ".py"


def _contents(key: str) -> str:
    """The hash of a file, and what it imports from beside it, for a message."""
    file = Path(key.rpartition(":")[0])
    if file.suffix != ".py" or not file.is_file():
        return ""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    beside = [name for name, one in files_of(file).items() if one != file]
    return f" (SHA-256 {digest[:16]}…{', imports ' + ', '.join(beside) if beside else ''})"
