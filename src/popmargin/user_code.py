"""User code in Python: one loader for objectives, regularizers, token selectors, rewards and everything else.

A specification is `path/to/file.py:name` or `package.module:name`. A file is reloaded whenever it, or a module next
to it that it imports, has changed. Modules in the working directory are found too.
"""

import hashlib
import importlib
import importlib.util
import linecache
import sys
import sysconfig
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from popmargin.code_permission import refuse_unnamed
from popmargin.errors import ConfigError, PopmarginError, RunError, did_you_mean

FORMS = "'path/to/file.py:name' or 'package.module:name'"


@dataclass(frozen=True)
class _Loaded:
    """A module made by this loader, with digests of its file and of the user modules it imported."""

    module: ModuleType
    contents: dict[Path, str]
    helpers: tuple[str, ...]


_LOADED: dict[Path, _Loaded] = {}


def load_object(spec: str, what: str) -> Any:
    """What a specification names.

    Args:
        spec: `path/to/file.py:name` or `package.module:name`; the name may have dots. Paths are relative to the working
            directory.
        what: what is loaded, for messages ("objective").

    Raises:
        ConfigError: the specification is not understood, there is no such file, module or name, or the code does not
            run; the message says where, and what to do.
        RunError: only a stored configuration names it, and not the user; see `code_permission`.

    Example:
        >>> load_object("math:sqrt", "reward")(4.0)
        2.0
    """
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise ConfigError(f"The {what} {spec!r} is not understood. Give your own as {FORMS}.{name_hint(spec)}")
    refuse_unnamed(spec, what)
    target: Any = _file(place, what) if place.endswith(".py") else _module(place, what)
    for part in name.split("."):
        try:
            target = getattr(target, part)
        except AttributeError as error:
            public = [known for known in dir(target) if not known.startswith("_")]
            raise ConfigError(f"The {what} {spec!r}: {place} has no '{part}'. {did_you_mean(part, public)}") from error
    return target


@contextmanager
def running(what: str) -> Generator[None]:
    """Turn errors from user code into messages with file and line.

    Raises:
        RunError: in place of an error from a user's file; our own errors, and those of other code, are unchanged.
    """
    try:
        yield
    except PopmarginError:
        raise
    except Exception as error:
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if written_by_user(frame.filename)]
        if not own:
            raise
        where = f"{own[-1].filename}, line {own[-1].lineno}"
        raise RunError(f"The {what} failed: {where}: {type(error).__name__}: {error}") from error


def home(function: Any) -> str:
    """Where a function is defined: its file, or its module if that has none (a notebook)."""
    name = str(getattr(function, "__module__", ""))
    return str(getattr(sys.modules.get(name), "__file__", None) or name)


def name_hint(spec: str) -> str:
    """A hint if a specification is a file without a name in it; otherwise empty."""
    known = Path(spec).expanduser()
    return f" The file exists; add the name in it: '{spec}:NAME'." if known.is_file() else ""


def _file(place: str, what: str) -> ModuleType:
    path = Path(place).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"No such file for the {what}: {place} (looked in {Path.cwd()}). Give a path relative to it, or an "
            f"absolute one."
        )
    path = path.resolve()
    loaded = _unchanged(path)
    if loaded is not None:
        return loaded
    # A unique name per file and version: classes look up their module by it.
    name = f"popmargin_user_{path.stem}_{_content(path, str(path))[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    return _execute(spec, path, place, what)


def _module(name: str, what: str) -> ModuleType:
    if "/" in name or "\\" in name:
        raise ConfigError(f"The {what} {name!r} is not a module. File names end in .py: '{name}.py:NAME'.")
    known = sys.modules.get(name)
    ours = {loaded.module.__name__: path for path, loaded in _LOADED.items()}
    if known is not None and name not in ours:
        return known  # the program's own; the program decides when to reload it
    if name in ours:
        unchanged = _unchanged(ours[name])
        if unchanged is not None and unchanged is known:
            return unchanged
        sys.modules.pop(name, None)
    with _importing(Path.cwd(), what, name):
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    path = Path(spec.origin).resolve() if spec.origin and spec.origin.endswith(".py") else None
    if path is None or not path.is_relative_to(Path.cwd()):
        with _importing(Path.cwd(), what, name):
            return importlib.import_module(name)
    return _execute(spec, path, name, what)


def _unchanged(path: Path) -> ModuleType | None:
    """The module loaded earlier, if neither its file nor what it imports has changed since."""
    loaded = _LOADED.get(path)
    if loaded is None or any(not file.is_file() or _content(file) != old for file, old in loaded.contents.items()):
        return None
    return loaded.module


def _content(path: Path, salt: str = "") -> str:
    return hashlib.sha256(salt.encode() + path.read_bytes()).hexdigest()


def _execute(spec: ModuleSpec, path: Path, place: str, what: str) -> ModuleType:
    """Run a file. Its source is compiled here: Python's own cache misses a quick edit of the same length."""
    for loaded in _LOADED.values():  # modules of the same name next to another file, or of an older version
        for helper in loaded.helpers:
            sys.modules.pop(helper, None)
    linecache.checkcache(str(path))
    importlib.invalidate_caches()
    module = importlib.util.module_from_spec(spec)
    before = set(sys.modules)
    sys.modules[spec.name] = module
    source = path.read_bytes()
    try:
        with _importing(path.parent, what, place, path):
            exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))
    except BaseException:
        sys.modules.pop(spec.name, None)
        raise
    package, _, last = spec.name.rpartition(".")
    if package in sys.modules:
        setattr(sys.modules[package], last, module)
    folders = {path.parent, Path.cwd()}
    helpers = {name: file for name in set(sys.modules) - before if (file := _own_file(name, folders)) and file != path}
    contents = {path: hashlib.sha256(source).hexdigest()} | {file: _content(file) for file in helpers.values()}
    _LOADED[path] = _Loaded(module, contents, tuple(helpers))
    return module


def _own_file(name: str, folders: set[Path]) -> Path | None:
    """The file of a module in one of these folders, excluding installed packages."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None or not file.endswith(".py") or not written_by_user(file):
        return None
    path = Path(file).resolve()
    return path if any(path.is_relative_to(folder) for folder in folders) else None


def written_by_user(file: str) -> bool:
    """Whether a file is neither installed, nor Python's own, nor ours."""
    path = Path(file)
    ours = (Path(__file__).parent, Path(sysconfig.get_paths()["stdlib"]))
    return "site-packages" not in path.parts and not any(path.is_relative_to(folder) for folder in ours)


@contextmanager
def _importing(folder: Path, what: str, place: str, path: Path | None = None) -> Generator[None]:
    """Let imports find modules in the folder and in the working directory; errors become messages."""
    path_before, bytecode_before = list(sys.path), sys.dont_write_bytecode
    sys.path[:0] = list(dict.fromkeys([str(folder), str(Path.cwd())]))
    sys.dont_write_bytecode = True
    try:
        yield
    except PopmarginError as error:
        raise type(error)(f"{_where(error, place, path)}: {error}") from error
    except SyntaxError as error:
        where = f"{error.filename or place}, line {error.lineno}"
        raise ConfigError(f"The {what} {place} is not Python ({where}: {error.msg}). Fix this line.") from error
    except ModuleNotFoundError as error:
        raise ConfigError(_missing(error, what, place, path)) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"The {what} {place} cannot be imported: {_where(error, place, path)}: {type(error).__name__}: {error}. "
            "Fix this line; code that only a script should run goes under if __name__ == '__main__'."
        ) from error
    finally:
        sys.path[:] = path_before
        sys.dont_write_bytecode = bytecode_before


def _missing(error: ModuleNotFoundError, what: str, place: str, path: Path | None) -> str:
    if path is None and error.name is not None and f"{place}.".startswith(f"{error.name}."):
        return (
            f"The {what} {place!r}: there is no module '{error.name}'. Is it on PYTHONPATH or in the working "
            f"directory {Path.cwd()}? If not, install it, or give the file: 'path/to/file.py:NAME'."
        )
    return (
        f"The {what} {place} needs '{error.name}', which is not installed ({_where(error, place, path)}). Install "
        f"it, or put the module next to the file."
    )


def _where(error: BaseException, place: str, path: Path | None) -> str:
    """File and line in the user's code at which the error occurred."""
    folder = str(path.parent if path is not None else Path.cwd())
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(folder) and written_by_user(frame.filename)]
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else place
