"""YAML: read with errors that name file, line and remedy, and written so that it reads back unchanged."""

import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.scanner import ScannerError

from popmargin.errors import ConfigError
from popmargin.files import no_such_file
from popmargin.safe_reading import read_text

_DATA = (".jsonl", ".csv", ".tsv", ".parquet", ".gz", ".arrow")
_MOST_VALUES, _DEEPEST = 100_000, 100
MOST_YAML = 4 * 2**20
"""Bytes of a YAML file: it is parsed in Python, a megabyte or so a second."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but strict about duplicate keys and about aliases that multiply or never end."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        if self.flow_level >= _DEEPEST:
            problem = f"lists and mappings lie in one another more than {_DEEPEST} levels deep"
            raise ScannerError(None, None, problem, self.get_mark())
        super().fetch_flow_collection_start(TokenClass)

    def compose_document(self) -> yaml.Node | None:
        node = super().compose_document()
        if node is not None and _values(node, {}) > _MOST_VALUES:
            problem = f"its aliases expand to more than {_MOST_VALUES:,} values; write out what is needed"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                if key.value in seen:
                    problem = f"the key '{key.value}' appears twice, also in line {seen[key.value]}; keep one"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen[key.value] = line
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes text that the loader would read as a number."""


for _kind in (_Loader, _Dumper):  # YAML 1.1 reads 1e-5, without a decimal point, as text
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def _values(node: yaml.Node | None, known: dict[int, float]) -> float:
    """Number of values in a node with its aliases expanded; infinite if it contains itself."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = float("inf")
        parts: list[Any] = node.value
        inner = [part for pair in parts for part in pair] if isinstance(node, yaml.MappingNode) else parts
        known[id(node)] = 1 + sum(_values(part, known) for part in inner)
    return known[id(node)]


def parse_yaml(text: str) -> Any:
    """The value of a YAML text.

    Example:
        >>> parse_yaml("{learning_rate: 1e-5, compile: no}")
        {'learning_rate': 1e-05, 'compile': False}

    Raises:
        yaml.YAMLError: it is not YAML, has duplicate keys, is too deep, or aliases make it too large.
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError as error:
        raise yaml.YAMLError("lists and mappings lie in one another too deeply") from error
    except ValueError as error:  # a date such as 2023-13-45, or a number of thousands of digits
        raise yaml.YAMLError(f"a value cannot be read ({error}); put it in quotes if it is a text") from error


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Nested values as YAML, in order; `parse_yaml` reads it back unchanged."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_mapping(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty one gives an empty mapping.

    Raises:
        ConfigError: no such file, a folder, or not a YAML mapping; the message names file, line and remedy.
    """
    if file.is_dir():
        found = sorted(entry.name for pattern in ("*.yaml", "*.yml") for entry in file.glob(pattern))
        hint = f" Did you mean {file / found[0]}?" if found else ""
        raise ConfigError(f"{file} is a folder, not a YAML file.{hint} Give the file.")
    if file.suffix in _DATA:
        raise ConfigError(f"{file} contains data, not a configuration. Pass it with --data.train {file}")
    text = ""
    try:
        text = read_text(file, ConfigError, most=MOST_YAML)
        values = parse_yaml(text)
    except FileNotFoundError as error:
        raise ConfigError(no_such_file(file, what="configuration file").removesuffix(".")) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}{_explained(error, text)}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{file} must contain a mapping of keys to values, not {type(values).__name__}. Write 'key: value' lines."
        )
    return typing.cast("dict[str, Any]", values)


def _explained(error: yaml.YAMLError, text: str) -> str:
    """The location of an error in a YAML file, and the remedy."""
    lines = text.splitlines()
    mark = getattr(error, "problem_mark", None)
    tabs = [number for number, line in enumerate(lines, start=1) if "\t" in line[: len(line) - len(line.lstrip())]]
    if tabs and (mark is None or mark.line + 1 >= tabs[0]):
        return f", line {tabs[0]}: a tab. YAML needs spaces: indent each level by two spaces."
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    if mark is None:
        return f" is not YAML: {problem}."
    place = f" is not YAML: line {mark.line + 1}, column {mark.column + 1}: {problem}."
    shown = lines[mark.line].strip()[:80] if mark.line < len(lines) else ""
    return f"{place} The line is: {shown}" if shown else f"{place} Something is not closed before the end."
