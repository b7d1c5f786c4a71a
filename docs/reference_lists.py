"""Lists of the fields of a dataclass with what its docstring says of them."""

import dataclasses
import inspect
import re
from typing import Any

from popmargin.bounds import bounds_of


def attributes(kind: Any, prefix: str) -> list[str]:
    """The Attributes section of a dataclass's docstring as a list, with defaults; fields of its bases have theirs."""
    help_of: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        found = re.finditer(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", section, re.S | re.M)
        help_of |= {match[1]: " ".join(match[2].split()) for match in found}
    lines: list[str] = []
    for field in dataclasses.fields(kind):
        if field.name in help_of:
            said = ", ".join(part for part in (_default(field), _bounds(field)) if part)
            lines.append(f"- `{prefix}{field.name}`{f' ({said})' if said else ''}: {help_of[field.name]}")
    return lines


def _default(field: Any) -> str:
    if field.default is not dataclasses.MISSING:
        return f"default {'null' if field.default is None else field.default}"
    made = field.default_factory()
    return "" if dataclasses.is_dataclass(made) else f"default {made}"


def _bounds(field: Any) -> str:
    bounds = bounds_of(field.type)
    return "" if bounds is None else str(bounds)
