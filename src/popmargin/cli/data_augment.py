"""popmargin data augment: every pair twice, under the goal of either response."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from popmargin.cli.data_options import seed
from popmargin.cli.data_source import add_bad_rows, add_source, load_source
from popmargin.cli.outputs import add_overwrite, check_outputs
from popmargin.data.saving import SAVE_SUFFIXES
from popmargin.errors import ConfigError, counted


def add_parser(verbs: Any) -> None:
    """Add `data augment` to the command line."""
    parser = verbs.add_parser(
        "augment",
        help="reward-augmented data: every pair at the goal of chosen, and reversed at the goal of rejected",
    )
    add_source(parser)
    add_bad_rows(parser)
    parser.add_argument("--out", type=Path, required=True, help="file to write: .parquet, .jsonl or .jsonl.gz")
    parser.add_argument(
        "--score",
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help="what is printed and its columns: Helpfulness=helpful reads chosen_helpful and rejected_helpful; may be "
        "repeated (default: 'Overall score' from the ratings)",
    )
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument(
        "--scale",
        type=_scale,
        metavar="MIN:MAX",
        help="the scores' own scale, mapped to 1:10 (default: 1:10, as it is)",
    )
    scale.add_argument(
        "--quantiles", action="store_true", help="for scores without a scale: their quantiles, from 1 to 10"
    )
    parser.add_argument(
        "--step", type=float, default=0.5, help="mapped scores are rounded to multiples of it (default: %(default)s)"
    )
    parser.add_argument("--half", action="store_true", help="keep one of the two rows of each pair, at random")
    parser.add_argument("--half-seed", type=seed, default=0, help="seed of --half (default: 0)")
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--model",
        metavar="PATH",
        help="put the goal where this model's chat template shows it (default: system message)",
    )
    place.add_argument("--place", choices=("system", "user"), help="system message, or before the first user turn")
    add_overwrite(parser)
    parser.set_defaults(func=_augment)


def _scale(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        ends = float(low), float(high)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not MIN:MAX, e.g. 0:4") from None
    if not ends[0] < ends[1]:
        raise argparse.ArgumentTypeError(f"'{text}' is not MIN:MAX: the smaller end comes first, e.g. 0:4")
    return ends


def _name(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    return (name.strip(), column.strip()) if equals else (text.strip(), text.strip())


def _scores(given: Sequence[str]) -> dict[str, str] | None:
    """What is printed, and its columns; None takes the ratings.

    Raises:
        ConfigError: a name is given twice.
    """
    scores: dict[str, str] = {}
    for name, column in map(_name, given):
        if name in scores:
            raise ConfigError(f"--score {name} is given twice. A goal has one score of each name; choose another name.")
        scores[name] = column
    return scores or None


def _augment(args: argparse.Namespace) -> int:
    from popmargin.data.augment import augment, place_for

    check_outputs(args, {"--out": args.out}, SAVE_SUFFIXES, [args.source])
    preferences = load_source(args)
    place: Any = args.place or "system"
    if args.model is not None:
        from popmargin.models.policies import load_tokenizer

        place = place_for(load_tokenizer(args.model))
    rows = augment(
        preferences,
        scores=_scores(args.score),
        scale="quantile" if args.quantiles else args.scale,
        step=args.step,
        half=args.half,
        seed=args.half_seed,
        place=place,
    )
    rows.save(args.out)
    for note in rows.report.notes[len(preferences.report.notes) :]:
        print(note)
    where = "before the prompt"
    if rows.conversational:
        where = "in the system message" if place == "system" else "before the first user turn"
    print(f"wrote {counted(len(rows), 'preference')} to {args.out}; the goal stands {where}")
    return 0
