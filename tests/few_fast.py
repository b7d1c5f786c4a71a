"""Which of a test's many parameters the fast tests take; the slow ones take the others."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def few_fast(values: Iterable[Any], fast: Collection[int]) -> list[Any]:
    """The values as parameters, in order; all but those at the places in `fast` are marked as slow."""
    return [
        value
        if place in fast
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
        for place, value in enumerate(values)
    ]
