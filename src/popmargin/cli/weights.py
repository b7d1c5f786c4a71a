"""The option --weight, by which an annotator's labels count less."""

import argparse
import math

from popmargin.errors import ConfigError


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add --weight."""
    parser.add_argument(
        "--weight",
        nargs="+",
        metavar="NAME=WEIGHT",
        default=[],
        help="how much each label of these annotators counts, above 0 and at most 1 (default: 1)",
    )


def weights_of(args: argparse.Namespace) -> dict[str, float]:
    """Annotator -> weight of their labels.

    Raises:
        ConfigError: a weight that is no number above 0 and at most 1, or a name twice.
    """
    weights: dict[str, float] = {}
    for given in args.weight:
        name, equals, text = given.rpartition("=")
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not (equals and name and 0 < weight <= 1):
            raise ConfigError(
                f"--weight {given}: give NAME=WEIGHT with a weight above 0 and at most 1, such as bob=0.5. --without "
                "leaves an annotator's labels out."
            )
        if weights.setdefault(name, weight) != weight:
            raise ConfigError(f"--weight: '{name}' has two weights. Keep one.")
    return weights
