"""Columns of item sequences and of single events, and the values in their cells."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np

from popmargin.data.validate import RowError
from popmargin.errors import DataError, a_kind, did_you_mean

ALIASES: dict[str, tuple[str, ...]] = {
    "user": ("user", "user_id", "userid", "uid", "reviewerid"),
    "item": ("item", "item_id", "itemid", "iid", "asin", "product_id", "movieid"),
    "items": ("items", "item_ids", "sequence"),
    "time": ("time", "times", "timestamp", "timestamps", "unixreviewtime"),
    "feedback": ("feedback", "rating", "ratings", "overall", "stars"),
    "split": ("split",),
}
_SPLITS = {"train": "train", "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid", "test": "test"}


def resolve_columns(found: Sequence[str], named: Mapping[str, str] | None, source: str) -> dict[str, str]:
    """Our names -> the source's columns; RecBole's types (`user_id:token`) do not count.

    Args:
        found: the source's columns.
        named: what the user said, our name -> column.
        source: for messages.

    Raises:
        DataError: an unknown name or column, or several columns that could be the same thing.

    Example:
        >>> resolve_columns(["user_id:token", "item_id:token", "timestamp:float"], None, "x.inter")
        {'user': 'user_id:token', 'item': 'item_id:token', 'time': 'timestamp:float'}
    """
    plain = {name: name.rpartition(":")[0] or name for name in found}
    resolved: dict[str, str] = {}
    for ours, column in (named or {}).items():
        if ours not in ALIASES:
            raise DataError(f"columns: there is no '{ours}'. {did_you_mean(ours, ALIASES)}")
        match = [name for name in found if column in (name, plain[name])]
        if not match:
            raise DataError(f"{source} has no column '{column}'. {did_you_mean(column, plain.values())}")
        resolved[ours] = match[0]
    for ours, aliases in ALIASES.items():
        several = [name for name in found if plain[name].lower() in aliases and name not in resolved.values()]
        if ours in resolved or not several:
            continue
        if len(several) > 1:
            raise DataError(
                f"{source}: the {ours} could be {' or '.join(several)}. Remedy: name it: columns={{'{ours}': …}}."
            )
        resolved[ours] = several[0]
    return resolved


def item_id(value: Any, column: str = "item") -> str:
    """An item's or user's id as text: text, or a whole number.

    Raises:
        RowError: missing, or something else.

    Example:
        >>> item_id(7), item_id(7.0), item_id("B00-7")
        ('7', '7', 'B00-7')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise RowError("missing", f"the {column} is missing.", "fill it in, or remove the row.", column=column)
    if isinstance(value, str):
        if not value.strip():
            raise RowError("missing", f"the {column} is empty.", "fill it in, or remove the row.", column=column)
        return value
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if whole or (isinstance(value, float | np.floating) and float(value).is_integer()):
        return str(int(value))
    message = f"the {column} is {value!r}, {a_kind(value)}."
    raise RowError("type", message, "write ids as text or as whole numbers.", column=column)


def number(value: Any, column: str, grades: Mapping[str, float] | None = None) -> float:
    """A finite number; a date is seconds since 1970 (UTC); a grade is looked up.

    Raises:
        RowError: none of these.

    Example:
        >>> number("4.5", "feedback"), number("1970-01-02", "time"), number("cart", "feedback", {"cart": 2.0})
        (4.5, 86400.0, 2.0)
    """
    if isinstance(value, str) and grades is not None and value in grades:
        return float(grades[value])
    if isinstance(value, str) and column == "time":
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    found = math.nan
    if not isinstance(value, bool):
        with suppress(ValueError, TypeError):
            found = float(value)
    if not math.isfinite(found):
        known = f", or one of {', '.join(grades)}" if grades else ""
        hint = " or a date such as 2014-07-23" if column == "time" else known
        message = f"the {column} is {value!r}."
        raise RowError("number", message, f"write a finite number{hint}.", column=column)
    return found


def split_name(value: Any) -> str:
    """The side of a row: train, valid or test.

    Raises:
        RowError: another name.

    Example:
        >>> split_name("validation")
        'valid'
    """
    if isinstance(value, str) and value.lower() in _SPLITS:
        return _SPLITS[value.lower()]
    raise RowError("split", f"the split is {value!r}.", "write train, valid or test.", column="split")
