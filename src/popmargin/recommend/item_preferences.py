"""Preferences between items: the next item of a history over another one, or over whatever a batch offers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from popmargin.data.ragged import Ragged
from popmargin.errors import DataError, a_kind
from popmargin.recommend.item_sequences import Catalogue
from popmargin.recommend.splitting import Cases, Parts

OTHERS = "other items"
"""What is rejected when the negatives come from the batch."""
_ITEM = "item "


@dataclass(frozen=True)
class ItemPair:
    """One preference between items, by name.

    Attributes:
        history: the user's items, oldest first.
        chosen: the item that came next.
        rejected: the item that it is preferred to; None for those that the batch offers.
    """

    history: tuple[str, ...]
    chosen: str
    rejected: str | None


def prompt_of(user: str, history: Sequence[str]) -> str:
    """The prompt of a history, which no other user has.

    Example:
        >>> prompt_of("ann", ["7", "9"])
        '{"user": "ann", "history": ["7", "9"]}'
    """
    return json.dumps({"user": user, "history": list(history)}, ensure_ascii=False)


def item_name(item: str) -> str:
    """The text that names an item.

    Example:
        >>> item_name("B00-7")
        'item B00-7'
    """
    return _ITEM + item


def read_pair(name: str, prompt: Any, chosen: Any, rejected: Any) -> ItemPair:
    """The items that the texts of a preference name.

    Args:
        name: id of the preference, for messages.
        prompt, chosen, rejected: its texts.

    Raises:
        DataError: a text has another form; the message names it.

    Example:
        >>> read_pair("p0", '{"user": "ann", "history": ["7"]}', "item 9", "other items")
        ItemPair(history=('7',), chosen='9', rejected=None)
    """
    try:
        told = json.loads(prompt)
        history = tuple(str(item) for item in cast(list[Any], told["history"]))
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(
            f"Preference '{name}': the prompt is {prompt!r:.60}. For items, write "
            '{"user": …, "history": [ids, oldest first]}.'
        ) from error
    if not history or isinstance(told["history"], str):
        raise DataError(
            f"Preference '{name}': the history is {told['history']!r:.60}. Give a list with an item or more."
        )
    sides: list[str | None] = []
    for side, text in (("chosen", chosen), ("rejected", rejected)):
        if side == "rejected" and text == OTHERS:
            sides.append(None)
        elif isinstance(text, str) and text.startswith(_ITEM):
            sides.append(text.removeprefix(_ITEM))
        else:
            what = repr(text)[:60] if isinstance(text, str) else a_kind(text)
            also = f" or '{OTHERS}'" if side == "rejected" else ""
            raise DataError(f"Preference '{name}': {side} is {what}. For items, write 'item ID'{also}.")
    return ItemPair(history, cast(str, sides[0]), sides[1])


def next_item_rows(
    catalogue: Catalogue, users: Sequence[str], histories: Ragged, targets: Sequence[int] | np.ndarray
) -> list[dict[str, str]]:
    """Rows of preferences: each target over other items.

    Args:
        catalogue: the items.
        users: names (N,), each once.
        histories: item numbers.
        targets: item numbers (N,).

    Example:
        >>> rows = next_item_rows(Catalogue.of([7, 9]), ["ann"], Ragged.of([[1]]), [2])
        >>> rows[0]["prompt"], rows[0]["chosen"], rows[0]["rejected"]
        ('{"user": "ann", "history": ["7"]}', 'item 9', 'other items')
    """
    names = catalogue.names
    return [
        {
            "id": user,
            "prompt": prompt_of(user, [names[number - 1] for number in histories[place]]),
            "chosen": item_name(names[int(targets[place]) - 1]),
            "rejected": OTHERS,
        }
        for place, user in enumerate(users)
    ]


def training_rows(parts: Parts, *, prefixes: bool = False) -> list[dict[str, str]]:
    """Rows of preferences of the training part.

    Args:
        parts: the split.
        prefixes: every item but the first is a target of the items before it; by default, as published, only the last.

    Example:
        >>> from popmargin.recommend.item_sequences import Sequences
        >>> from popmargin.recommend.splitting import split_by_user
        >>> data = Sequences.of([[1, 2, 3], [2, 3], [3, 1]], splits=["train", "valid", "test"])
        >>> [row["id"] for row in training_rows(split_by_user(data), prefixes=True)]
        ['train 0/1', 'train 0/2']
    """
    users: list[str] = []
    histories: list[list[int]] = []
    targets: list[int] = []
    for number in range(len(parts.train)):
        items = parts.train[number].tolist()
        for place in range(1, len(items)) if prefixes else range(len(items) - 1, len(items)):
            if place:
                users.append(f"train {number}/{place}" if prefixes else f"train {number}")
                histories.append(items[:place])
                targets.append(items[place])
    return next_item_rows(parts.catalogue, users, Ragged.of(histories), targets)


def case_rows(parts: Parts, cases: Cases) -> list[dict[str, str]]:
    """Rows of preferences of validation or test cases."""
    return next_item_rows(parts.catalogue, cases.users, cases.histories, cases.targets)
