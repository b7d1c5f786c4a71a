"""Lists of the fields of a dataclass with what its docstring says of them."""

from typing import Any

from popmargin.config.described import fields_of


def attributes(kind: Any, prefix: str) -> list[str]:
    """The fields that a docstring describes as a list, with their defaults and bounds.

    Args:
        kind: the dataclass.
        prefix: what stands before a field's name.
    """
    lines: list[str] = []
    for field in fields_of(kind, prefix):
        if field.help:
            lines.append(f"- `{field.name}`{f' ({field.about})' if field.about else ''}: {field.help}")
        if prefix and field.section is not None:  # a section of a section
            lines += [f"  {line}" for line in attributes(field.section, f"{field.name}.")]
    return lines
