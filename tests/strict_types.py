"""The type checker of the tests: beartype, with int accepted where float is asked for.

Each test checks the first calls of every function. A training calls some of them thousands of times, all alike, and
checking each call took a sixth of the time of all tests.
"""

import functools
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

CALLS = 20
"""Of a function that are checked in a test; of a function inside another, the definitions that are checked at all."""

_beartype: Callable[..., Any] = beartype(conf=BeartypeConf(is_pep484_tower=True))
_seen: Counter[tuple[str, str]] = Counter()
_defined: Counter[tuple[str, str]] = Counter()
_unchecked: list[Any] = []


def check(function: Any) -> Any:
    """The checked function; jaxtyping asks twice for each, for its arguments and for its result."""
    place = function.__module__, function.__qualname__
    if "<locals>" in function.__qualname__:  # defined anew in every call of the function around it
        _defined[place] += 1
        return function if _defined[place] > 2 * CALLS else _beartype(function)
    checked = _beartype(function)

    @functools.wraps(checked)
    def counted(*args: Any, **kwargs: Any) -> Any:
        _seen[place] += 1
        if _seen[place] == 2 * CALLS:
            _leave_unchecked(*place)
        return checked(*args, **kwargs)

    return counted


def check_anew() -> None:
    """Check the first calls of every function again, as each test does."""
    _seen.clear()
    while _unchecked:
        del _unchecked.pop().__no_type_check__


def _leave_unchecked(module: str, name: str) -> None:
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part, None)
    found = getattr(found, "fget", getattr(found, "__func__", found))
    if hasattr(found, "__wrapped__"):  # what jaxtyping made of it, which looks for this mark before it checks
        found.__no_type_check__ = True
        _unchecked.append(found)
