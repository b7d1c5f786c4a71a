"""Lists of the fields of a dataclass with what its docstring says of them."""

from typing import Any

from popmargin.config.described import fields_of


def attributes(kind: Any, prefix: str) -> list[str]:
    """The fields that a docstring describes as a list, with their defaults and bounds.

    Args:
        kind: the dataclass.
        prefix: what stands before a field's name.
    """
    return [
        f"- `{field.name}`{f' ({field.about})' if field.about else ''}: {field.help}"
        for field in fields_of(kind, prefix)
        if field.help
    ]
