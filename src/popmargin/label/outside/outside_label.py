"""What a parser of another tool's export yields: a label with all that names its item, or a row without one."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Rows = Iterable[tuple[str, Mapping[str, Any]]]
"""Rows of a file: where each is, for messages, and its columns."""


@dataclass(frozen=True, kw_only=True)
class OutsideLabel:
    """One answer of one person, as it stands in a file.

    Attributes:
        place: where it is, such as `file.json:3`.
        annotator: the person's name there; None if the file does not say.
        values: the answer; several if it may be one or the other, the first that is known counts.
        ids: what may be the preference's id, likeliest first; of a pair of preferences, that of the first.
        second_ids: of a pair of preferences, what may be the second's id.
        texts: what the file says of the texts: prompt, response_a and response_b, or response.
        side: which response is rated, if the id does not say.
        at: when the answer was given: a text or a number.
        seconds: how long it took.
        confidence, note, wrong: as of `Label`.
        order: swap_pairs, swap_first, swap_second of the screen, if known.
        cells: all columns of its row, in which answers on further criteria are looked for.
    """

    place: str
    annotator: str | None
    values: tuple[Any, ...]
    ids: tuple[str, ...] = ()
    second_ids: tuple[str, ...] = ()
    texts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    side: str | None = None
    at: Any = None
    seconds: Any = None
    confidence: Any = None
    note: str = ""
    wrong: str | None = None
    order: tuple[bool, bool, bool] | None = None
    cells: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A row, or an answer in it, that gives no label.

    Attributes:
        reason: what to count it under.
        message: a sentence about this one.
        remedy: what to do.
    """

    place: str
    reason: str
    message: str
    remedy: str


Parser = Callable[[Rows, str | None, Mapping[str, str]], Iterator[OutsideLabel | LeftOut]]
"""Takes the rows, the question's name (None for the only one) and the caller's names of columns, field -> column."""
TEXTS = ("prompt", "response_a", "response_b", "response")
"""Fields with texts."""
_TEXT_NAMES = {
    "prompt": ("prompt", "instruction", "question", "query", "input"),
    "response_a": ("response_a", "response_1", "response1", "answer_a", "answer1", "output_a", "chosen"),
    "response_b": ("response_b", "response_2", "response2", "answer_b", "answer2", "output_b", "rejected"),
    "response": ("response", "completion", "answer", "output"),
}


def texts_of(fields: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The texts among the fields of a record, by our names.

    Example:
        >>> texts_of({"instruction": "2+2?", "a": "4", "response_b": "5"}, {"response_a": "a"})
        {'prompt': '2+2?', 'response_a': '4', 'response_b': '5'}
    """
    found: dict[str, Any] = {}
    for name in TEXTS:
        names = (columns[name],) if name in columns else _TEXT_NAMES[name]
        value = next((fields[column] for column in names if fields.get(column) is not None), None)
        if value is not None:
            found[name] = value
    return found


def ids_of(*values: Any) -> tuple[str, ...]:
    """Values that may be ids, as texts, without those that are missing."""
    return tuple(dict.fromkeys(str(value) for value in values if value is not None and str(value)))


def time_of(value: Any) -> datetime:
    """A time in ISO 8601 (UTC if it names no zone), or in seconds or milliseconds since 1970.

    Raises:
        ValueError: it is none.

    Example:
        >>> time_of("2026-03-01T10:00:00Z") == time_of(1772359200) == time_of("1772359200000")
        True
    """
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    try:
        number = float(value)
    except (TypeError, ValueError):
        found = datetime.fromisoformat(str(value).strip())
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    try:
        return datetime.fromtimestamp(number / 1000 if number > 1e11 else number, UTC)
    except (OverflowError, OSError) as error:
        raise ValueError(str(error)) from error
