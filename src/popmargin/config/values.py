"""Nested plain values of a configuration: read, overridden by flags, merged, and written."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from popmargin.code_permission import note_named, note_stored
from popmargin.config.checked import GONE
from popmargin.errors import ConfigError
from popmargin.yaml_file import parse_yaml, read_mapping


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested values, the inverse of `from_dict`."""
    return dataclasses.asdict(config)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file that the user names, and with it the code that it names (see `code_permission`).

    Raises:
        ConfigError: no such file, or not a YAML mapping; the message names file and line.
    """
    values = read_mapping(Path(path))
    note_named(values)
    return values


def read_saved(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file saved by a run or a study, perhaps by an earlier version: without removed keys.

    The code that it names may not run unless the user names it too (see `code_permission`).
    """

    def kept(values: Mapping[str, Any], section: str) -> dict[str, Any]:
        return {
            key: kept(typing.cast("Mapping[str, Any]", value), key) if isinstance(value, Mapping) else value
            for key, value in values.items()
            if f"{section}.{key}" not in GONE
        }

    values = read_mapping(Path(path))
    note_stored(values, Path(path))
    return kept(values, "")


def opened(key: str, value: Any) -> Any:
    """The value of a key; of `task`, which may be a name alone, the mapping that takes options."""
    return {"name": value} if key == "task" and isinstance(value, str) else value


def apply_overrides(values: dict[str, Any], flags: Sequence[str]) -> dict[str, Any]:
    """A copy of nested values with `--any.field value` (or `--any.field=value`) flags applied; values are YAML.

    Example:
        >>> apply_overrides({"train": {"epochs": 1}}, ["--train.epochs", "2", "--objective.name=dpo"])
        {'train': {'epochs': 2}, 'objective': {'name': 'dpo'}}

    Raises:
        ConfigError: a flag without a value, or one that goes through something other than a mapping.
    """
    result = merge({}, values)
    rest = list(flags)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("--"):
            raise ConfigError(f"Expected a flag such as --train.learning_rate before '{flag}'.")
        key, equals, text = flag[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"{flag} needs a value.")
            text = rest.pop(0)
        node = result
        *parents, last = key.split(".")
        for parent in parents:
            if node.get(parent) is None:
                node[parent] = {}
            node[parent] = node = opened(parent, node[parent])
            if not isinstance(node, dict):
                raise ConfigError(f"{flag}: '{parent}' is not a mapping.")
        try:
            node[last] = parse_yaml(text)
            note_named(node[last])
        except yaml.YAMLError as error:
            raise ConfigError(f"{flag}: '{text}' is not YAML. Quote it, as in \"{flag} '[0, 1]'\".") from error
    return result


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested values with changes applied; a changed `name` or `source` drops the old one's options.

    Example:
        >>> merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}})
        {'a': {'b': 3, 'c': 2}}
        >>> merge({"task": "images"}, {"task": {"size": 8}})
        {'task': {'name': 'images', 'size': 8}}
    """
    result: dict[str, Any] = {k: merge({}, v) if isinstance(v, Mapping) else v for k, v in base.items()}
    for key, value in changes.items():
        old = opened(key, result.get(key)) if isinstance(value, Mapping) else None
        if isinstance(value, Mapping) and isinstance(old, Mapping) and not _renamed(old, value):
            result[key] = merge(typing.cast("Mapping[str, Any]", old), typing.cast("Mapping[str, Any]", value))
        else:
            result[key] = merge({}, typing.cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else value
    return result


def _renamed(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> bool:
    return any(new.get(part) not in (None, old.get(part)) for part in ("name", "source"))
