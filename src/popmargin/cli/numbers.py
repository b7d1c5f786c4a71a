"""Numbers in flags, with the bounds that the same kinds of numbers have in configurations."""

import argparse
from collections.abc import Callable
from typing import Any


def number(kind: Any) -> Callable[[str], Any]:
    """What turns the text of a flag into a number of a kind, as `add_argument(type=…)` takes it.

    Args:
        kind: a type of `popmargin.bounds`.

    Example:
        >>> from popmargin.bounds import Size
        >>> number(Size)("8")
        8
        >>> number(Size)("0")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: must be at least 1, not 0.
    """

    def read(text: str) -> Any:
        from popmargin.config import coerce
        from popmargin.errors import ConfigError
        from popmargin.yaml_file import parse_yaml

        try:
            return coerce(kind, parse_yaml(text), "")
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error).strip()) from None

    return read
