"""popmargin data pairs: preferences out of scored responses."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.bounds import NotNegative, Seed
from popmargin.cli.data_options import SOURCE_HELP, SPLIT_HELP, column
from popmargin.cli.data_source import print_report
from popmargin.cli.numbers import number
from popmargin.cli.outputs import add_overwrite, check_outputs
from popmargin.data.images import COLUMNS as IMAGES
from popmargin.data.pairs import PAIRINGS
from popmargin.data.responses import Responses
from popmargin.data.saving import SAVE_SUFFIXES
from popmargin.data.schema import Preferences
from popmargin.errors import DataError, counted


def add_parser(verbs: Any) -> None:
    """Add `data pairs` to the command line."""
    parser = verbs.add_parser(
        "pairs",
        help="make preferences of scored responses",
        description="Make preferences of responses with scores, as `generate` and `data rate` write them. Ties, gaps "
        "below --min-gap, identical and empty responses are left out and counted.",
    )
    parser.add_argument("source", metavar="RESPONSES", help=SOURCE_HELP)
    parser.add_argument("--by", metavar="SCORE", help="the score that says which is better; may be left out if alone")
    parser.add_argument(
        "--how", choices=PAIRINGS, default="best_vs_worst", help="which pairs of a prompt (default: %(default)s)"
    )
    parser.add_argument("--min-gap", type=number(NotNegative), default=0.0, help="least gap of the score (default: 0)")
    parser.add_argument("--seed", type=number(Seed), default=0, help="of best_vs_random (default: %(default)s)")
    parser.add_argument(
        "--unfinished",
        choices=("keep", "drop"),
        default="keep",
        help="pairs with a response that was cut at the token limit (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, required=True, help=f"file to write: {', '.join(SAVE_SUFFIXES)}")
    add_overwrite(parser)
    parser.add_argument("--split", help=SPLIT_HELP)
    parser.add_argument(
        "--column", action="append", default=[], type=column, metavar="FIELD=COLUMN", help="e.g. prompt=question"
    )
    parser.set_defaults(func=_pairs)


def _pairs(args: argparse.Namespace) -> int:
    check_outputs(args, {"--out": args.out}, SAVE_SUFFIXES, [args.source])
    responses = Responses.load(args.source, split=args.split, columns=dict(args.column))
    by = args.by or _only_score(args.source, responses)
    prefs = responses.pairs(args.how, by=by, min_gap=args.min_gap, seed=args.seed, unfinished=args.unfinished)
    prefs.save(args.out)
    print_report(prefs.report, limit=5)
    if not set(IMAGES) <= set(prefs.columns):
        print(_lengths(prefs))
    print(f"wrote {counted(len(prefs), 'preference')}, by {by}, to {args.out}")
    return 0


def _only_score(source: str, responses: Responses) -> str:
    if len(responses.score_names) != 1:
        named = ", ".join(responses.score_names) or "none: rate them with popmargin data rate"
        raise DataError(f"{source}: which score says what is better? Give --by NAME. Scores: {named}.")
    return responses.score_names[0]


def _lengths(prefs: Preferences) -> str:
    """How long both sides are: a score that grows with length makes every round's responses longer."""
    unit = "tokens" if {"chosen_tokens", "rejected_tokens"} <= set(prefs.columns) else "characters"
    names = ("chosen_tokens", "rejected_tokens") if unit == "tokens" else ("chosen", "rejected")
    chosen, rejected = (
        np.array([_length(value) for batch in prefs.batches(name) for value in batch[name]]) for name in names
    )
    longer = np.mean(np.sign(chosen - rejected) / 2 + 0.5)
    means = f"chosen {chosen.mean():.1f}, rejected {rejected.mean():.1f} {unit}"
    return f"mean length: {means}; the chosen response is longer in {longer:.0%}"


def _length(value: Any) -> float:
    if isinstance(value, str):
        return len(value)
    return sum(len(turn["content"] or "") for turn in value) if isinstance(value, list) else value
