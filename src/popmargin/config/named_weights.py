"""Weights by name, such as `bob=0.5`, from a setting or an option."""

import math
from collections.abc import Iterable

from popmargin.errors import ConfigError


def named_weights(parts: Iterable[str], *, setting: str, without: str) -> dict[str, float]:
    """Name -> weight.

    Args:
        parts: each a name, = and a weight.
        setting: where they were given, for messages.
        without: what leaves somebody out, for messages.

    Raises:
        ConfigError: a part is no name with a weight above 0 and at most 1, or a name has two weights.

    Example:
        >>> named_weights(["bob=0.5", "ann=1"], setting="--weight", without="--without")
        {'bob': 0.5, 'ann': 1.0}
    """
    weights: dict[str, float] = {}
    for part in parts:
        name, equals, text = (piece.strip() for piece in part.rpartition("="))
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not (equals and name and 0 < weight <= 1):
            raise ConfigError(
                f"{setting} {part}: give NAME=WEIGHT with a weight above 0 and at most 1, such as bob=0.5. {without} "
                "leaves an annotator's labels out."
            )
        if weights.setdefault(name, weight) != weight:
            raise ConfigError(f"{setting}: '{name}' has two weights. Keep one.")
    return weights
