"""The option --weight, by which an annotator's labels count less."""

import argparse

from popmargin.config.named_weights import named_weights


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
        ConfigError: a weight that is no number above 0 and at most 1, or a name with two of them.
    """
    return named_weights(args.weight, setting="--weight", without="--without")
