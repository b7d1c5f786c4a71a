"""SOURCE of the verbs of `popmargin data`: its flags, how it is read, and the account of that."""

import argparse
from typing import Any

from popmargin.cli.data_options import SOURCE_HELP, SPLIT_HELP, add_pair_arguments, column
from popmargin.data.formats import ALIASES, FORMATS
from popmargin.data.load import load_preferences
from popmargin.data.load_report import LoadReport
from popmargin.data.schema import Preferences
from popmargin.demo.folder import embedded_data


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add SOURCE and the flags that say how it is read."""
    parser.add_argument("source", help=SOURCE_HELP)
    parser.add_argument("--format", default="auto", metavar="NAME", help=f"auto, {', '.join(FORMATS)} (default: auto)")
    parser.add_argument("--split", help=SPLIT_HELP)
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        type=column,
        metavar="FIELD=COLUMN",
        help=f"which column holds a field, e.g. prompt=question; fields: {', '.join([*ALIASES, 'text', 'rating'])}",
    )
    add_pair_arguments(parser, "--seed")


def add_bad_rows(parser: argparse.ArgumentParser) -> None:
    """Add --bad-rows."""
    parser.add_argument(
        "--bad-rows",
        choices=("error", "drop"),
        default="error",
        help="stop at unusable rows, or leave them out and report them (default: %(default)s)",
    )


def source_options(args: argparse.Namespace) -> dict[str, Any]:
    """What the flags of `add_source` say, as `load_preferences` takes it."""
    return {
        "format": args.format,
        "split": args.split,
        "pairs": args.pairs,
        "min_gap": args.min_gap,
        "seed": args.seed,
        "columns": dict(args.column),
        "contradictions": args.contradictions,
        "max_image_pixels": args.max_image_pixels,
    }


def load_source(args: argparse.Namespace) -> Preferences:
    """The preferences of SOURCE, with the account on stdout."""
    prefs = load_preferences(embedded_data(args.source) or args.source, bad_rows=args.bad_rows, **source_options(args))
    print_report(prefs.report, limit=5)
    return prefs


def print_report(report: LoadReport, *, limit: int) -> None:
    """Print the account of reading, mistakes first."""
    print(report)
    used = ", ".join(name if name == column else f"{name} = {column}" for name, column in report.columns_used.items())
    kept = f"; kept as they are: {', '.join(report.columns_kept)}" if report.columns_kept else ""
    not_kept = f"; not kept: {', '.join(report.columns_unused)}" if report.columns_unused else ""
    print(f"  columns used: {used or 'none'}{kept}{not_kept}")
    # Mistakes first: ties and small gaps can be many, and need no action.
    problems = [*report.fatal, *(problem for problem in report.problems if not problem.fatal)]
    for problem in problems[:limit]:
        print(f"  {problem}")
    if len(problems) > limit:
        print(f"  … and {len(problems) - limit} more")
