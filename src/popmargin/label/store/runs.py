"""Runs of pairs in a chain: each pair shares a preference with the one before, which stays in its place."""

from collections.abc import Sequence
from typing import Any

from popmargin.label.store.records import Shown

RUN = 20
"""Most items in a run that one annotator goes through in order."""


def run_links(first: Sequence[str], second: Sequence[str], gold: Sequence[Any]) -> list[int | None]:
    """The place of each pair in its run, from 0: pairs of which each shares a preference with the one before, at most
    `RUN` of them. Gold items, which come in between, are in none.

    Example:
        >>> run_links(["a", "a", "b", "x"], ["c", "b", "c", "y"], ["first", None, None, None])
        [None, 0, 1, 0]
    """
    links = list[int | None]()
    for row, (one, other, known) in enumerate(zip(first, second, gold, strict=True)):
        before = links[-1] if row else None
        shared = row > 0 and bool({one, other} & {first[row - 1], second[row - 1]})
        goes_on = shared and before is not None and before + 1 < RUN
        links.append(None if known is not None else before + 1 if goes_on and before is not None else 0)
    return links


def kept_in_place(before: Any, now: Any, drawn: Shown) -> Shown:
    """The order of a task that shares a preference with the one before it, which stays on its side, its responses in
    their order; as drawn if they share none.

    Args:
        before: first and second preference of the task before, and its order.
        now: first and second preference of this task.
        drawn: the order that would be shown otherwise; the other preference's responses keep it.
    """
    shared = {now.first, now.second} & {before.first, before.second}
    if len(shared) != 1:
        return drawn
    was_first, is_first = before.first in shared, now.first in shared
    turned = before.swap_first if was_first else before.swap_second
    left = was_first != before.swap_pairs
    return Shown(
        swap_pairs=is_first != left,
        swap_first=turned if is_first else drawn.swap_first,
        swap_second=drawn.swap_second if is_first else turned,
    )
