"""How the verbs of `popmargin pop` read preferences."""

import argparse
import sys

from popmargin.data.load import load_preferences
from popmargin.data.pairs import PAIRINGS
from popmargin.data.schema import Preferences


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how the data is read."""
    data = parser.add_argument_group("how to read the data (the same as in training, or the ids differ)")
    data.add_argument("--format", default="auto", metavar="NAME", help="format of the data (default: detected)")
    data.add_argument("--split", help="split of a data set that has several")
    data.add_argument(
        "--column", action="append", default=[], type=_column, metavar="FIELD=COLUMN", help="where a field stands"
    )
    data.add_argument(
        "--pairs",
        choices=PAIRINGS,
        default="best_vs_worst",
        help="pairs to make from several rated responses (default: %(default)s)",
    )
    data.add_argument("--min-gap", type=float, default=0.0, help="least strength of a preference (default: 0)")
    data.add_argument("--data-seed", type=seed, default=0, help="seed of drawn pairs of responses (default: 0)")
    data.add_argument(
        "--bad-rows",
        choices=("error", "drop"),
        default="error",
        help="stop at unusable rows, or leave them out and say how many (default: %(default)s)",
    )


def _column(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not (name and equals and column):
        raise argparse.ArgumentTypeError(f"'{text}' is not FIELD=COLUMN, e.g. prompt=question")
    return name, column


def load_data(args: argparse.Namespace, source: str) -> Preferences:
    """Read preferences as the flags say; rows that are left out are told on stderr."""
    preferences = load_preferences(
        source,
        format=args.format,
        split=args.split,
        pairs=args.pairs,
        min_gap=args.min_gap,
        seed=args.data_seed,
        bad_rows=args.bad_rows,
        columns=dict(args.column),
    )
    report = preferences.report
    if report.rows_kept != report.rows_in:
        left_out = f"{report.rows_kept} of {report.rows_in} rows used"
        print(f"{source}: {left_out}; see `popmargin data check {source}`", file=sys.stderr)
    return preferences


def seed(text: str) -> int:
    """A seed of random draws: a whole number, 0 or more."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a seed: give a whole number, 0 or more")
    return number
