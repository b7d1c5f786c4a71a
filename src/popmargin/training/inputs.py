"""The files named in a run's configuration, and differences between two configurations."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from popmargin.code_permission import note_stored
from popmargin.config import RunConfig, from_dict, opened, to_dict
from popmargin.config_names import EMBEDDED, PAYING
from popmargin.errors import ConfigError

_FIELDS = (
    "task",
    "task.name",
    "model.path",
    "data.train",
    "data.test",
    "pop.edges",
    "pop.scale",
    "reference.model",
    "reference.cache",
    "data.cache",
    "tokens.reference",
    "tokens.name",
    "objective.name",
    "margin.source",
    "evaluation.reward",
    "evaluation.also",
    "evaluation.reward_options.cache",
    "evaluation.reward_options.template",
    "evaluation.reward_options.reference",
)
_DATA = ("data.train", "data.test")  # several names separated by commas, and splits
_CODE = {
    "task": "task",
    "task.name": "task",
    "objective.name": "objective",
    "margin.source": "margin",
    "tokens.name": "tokens",
    "evaluation.reward": "reward",
}
"""Fields that may name user code, and where a run directory keeps a copy of it."""
_ALSO = "evaluation.also"
"""A list of names of user code; the copy of each is kept by its number."""
_TEMPLATE = "evaluation.reward_options.template"
"""A file of the user's own that is no code; its copy is kept like one."""
_PAID = tuple(f"evaluation.reward_options.{name}" for name in PAYING)
_OWN = ("output", "reference.cache", "data.cache", "data.workers", *_PAID)  # they do not affect what is trained
_PREFIXES = ("model:", "implicit:", "sqlite:///")
_FREE = ("reference.tokens_per_batch", "model.path", "reference.model", "data.train", "data.test", "tokens.reference")
"""What an evaluation may name otherwise: where things lie, whose content is compared."""
_READING = ("data.format", "data.pairs", "data.min_gap", "data.bad_rows", "data.contradictions", "data.columns")
"""How a file is read; another file may be read differently."""


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The configuration with absolute paths for files and folders that exist here.

    Paths in a configuration are relative to the working directory; those stored in a run directory must mean the same
    from any other. Anything that is not a file or folder here, such as a hub id or an installed module, is unchanged.
    """
    values = to_dict(config)
    make_absolute(values)
    values["output"] = str(Path(config.output).absolute())
    return from_dict(RunConfig, values)


def make_absolute(values: dict[str, Any]) -> None:
    """The same, in place, for some of a configuration's settings as plain values, except `output`."""
    for name in _FIELDS:
        how = _absolute_data if name in _DATA else _absolute_code if name in (*_CODE, _ALSO) else _absolute
        _change(values, name.split("."), how)
    for regularizer in values.get("regularizers") or []:
        _change(regularizer, ["name"], _absolute_code)
    _change(values, ["reference", "cache"], lambda cache: str(Path(cache).absolute()))


def _change(values: Any, keys: Sequence[str], change: Callable[[str], str]) -> None:
    for key in keys[:-1]:
        values = values.get(key) if isinstance(values, dict) else None
    last = keys[-1]
    if not isinstance(values, dict) or last not in values:
        return
    node = cast("dict[str, Any]", values)
    if isinstance(node[last], str):
        node[last] = change(node[last])
    elif isinstance(node[last], list):
        node[last] = [change(item) if isinstance(item, str) else item for item in cast("list[Any]", node[last])]


def _absolute(text: str) -> str:
    prefix = next((prefix for prefix in _PREFIXES if text.startswith(prefix)), "")
    run, at, reference = text.removeprefix(prefix).partition("@")
    if prefix == "implicit:" and at and not Path(f"{run}@{reference}").exists():
        return f"{_absolute(f'{prefix}{run}')}@{_absolute(reference)}"
    place, mark, rest = _parts(text.removeprefix(prefix))
    if text in EMBEDDED or not place or "://" in place or Path(place).is_absolute():
        return text
    found = Path(place).exists() or (any(sign in place for sign in "*?[") and any(Path().glob(place)))
    return f"{prefix}{Path(place).absolute()}{mark}{rest}" if found else text


def _absolute_data(text: str) -> str:
    """As `_absolute`, also for comma-separated names and `name:split`."""
    if Path(text).exists():
        return _absolute(text)
    names = [name.strip() for name in text.split(",")]
    if len(names) > 1:
        return ",".join(map(_absolute_data, names))
    place, mark, split = text.rpartition(":")
    return f"{_absolute(place)}{mark}{split}" if mark and Path(place).exists() else _absolute(text)


def _absolute_code(text: str) -> str:
    """As `_absolute`; a module in the working directory becomes its file."""
    module, _, name = text.partition(":")
    file = Path(f"{module}.py").absolute()
    known = getattr(sys.modules.get(module), "__file__", None)
    if not module.isidentifier() or module in ("model", "implicit", "judge") or not name or not file.is_file():
        return _absolute(text)
    return text if known is not None and Path(known).resolve() != file.resolve() else f"{file}:{name}"


def with_kept_code(config: RunConfig, folder: Path) -> RunConfig:
    """The configuration with a run directory's copies of user code whose files are gone.

    Args:
        config: the run's, with absolute paths.
        folder: where the copies are, one folder per field.
    """
    values = to_dict(config)

    def kept(field: str) -> Callable[[str], str]:
        def look(text: str) -> str:
            place, mark, name = _parts(text)
            if (mark != ":" and field != "template") or Path(place).is_file():
                return text
            copies = sorted((folder / field).rglob(Path(place).name))
            return f"{copies[0].absolute()}{mark}{name}" if copies else text

        return look

    _change_code(values, kept)
    note_stored(values, folder.parent / "config.yaml")
    return from_dict(RunConfig, values)


def with_code_of(config: RunConfig, stored: RunConfig) -> RunConfig:
    """The configuration with the user's own code under the names that another configuration of the same run has.

    A run that goes on with its copies keeps the names of the files themselves, which mean the same anywhere else.
    """
    values, names = to_dict(config), dict[str, str]()

    def note(field: str) -> Callable[[str], str]:
        return lambda text: names.setdefault(field, text)

    _change_code(to_dict(stored), note)
    _change_code(values, lambda field: lambda text: names.get(field, text))
    return from_dict(RunConfig, values)


def _change_code(values: dict[str, Any], change: Callable[[str], Callable[[str], str]]) -> None:
    """Change the names of the user's own code, in place; `change` is asked by the folder of each field's copies."""
    for name, field in (*_CODE.items(), (_TEMPLATE, "template")):
        _change(values, name.split("."), change(field))
    for number, regularizer in enumerate(values["regularizers"]):
        _change(regularizer, ["name"], change(f"regularizers.{number}"))
    also = values["evaluation"]["also"]
    also[:] = [change(f"also.{number}")(text) for number, text in enumerate(also)]


def _parts(text: str) -> tuple[str, str, str]:
    """A path, and the name inside it: `labels.db#project`, `file.py:function`."""
    if ".py:" in text:
        place, _, attribute = text.rpartition(":")
        return place, ":", attribute
    return text.partition("#")


def input_paths(config: RunConfig) -> dict[str, Path]:
    """The files and folders that a run reads, by field."""
    found: dict[str, Path] = {}

    def note(name: str) -> Callable[[str], str]:
        def look(text: str) -> str:
            prefix = next((prefix for prefix in _PREFIXES if text.startswith(prefix)), "")
            place = Path(_parts(text.removeprefix(prefix))[0])
            if text not in EMBEDDED and "://" not in text and place.exists():
                found[name if name not in found else f"{name} ({text})"] = place
            return text

        return look

    values = to_dict(config)
    for name in _FIELDS:
        if name not in ("reference.cache", "data.cache"):
            _change(values, name.split("."), note(name))
    for number, regularizer in enumerate(values["regularizers"]):
        _change(regularizer, ["name"], note(f"regularizers[{number}].name"))
    return found


def refuse_inputs_inside(config: RunConfig, folder: Path) -> None:
    """Before a folder is deleted: no input may be inside it.

    Raises:
        ConfigError: one is; the message names the field.
    """
    for name, place in input_paths(config).items():
        if place.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(
                f"--overwrite would delete {place}, which {name} refers to, along with the run in {folder}. Choose "
                "another output, or move it elsewhere."
            )


def differences(before: RunConfig, now: RunConfig) -> dict[str, str]:
    """The fields in which two configurations differ, by name, each as `before → now`.

    Paths are compared as absolute ones; the locations of output and caches do not count.
    """
    whole = [to_dict(with_absolute_paths(config)) for config in (before, now)]
    if any(isinstance(values["task"], dict) for values in whole):
        whole = [values | {"task": opened("task", values["task"])} for values in whole]
    old, new = map(flat, whole)
    missing = "not set"
    return {
        name: f"{old.get(name, missing)} → {new.get(name, missing)}"
        for name in [*old, *(name for name in new if name not in old)]
        if name not in _OWN and old.get(name, missing) != new.get(name, missing)
    }


def refuse_other_run(own: RunConfig, config: RunConfig) -> None:
    """Refuse to evaluate a run with settings that it was not trained with.

    Raises:
        ConfigError: it names the fields.
    """
    changed = differences(own, config)
    other_data = "data.test" in changed

    def free(name: str) -> bool:
        reading = name in _READING or name.startswith("data.columns.")
        return name in _FREE or name.startswith("evaluation.") or (other_data and reading)

    wrong = {name: change for name, change in changed.items() if not free(name)}
    if wrong:
        raise ConfigError(
            f"A run is evaluated with the settings it was trained with; {', '.join(wrong)} cannot be changed:\n"
            + "".join(f"  {name}: {change}\n" for name, change in wrong.items())
            + "You can change evaluation.…, the paths of models and data, and the held-out data with --data.test."
        )


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= flat(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def with_data(config: RunConfig, **changes: Any) -> RunConfig:
    """The configuration with other fields of `data`."""
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))
