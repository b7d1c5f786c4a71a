"""Flags of verbs that read preferences."""

import argparse
import sys
from typing import Any

from popmargin.bounds import Pixels
from popmargin.cli.numbers import number
from popmargin.data.formats.unlabelled import MARK
from popmargin.data.images import MAX_PIXELS
from popmargin.data.load import load_preferences
from popmargin.data.pairs import PAIRINGS, UNRATED_PAIRINGS, Pairing
from popmargin.data.schema import Preferences
from popmargin.data.validate import describe_problems
from popmargin.errors import ConfigError

SOURCE_HELP = "a file, glob, folder or hub id, or several separated by commas; `name:split` selects a split"
SPLIT_HELP = "the split to use, if there are several"


def add_data_arguments(parser: argparse.ArgumentParser, *, rated: bool = False) -> None:
    """Add the flags that say how the data is read; `rated`: the verb decides about `pairs` if that is not given."""
    data = parser.add_argument_group("how to read the data (use the same options as in training, or the ids differ)")
    data.add_argument("--format", default="auto", metavar="NAME", help="format of the data (default: detected)")
    data.add_argument("--split", help=SPLIT_HELP)
    data.add_argument(
        "--column", action="append", default=[], type=column, metavar="FIELD=COLUMN", help="which column holds a field"
    )
    add_pair_arguments(data, "--data-seed", rated=rated)
    data.add_argument(
        "--bad-rows",
        choices=("error", "drop"),
        default="error",
        help="stop at unusable rows, or leave them out and say how many (default: %(default)s)",
    )


def add_pair_arguments(parser: Any, seed_flag: str, *, rated: bool = False) -> None:
    """Add flags for turning several rated responses into preferences, to a parser or a group of one."""
    if rated:
        parser.add_argument(
            "--pairs",
            choices=(*PAIRINGS, *(name for name in UNRATED_PAIRINGS if name not in PAIRINGS)),
            help="pairs to make from several responses: of rated ones best_vs_… or all (default: best_vs_worst; for "
            "kind rating best_vs_rest, so that every response is asked about); of unlabelled ones ring (each with the "
            "next, the default), random or all",
        )
        parser.add_argument(
            "--per-prompt", type=int, metavar="M", help="pairs of a prompt with --pairs random (default: 1)"
        )
    else:
        parser.add_argument(
            "--pairs",
            choices=PAIRINGS,
            default="best_vs_worst",
            help="pairs to make from several rated responses (default: best_vs_worst)",
        )
    parser.add_argument(
        "--min-gap", type=float, default=0.0, help="minimum strength of a preference (default: %(default)s)"
    )
    parser.add_argument(
        "--contradictions",
        choices=("error", "keep"),
        default="error",
        help="where ratings, strength or soft label say that rejected is better: stop (or swap, by the soft label), or "
        "keep the label, with a negative strength (default: %(default)s)",
    )
    parser.add_argument(
        "--max-image-pixels",
        type=number(Pixels),
        default=MAX_PIXELS,
        metavar="N",
        help="largest image to decode, width times height (default: %(default)s)",
    )
    parser.add_argument(seed_flag, type=seed, default=0, help="seed for sampling pairs of responses (default: 0)")


def column(text: str) -> tuple[str, str]:
    """A popmargin field and the data column that holds it: FIELD=COLUMN."""
    name, equals, place = text.partition("=")
    if not (name and equals and place):
        raise argparse.ArgumentTypeError(f"'{text}' is not FIELD=COLUMN, e.g. prompt=question")
    return name, place


def load_data(args: argparse.Namespace, source: str) -> Preferences:
    """Read preferences as the flags say; notes and dropped rows are reported on stderr."""
    return _load(args, source, pairs=args.pairs)


def load_unlabelled(args: argparse.Namespace, source: str, *, rated_pairs: Pairing) -> Preferences:
    """The same for data to be labelled: ties are kept, and so are responses that nobody has compared.

    Args:
        args: of a parser with `rated`.
        source: the data.
        rated_pairs: how rated responses are paired without --pairs.

    Raises:
        ConfigError: --pairs or --per-prompt do not fit the data.
    """
    wanted, drawn = args.pairs, args.per_prompt
    if drawn is not None and wanted != "random":
        raise ConfigError("--per-prompt is the number of pairs that --pairs random draws: add that, or omit it.")
    unlabelled = wanted if wanted in UNRATED_PAIRINGS else "ring"
    preferences = _load(
        args,
        source,
        pairs=wanted if wanted in PAIRINGS else rated_pairs,
        ties="keep",  # they are what people should be asked about
        unlabelled=unlabelled,
        per_prompt=1 if drawn is None else drawn,
    )
    if MARK in preferences.extra_columns:
        if wanted not in (None, *UNRATED_PAIRINGS):
            raise ConfigError(
                f"{source}: --pairs {wanted} compares ratings, but nobody has rated these responses. Choose ring, "
                "random or all."
            )
    elif wanted in UNRATED_PAIRINGS and wanted not in PAIRINGS:
        raise ConfigError(
            f"{source}: --pairs {wanted} is for responses that nobody has labelled, but these have labels. Choose "
            f"{', '.join(PAIRINGS)}, or omit it."
        )
    return preferences


def _load(args: argparse.Namespace, source: str, **how: Any) -> Preferences:
    preferences = load_preferences(
        source,
        format=args.format,
        split=args.split,
        min_gap=args.min_gap,
        seed=args.data_seed,
        bad_rows=args.bad_rows,
        columns=dict(args.column),
        contradictions=args.contradictions,
        max_image_pixels=args.max_image_pixels,
        **how,
    )
    tell_left_out(preferences, source)
    return preferences


def tell_left_out(preferences: Preferences, source: str) -> None:
    """The account of reading a source, on stderr: its rows, those that were dropped and why, and what was done."""
    report = preferences.report
    more = f"; list them with popmargin data check {source}" if report.problems else ""
    print(f"{source}: {report.step().arithmetic}{more}", file=sys.stderr)
    if report.problems:
        print(describe_problems(report.problems, limit=3), file=sys.stderr)
    for note in report.notes:
        print(f"{source}: {note}", file=sys.stderr)


def seed(text: str) -> int:
    """A random seed: a whole number, 0 or more."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a seed: give a whole number, 0 or more")
    return number
