"""A label report beside its figures as they were computed again: every number of it has to be one of them."""

import math
from typing import Any

NAMED_BY = ("name", "kind", "version", "day")
"""What tells the elements of a list of the report apart; without one of them it is their number."""


def numbers(node: Any, path: str = "") -> dict[str, float]:
    """Every number of a report by its path, nan for null: words, dates, and yes or no are no figures.

    An interval gives three, of which the estimate has the path of the interval.
    """
    if node is None or (isinstance(node, int | float) and not isinstance(node, bool)):
        return {path: math.nan if node is None else float(node)}
    inside: dict[str, Any] = {}
    if isinstance(node, dict):
        is_interval = node.keys() == {"estimate", "low", "high"}
        inside = {path if is_interval and name == "estimate" else f"{path}.{name}": one for name, one in node.items()}
    elif isinstance(node, list):
        inside = {f"{path}.{_key(one, place)}": one for place, one in enumerate(node)}
    return {key: value for name, one in inside.items() for key, value in numbers(one, name.strip(".")).items()}


def _key(one: Any, place: int) -> str:
    named = (str(one[name]) for name in NAMED_BY if name in one) if isinstance(one, dict) else iter(())
    return next(named, str(place))


def beside(said: dict[str, float], computed: dict[str, float]) -> list[tuple[str, float, float]]:
    """What is said, and computed, of each figure; what only one of them has is infinite in the other, and differs."""
    return [(name, said.get(name, math.inf), computed.get(name, -math.inf)) for name in {**said, **computed}]
