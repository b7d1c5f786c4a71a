"""Descriptions of configuration fields, from their type, their default and their class's docstring."""

import dataclasses
import functools
import inspect
import json
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema

_NOUNS = {
    "number": "a number",
    "integer": "a whole number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping of keys to values",
    "null": "null",
}
_PLURALS = {"number": "numbers", "integer": "whole numbers", "string": "texts"}
_LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def schema_of(annotation: Any) -> dict[str, Any]:
    """The JSON schema of a type; empty for a type that JSON cannot describe."""
    try:
        return TypeAdapter(annotation).json_schema()
    except PydanticInvalidForJsonSchema:
        return {}


def bounds_of(schema: Mapping[str, Any]) -> str:
    """The allowed numbers of a field, in words; empty for all.

    Example:
        >>> bounds_of({"type": "number", "minimum": 0, "exclusiveMaximum": 1})
        'at least 0 and below 1'
    """
    if said := next(filter(None, map(bounds_of, schema.get("anyOf", ()))), ""):
        return said
    if "items" in schema and (said := bounds_of(schema["items"])):
        return f"each {said}"
    said = " and ".join(f"{words} {schema[key]:,}" for key, words in _LIMITS.items() if key in schema)
    return f"{said}, and a whole number from {schema['wholeFrom']} on" if "wholeFrom" in schema else said


def choices_of(schema: Mapping[str, Any]) -> list[str]:
    """The allowed texts of a field; none if it takes any."""
    return [str(choice) for choice in schema.get("enum", ())]


def type_of(schema: Mapping[str, Any]) -> str:
    """The JSON name of a field's type, or the first of several."""
    return str(schema["type"]) if "type" in schema else type_of(schema["anyOf"][0]) if "anyOf" in schema else "object"


def kind_of(schema: Mapping[str, Any]) -> str:
    """What a field takes, in words: "a number", "text or null", "bf16 or fp32", "a list of 2 numbers".

    Example:
        >>> kind_of({"anyOf": [{"type": "integer"}, {"type": "null"}]})
        'a whole number or null'
        >>> kind_of({"type": "array", "items": {"type": "string"}})
        'a list of texts'
    """
    names = choices_of(schema) or [kind_of(part) for part in schema.get("anyOf", ())]
    names = names or [_NOUNS[type_of(schema)]]
    held = [_PLURALS.get(type_of(schema["items"]), "")] if schema.get("items") else []
    if schema.get("minItems") and schema["minItems"] == schema.get("maxItems"):
        held = [str(schema["minItems"]), *held]
    count = " ".join(["", "of", *held]).rstrip() if any(held) else ""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names) + count


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A field of a configuration.

    Attributes:
        name: with its section, as in `train.learning_rate`.
        help: its description in its class's docstring.
        default: its default; None for a section.
        section: the dataclass, if it is a section of fields.
        schema: its JSON schema.
    """

    name: str
    help: str
    default: Any
    section: Any
    schema: Mapping[str, Any]

    @property
    def sentence(self) -> str:
        """Its help as a sentence, with its default and bounds."""
        text = (self.help[:1].upper() if self.help[:1].isascii() else self.help[:1]) + self.help[1:]
        return f"{text} ({self.about})" if self.about else text

    @property
    def about(self) -> str:
        """Its default, and other allowed values if they are not obvious; empty for a section."""
        if self.section is not None and self.default is None:
            return ""
        default = self.default if isinstance(self.default, str) else json.dumps(self.default, ensure_ascii=False)
        others = ", ".join(choice for choice in choices_of(self.schema) if choice != self.default)
        return "; ".join(
            part
            for part in (default and f"default {default}", bounds_of(self.schema), others and f"or {others}")
            if part
        )


def descriptions(kind: Any) -> dict[str, str]:
    """Descriptions from the Attributes section of a dataclass's docstring, by field, including its bases'."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        parts = re.finditer(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", section, re.S | re.M)
        found |= {part[1]: " ".join(part[2].split()) for part in parts}
    return found


@functools.cache
def _described(kind: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The schemas and the descriptions of a dataclass's fields by name, which nobody changes."""
    return schema_of(kind).get("properties", {}), descriptions(kind)


def fields_of(kind: Any, prefix: str = "") -> Iterator[Setting]:
    """The fields of a dataclass in order; sections count as fields, without their own fields.

    Args:
        kind: a section or a whole configuration; or the options of a component.
        prefix: of its fields' names.
    """
    schemas, help_of = _described(kind)
    for field in dataclasses.fields(kind):
        parts = (field.type, *typing.get_args(field.type))
        section = next((part for part in parts if isinstance(part, type) and dataclasses.is_dataclass(part)), None)
        made = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        yield Setting(
            name=f"{prefix}{field.name}",
            help=help_of.get(field.name, ""),
            default=None if dataclasses.is_dataclass(made) or made is dataclasses.MISSING else made,
            section=section,
            schema=schemas.get(field.name, {}),
        )


def settings_of(kind: Any, prefix: str = "") -> Iterator[Setting]:
    """All fields of a configuration, each section followed by its fields."""
    for setting in fields_of(kind, prefix):
        yield setting
        if setting.section is not None:
            yield from settings_of(setting.section, f"{setting.name}.")
