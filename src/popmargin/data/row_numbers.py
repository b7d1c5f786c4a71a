"""Row numbers from users: in lists, and in square brackets."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from popmargin.errors import DataError, NoSuchRowError


def row_numbers(indices: Sequence[int] | np.ndarray) -> list[int]:
    """Row numbers as plain integers.

    Raises:
        DataError: booleans or fractions, which would be taken for row numbers.
    """
    numbers: list[Any] = list(indices)
    wrong = [number for number in numbers if isinstance(number, bool) or not isinstance(number, (int, np.integer))]
    if wrong:
        raise DataError(f"{wrong[0]!r} is not a row number. For a mask, use np.flatnonzero.")
    return [int(number) for number in numbers]


def place_of(index: Any, count: int, what: str = "Row") -> int | range:
    """The argument of square brackets: a row number from 0, or those of a slice.

    Args:
        index: an integer, negative ones from the end, or a slice.
        count: number of rows.
        what: the word for a row, for messages.

    Raises:
        NoSuchRowError: the number is out of range.
        DataError: something else.

    Example:
        >>> place_of(-1, 3), place_of(slice(0, 2), 3)
        (2, range(0, 2))
    """
    given = [index]
    if isinstance(index, slice):
        given = [end for end in (index.start, index.stop, index.step) if end is not None]
    wrong = [number for number in given if isinstance(number, bool) or not isinstance(number, int | np.integer)]
    if wrong:
        raise DataError(
            f"{wrong[0]!r} in square brackets: give a number or a slice there, several numbers to select, and a name "
            "to column."
        )
    if isinstance(index, slice):
        return range(count)[index]
    if not -count <= index < count:
        raise NoSuchRowError(f"{what} {index} does not exist: there are {count}, counted from 0.")
    return int(index) % count
