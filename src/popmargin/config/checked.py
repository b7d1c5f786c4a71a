"""Configuration classes whose values are always validated, and the error messages for invalid ones.

pydantic validates; its errors become sentences with the field, the value, what is allowed and the nearest key.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pydantic.dataclasses
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from popmargin.config.described import bounds_of, choices_of, descriptions, kind_of, schema_of, settings_of
from popmargin.config_names import suggestion
from popmargin.errors import ConfigError, did_you_mean

GONE = {"evaluation.bootstrap": "intervals now come from formulas, not from resampling."}
"""Removed keys, and why they are gone."""
_PARTS = {"objective": "name", "regularizers": "name", "tokens": "name", "margin": "source"}
"""The keys of a run that name a part, and the key inside with its name."""
_OF_ALL: list[Any] = []
_OUT_OF_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "share_or_count"}

ConfigT = typing.TypeVar("ConfigT")


def _describe(schema: dict[str, Any], kind: type[Any]) -> None:
    """Put a class's docstring into its JSON schema, field by field."""
    schema["description"] = (kind.__doc__ or "").partition("\n")[0]
    for name, text in descriptions(kind).items():
        schema["properties"][name] |= {"description": text}


@typing.dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,))
def section(name: str = "", *, of_all: bool = False) -> Callable[[type[ConfigT]], type[ConfigT]]:
    """Make a frozen dataclass of settings; invalid values raise a ConfigError wherever they are set.

    Args:
        name: prefix of its fields' names in messages, without a dot.
        of_all: it contains all settings of a run, among which an unknown key is looked up.

    Example:
        >>> from popmargin.bounds import Count
        >>> @section("model")
        ... class Example:
        ...     rank: Count = 0
        >>> Example(rank=-1)
        Traceback (most recent call last):
            ...
        popmargin.errors.ConfigError: model.rank must be at least 0, not -1.
    """
    config = ConfigDict(extra="forbid", allow_inf_nan=False, json_schema_extra=_describe)  # pyright: ignore

    def made(kind: type[ConfigT]) -> type[ConfigT]:
        checked: Any = pydantic.dataclasses.dataclass(kind, frozen=True, kw_only=True, config=config)
        plain = checked.__init__

        @functools.wraps(plain)
        def init(self: Any, **values: Any) -> None:
            try:
                plain(self, **values)
            except ValidationError as error:
                raise ConfigError(_sentences(error, kind, name)) from None

        checked.__init__ = init
        if of_all:
            _OF_ALL.append(checked)
        return checked

    return made


def from_dict(kind: type[ConfigT], values: Any, where: str = "") -> ConfigT:
    """Build a configuration from nested plain values.

    Raises:
        ConfigError: unknown keys (with the nearest known one), or invalid values.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'The configuration'} must be a mapping of keys to values, not {values!r}.")
    return coerce(kind, values, where)


def coerce(annotation: Any, value: Any, where: str) -> Any:
    """A plain value as the annotated type; whole configurations, or a single option of a component.

    Raises:
        ConfigError: it is invalid; the message names the field, the value and what is allowed.
    """
    whole = dataclasses.is_dataclass(annotation)
    options = None if whole else ConfigDict(allow_inf_nan=False, arbitrary_types_allowed=True)
    try:
        return TypeAdapter(annotation, config=options).validate_python(value, strict=None if whole else True)
    except ValidationError as error:
        raise ConfigError(_sentences(error, annotation, where)) from None


def build(kind: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """A dataclass from validated values.

    Raises:
        ConfigError: the dataclass itself refuses them.
    """
    try:
        return kind(**values)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error


def settings(kind: Any) -> list[str]:
    """Dotted names of the settings of a run; for a study, prefixed with their place in it."""
    front = "base." if "base" in {field.name for field in dataclasses.fields(kind)} else ""
    return [setting.name for whole in _OF_ALL for setting in settings_of(whole, front)]


def _sentences(error: ValidationError, annotation: Any, where: str) -> str:
    schema, problems = schema_of(annotation), dict[tuple[int | str, ...], ErrorDetails]()
    for problem in error.errors(include_url=False):
        value, place = problem["input"], _place_of(problem["loc"], schema)
        # Of a value that fits none of several types: that of its own kind.
        if place not in problems or (problem["type"] == "literal_error") == isinstance(value, str):
            problems[place] = problem
    return "\n".join(_sentence(problem | {"loc": place}, annotation, schema, where)  # pyright: ignore[reportArgumentType]
                     for place, problem in problems.items())  # fmt: skip


def _place_of(steps: Sequence[int | str], whole: dict[str, Any]) -> tuple[int | str, ...]:
    """The location of an error without the name of one of several types of a field."""
    kept: tuple[int | str, ...] = ()
    for step in steps:
        options = [option for option in _find(kept, whole, "").schema.get("anyOf", ()) if option.get("type") != "null"]
        if len(options) > 1:
            break
        kept += (step,)
    return kept


@dataclasses.dataclass(frozen=True)
class _Place:
    """The location of an error: the name, the schema there, and that of the enclosing mapping or list."""

    name: str
    schema: dict[str, Any]
    around: dict[str, Any]


def _find(steps: Iterable[int | str], whole: dict[str, Any], front: str) -> _Place:
    place = _Place(front, whole, whole)
    for step in steps:
        around = _resolved(place.schema, whole)
        if around.get("type") == "array":
            name, inner = f"{place.name}[{step}]", around["items"]
        else:
            others = around.get("additionalProperties")
            name = f"{place.name}.{step}" if place.name else str(step)
            inner = around.get("properties", {}).get(step, others if isinstance(others, dict) else {})
        place = _Place(name, inner, around)
    return place


def _sentence(problem: ErrorDetails, annotation: Any, whole: dict[str, Any], front: str) -> str:
    """One of pydantic's errors in our words."""
    kind, value, steps = problem["type"], problem["input"], problem["loc"]
    if kind == "value_error":
        return str(problem["ctx"]["error"])  # pyright: ignore[reportTypedDictNotRequiredAccess]
    if steps and steps[-1] == "[key]":
        return f"{_find(steps[:-1], whole, front).name}: a key must be text. Write it in quotes."
    place = _find(steps, whole, front)
    if kind in ("unexpected_keyword_argument", "invalid_key"):
        return _unknown(str(steps[-1]), place, annotation)
    if kind == "literal_error":
        known = [choice for part in (place.schema, *place.schema.get("anyOf", ())) for choice in choices_of(part)]
        return f"{place.name} is {value!r}. {did_you_mean(str(value), known)}"
    if kind == "password":
        return f"{place.name} {problem['msg']}."  # without the value
    bounds = bounds_of(place.schema)
    if kind == "finite_number":
        return f"{place.name} must be a finite number{f' ({bounds})' if bounds else ''}, not {value}."
    if kind in _OUT_OF_BOUNDS:
        return f"{place.name} must be {bounds}, not {value}."
    if not place.schema:
        return f"{place.name}: {problem['msg'].lower()}, not {value!r}."
    wanted = f"{kind_of(place.schema)}{f' ({bounds})' if bounds else ''}"
    return (
        f"{place.name} must be {wanted}, not {value!r}.{_hint(kind, value, place.name, _resolved(place.schema, whole))}"
    )


def _unknown(key: str, place: _Place, annotation: Any) -> str:
    if place.name in GONE:
        return f"'{place.name}' is gone: {GONE[place.name]} Remove it."
    known = place.around.get("properties", {})
    said = suggestion(key, known, place.name.removesuffix(key), settings(annotation))
    return f"Unknown key '{place.name}'. {said}"


def _hint(kind: str, value: Any, where: str, schema: Mapping[str, Any]) -> str:
    inside = (key for key in ("source", "name", "kind") if key in schema.get("properties", {}))
    key = _PARTS.get(where.partition("[")[0]) or next(inside, None)
    if key is not None and isinstance(value, str):
        return f" Write {{{key}: {value}}}."
    return " Write it in quotes." if kind == "string_type" and isinstance(value, int | float) else ""


def _resolved(schema: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """A schema with references and optional types resolved."""
    for option in schema.get("anyOf", ()):
        if option.get("type") != "null":
            return _resolved(option, whole)
    return whole["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
