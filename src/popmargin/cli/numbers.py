"""Numbers in flags, with the same bounds as in configurations."""

import argparse
from collections.abc import Callable
from typing import Any


def number(kind: Any) -> Callable[[str], Any]:
    """A converter from a flag's text to a kind of number, for `add_argument(type=…)`.

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
