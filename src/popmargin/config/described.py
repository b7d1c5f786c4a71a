"""What there is to say of every field of a configuration: from its type, its default and its class's docstring."""

import dataclasses
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
    """The JSON schema of a type; empty for a type that JSON does not know."""
    try:
        return TypeAdapter(annotation).json_schema()
    except PydanticInvalidForJsonSchema:
        return {}


def bounds_of(schema: Mapping[str, Any]) -> str:
    """The numbers that a field takes, in words; empty for all.

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
    """The texts that a field takes; none if it takes any."""
    return [str(choice) for choice in schema.get("enum", ())]


def type_of(schema: Mapping[str, Any]) -> str:
    """What JSON calls the type of a field, or the first one of several."""
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
        help: what its class's docstring says of it.
        default: its default; None for a section.
        section: the dataclass, where it is a section of fields.
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
        """Its default, and what else it takes where that is not plain; empty for a section."""
        if self.section is not None and self.default is None:
            return ""
        default = self.default if isinstance(self.default, str) else json.dumps(self.default, ensure_ascii=False)
        others = ", ".join(choice for choice in choices_of(self.schema) if choice != self.default)
        return "; ".join(
            part for part in (f"default {default}", bounds_of(self.schema), others and f"or {others}") if part
        )


def descriptions(kind: Any) -> dict[str, str]:
    """What the Attributes section of a dataclass's docstring says, by field; fields of its bases have theirs."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        parts = re.finditer(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", section, re.S | re.M)
        found |= {part[1]: " ".join(part[2].split()) for part in parts}
    return found


def fields_of(kind: Any, prefix: str = "") -> Iterator[Setting]:
    """The fields of a dataclass in their order; its sections are fields too, and their own fields are not among them.

    Args:
        kind: a section or a whole configuration; or the options of a component.
        prefix: what stands before its fields' names.
    """
    schemas, help_of = schema_of(kind).get("properties", {}), descriptions(kind)
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
    """All fields of a configuration, those of a section after it."""
    for setting in fields_of(kind, prefix):
        yield setting
        if setting.section is not None:
            yield from settings_of(setting.section, f"{setting.name}.")
