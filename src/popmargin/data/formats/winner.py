"""Two responses and which one is better: a name, or a number between two that mean the responses."""

import math
import re
from typing import Any

import numpy as np

from popmargin.data.formats.base import Format, Reader, Row, as_number
from popmargin.data.formats.columns import normal_name
from popmargin.data.validate import Draft, RowError

FIRST = ("a", "1", "first", "left")
SECOND = ("b", "2", "second", "right")
TIES = ("tie", "tied", "both", "equal", "draw", "same", "bothgood", "bothbad", "neither")
_PREFIX = re.compile(r"(the |model|response|output|completion|answer|assistant|option|candidate|conversation)[ _-]*")


def _read(row: Row, reader: Reader) -> list[Draft | RowError]:
    prompt, first, second = reader.compared(row)
    share = _share_of_second(row, reader)
    if share == 0.5:
        known = {"soft_label": 0.5} if reader.ends is not None else {}
        return [reader.tie(row, prompt, first, second, "winner", **known)]
    chosen, rejected = (first, second) if share < 0.5 else (second, first)
    if share in (0.0, 1.0):
        return [reader.draft(row, prompt, chosen, rejected)]
    reader.notes["numbers between those of the two responses became soft labels, with strengths |2p − 1|"] += 1
    return [
        reader.draft(
            row, prompt, chosen, rejected, soft_label=max(share, 1 - share), strength=abs(2 * share - 1)
        )
    ]  # fmt: skip


def _share_of_second(row: Row, reader: Reader) -> float:
    """Probability that the second response is better: 0 or 1 if a name says which."""
    value = reader.value(row, "winner")
    if value is None or (isinstance(value, str) and not value.strip()):
        raise RowError("missing", "the winner is missing.", "name one, or remove the row.", column="winner")
    number = number_of(value)
    if number is not None and reader.ends is not None:
        low, high = reader.ends
        share = (number - low) / (high - low)
        if math.isnan(share) or not 0 <= share <= 1:
            message = f"the winner is {number:g}, outside {min(low, high):g} … {max(low, high):g}."
            raise RowError("winner", message, "correct it, or remove the row.", column="winner")
        return share
    share = named_side(str(value), row, reader)
    if share is None:
        message = f"the winner is {str(value)[:40]!r}, which is neither response."
        raise RowError("winner", message, "write a or b, the models' names, or tie.", column="winner")
    return share


def number_of(value: Any) -> float | None:
    """A cell as a number, True as 1; None if it is none."""
    if isinstance(value, bool | np.bool_):
        return float(value)
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return float(value.strip().lower() == "true")
    try:
        return as_number(value, "winner", text_cells=True)
    except RowError:
        return None


def named_side(value: str, row: Row, reader: Reader) -> float | None:
    """0 if a text names the first response, 1 for the second, ½ for a tie; None if it names neither."""
    models = [reader.value(row, name) for name in ("model_a", "model_b")]
    if models[0] != models[1] and value in models:
        return float(models.index(value))
    columns = [normal_name(reader.names[name]) for name in ("response_a", "response_b")]
    if normal_name(value) in columns:
        return float(columns.index(normal_name(value)))
    plain = value.strip().lower().strip("[](). ")
    if plain.isdigit():  # a single row cannot show whether 1 is the first or the second
        return None
    return side_of_word(plain)


def side_of_word(plain: str) -> float | None:
    """The same for a word in lower case, such as "response a", where 1 and 2 are the first and the second.

    Example:
        >>> side_of_word("response b"), side_of_word("left"), side_of_word("both good"), side_of_word("7")
        (1.0, 0.0, 0.5, None)
    """
    word = _PREFIX.sub("", plain).strip("_- ")
    if word.replace(" ", "").split("(")[0] in TIES:
        return 0.5
    return 0.0 if word in FIRST else 1.0 if word in SECOND else None


ENTRY = Format(
    "winner",
    "two responses and the name of the better one",
    ("response_a", "response_b", "winner"),
    _read,
    optional=(
        "prompt",
        "model_a",
        "model_b",
        "id",
        "annotator",
        "cluster",
        "weight",
        "system",
        "prompt_input",
        "tools",
        "strength",
    ),
)
