"""Files that a stage reads although no input names them: the user's code, and models and runs of rewards."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from popmargin.errors import ConfigError
from popmargin.rewards.naming import read_name
from popmargin.user_code import home, written_by_user
from popmargin.user_files import file_of, files_of


def place_of(function: Callable[..., Any]) -> str:
    """How manifests name a function: by its module, or its file where the module's name changes with the content."""
    module = function.__module__
    loaded = sys.modules.get(module)
    if module.startswith("popmargin_user_") and loaded is not None:
        return f"{Path(str(loaded.__file__)).name}:{function.__qualname__}"
    return f"{module}.{function.__qualname__}"


def named_files(function: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Path]:
    """Files whose content decides what a stage does.

    Args:
        function: of the stage; a user's own counts with the modules that it imports.
        settings: of the stage; every text that names code (`file.py:NAME`), a reward model (`model:PATH`) or a policy
            (`implicit:RUN@REFERENCE`) counts.

    Returns:
        Name → file or folder that exists; names of code are relative to its folder.
    """
    found: dict[str, Path] = {}
    own = Path(home(function))
    if own.is_file() and written_by_user(str(own)):
        found |= _code(own)
    for text in _texts(settings):
        spec = text.removeprefix("reward:")
        file = file_of(spec)
        if file is not None:
            found |= _code(file)
        elif spec.startswith(("model:", "implicit:")):
            found |= {f"model/{name}": Path(name) for name in _models(spec) if Path(name).exists()}
    return found


def _code(file: Path) -> dict[str, Path]:
    return {f"code/{name}": path for name, path in files_of(file).items()}


def _models(spec: str) -> list[str]:
    try:
        named = read_name(spec)
    except ConfigError:  # reported by what uses it
        return []
    return [name for name in (named.place, named.reference) if name]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in cast(Mapping[str, Any], value).values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in cast(list[Any], value):
            yield from _texts(one)
