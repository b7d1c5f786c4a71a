"""Rankings: which preferences an item has, their order on the screen, and whether an answer is an order of them."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from popmargin.data.questions import RANKED, PreferenceText, numbers_of, orders_of
from popmargin.errors import DataError, counted
from popmargin.label.store.records import Assignment


def load_others(stored: str | None) -> list[str]:
    """Ids of the preferences after the first, as an item keeps them; empty for items of other kinds."""
    return [] if stored is None else json.loads(stored)


def ids_in(value: object) -> list[str]:
    """The ids in a cell with an order: a list, a list as JSON, or a text with > between them.

    Raises:
        ValueError: it is none of these.

    Example:
        >>> ids_in("p3 > p1>p2") == ids_in('["p3", "p1", "p2"]') == ids_in(["p3", "p1", "p2"])
        True
    """
    if isinstance(value, str) and value.strip()[:1] == "[":
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError(f"{value[:60]!r} begins like a list, and is none") from None
    if isinstance(value, str) and value.strip():
        value = [one.strip() for one in value.split(">")]
    found: list[Any] = value if isinstance(value, list) else []
    if not found:
        raise ValueError("there is no order")
    if not all(isinstance(one, str | int) and not isinstance(one, bool) and one != "" for one in found):
        raise ValueError(f"{str(found)[:60]} is no list of ids")
    return [str(one) for one in found]


def check_rankings(first: Sequence[str], others: Sequence[Sequence[str]]) -> None:
    """Refuse rankings of too few or many preferences, or with one of them twice.

    Raises:
        DataError: it names the row.
    """
    for row, (one, rest) in enumerate(zip(first, others, strict=True)):
        if len(rest) + 1 not in RANKED:
            raise DataError(
                f"items: row {row}: a ranking of {counted(len(rest) + 1, 'preference')}; there may be {RANKED[0]} to "
                f"{RANKED[-1]}."
            )
        if len({one, *rest}) <= len(rest):
            raise DataError(f"items: row {row}: a preference is in the ranking twice. Remove the row.")


def check_order(verdict: str, stored: str | None) -> None:
    """Refuse an order of another number of preferences than the item has.

    Raises:
        DataError: it says what is expected.
    """
    size = len(load_others(stored)) + 1
    if verdict != "unsure" and verdict not in orders_of(size):
        example = ">".join(map(str, range(1, size + 1)))
        raise DataError(
            f"'{verdict}' is no order of {counted(size, 'preference')}. Give each number once, the strongest first, "
            f"such as '{example}', or 'unsure'."
        )


def drawn_order(seed: int, who: int, number: int, size: int, *, repeat: bool) -> tuple[int, ...]:
    """The preferences from left to right: drawn, the same for the same project seed, annotator and item."""

    def place(one: int) -> bytes:
        said = repr((seed, who, number, "repeat" if repeat else "first", one))
        return hashlib.blake2b(said.encode(), digest_size=8).digest()

    return tuple(sorted(range(1, size + 1), key=place))


def shown_order(stored: str | None) -> tuple[int, ...]:
    """The order on the screen as an assignment keeps it; empty for items of other kinds."""
    return () if stored is None else tuple(numbers_of(stored))


def with_others(
    assignments: Iterable[Assignment], keys: dict[int, list[str]], texts: dict[str, PreferenceText]
) -> list[Assignment]:
    """The assignments with the preferences after the first of rankings.

    Args:
        assignments: the records.
        keys: of these preferences, by assignment.
        texts: of all of them, by key.
    """
    return [replace(one, others=tuple(texts[key] for key in keys[one.id])) for one in assignments]


def ranked_ids(row: dict[str, Any]) -> list[str]:
    """The ids of a ranking in the order of the answer, the strongest first.

    Args:
        row: of a table of labels, with first, others and verdict.

    Example:
        >>> ranked_ids({"first": "a", "others": '["b", "c"]', "verdict": "2>3>1"})
        ['b', 'c', 'a']
    """
    ids = [row["first"], *load_others(row["others"])]
    return [ids[number - 1] for number in numbers_of(row["verdict"])]
