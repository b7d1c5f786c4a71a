"""Files that a stage reads although no input names them: the user's code, models, and files in settings."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from popmargin.errors import ConfigError
from popmargin.label.store.address import is_store
from popmargin.rewards.naming import read_name
from popmargin.safe_reading import read_json
from popmargin.user_code import home, written_by_user
from popmargin.user_files import file_of, files_of

MODEL_FIELDS = ("model.path", "reference.model", "tokens.reference", "options.reference")
"""Ends of settings that name a model's folder; others are inputs, or named by a prefix (`model:`, `implicit:`)."""
NO_INPUTS = ("cache", "output", "store", "report_to")
"""Names of settings whose files are written, or grow by themselves, and so are no inputs of a stage."""
_ADAPTER = "adapter_config.json"


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
        settings: of the stage. Every text counts that names code (`file.py:NAME`), a reward model (`model:PATH`), a
            policy (`implicit:RUN@REFERENCE`), or an existing file by a path or a name with a suffix; of folders, those
            in `MODEL_FIELDS`. Label stores and the names in `NO_INPUTS` do not count.

    Returns:
        Name → file or folder that exists: files by the setting that names them, code relative to its folder.
    """
    found: dict[str, Path] = {}
    own = Path(home(function))
    if own.is_file() and written_by_user(str(own)):
        found |= _code(own)
    for key, text in _texts(settings):
        spec = text.removeprefix("reward:")
        file = file_of(spec)
        if file is not None:
            found |= _code(file)
        elif spec.startswith(("model:", "implicit:")):
            found |= {f"model/{name}": Path(name) for name in _models(spec) if Path(name).exists()}
        elif (place := _named(key, text)) is not None:
            found[key] = place
    return found | with_bases(found)


def with_bases(places: Mapping[str, object]) -> dict[str, Path]:
    """The models below adapters among some folders: an adapter's weights alone do not say what it does."""
    found: dict[str, Path] = {}
    for name, place in places.items():
        if isinstance(place, Path):
            base = _base(place) or _base(place / "model")
            found |= {} if base is None else {f"{name}/base": base}
    return found


def _base(folder: Path) -> Path | None:
    try:
        named = read_json(folder / _ADAPTER).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        return None
    return Path(named) if isinstance(named, str) and Path(named).is_dir() else None


def _named(key: str, text: str) -> Path | None:
    """The file, or the folder of a model, that a setting names; None where it names neither."""
    if key.rpartition(".")[2] in NO_INPUTS or is_store(text) or "\n" in text:
        return None
    place = Path(text).expanduser()
    try:
        if place.is_dir():
            return place if key.endswith(MODEL_FIELDS) else None
        return place if (place.suffix or "/" in text) and place.is_file() else None
    except OSError:  # too long for a name
        return None


def _code(file: Path) -> dict[str, Path]:
    return {f"code/{name}": path for name, path in files_of(file).items()}


def _models(spec: str) -> list[str]:
    try:
        named = read_name(spec)
    except ConfigError:  # reported by what uses it
        return []
    return [name for name in (named.place, named.reference) if name]


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in settings, with the dotted name of its setting."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, one in cast(Mapping[str, Any], value).items():
            if name not in NO_INPUTS:
                yield from _texts(one, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for place, one in enumerate(cast(list[Any], value)):
            yield from _texts(one, f"{key}.{place}" if key else str(place))
