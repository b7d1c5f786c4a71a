"""popmargin data rate: a reward scores preferences, or responses."""

import argparse
from pathlib import Path
from typing import Any

from popmargin.account import Step
from popmargin.cli.data_source import add_bad_rows, add_source, load_source
from popmargin.cli.outputs import add_overwrite, check_outputs
from popmargin.cli.reward_options import add_reward_arguments, reward_of
from popmargin.data.read_responses import holds_responses
from popmargin.data.responses import Responses
from popmargin.data.saving import SAVE_SUFFIXES
from popmargin.errors import ConfigError, counted
from popmargin.rewards.naming import Named, read_name

_NAMES = {"implicit": "implicit", "server": "judge", "model": "reward"}
"""What a score is called by default, by the kind of reward; that of a function has the function's name."""


def add_parser(verbs: Any) -> None:
    """Add `data rate` to the command line."""
    parser = verbs.add_parser(
        "rate",
        help="write chosen_rating and rejected_rating of preferences, or a score of responses, from a reward",
        description="Rate preferences: both responses get a rating, and --disagree says what becomes of a label that "
        "the ratings contradict. Rate responses (one row a prompt with a list, or one row a response): each gets a "
        "score, named by --name; those that the reward cannot score have none, and are counted.",
    )
    add_source(parser)
    add_reward_arguments(parser, required=True, purpose="what rates the responses")
    parser.add_argument("--out", type=Path, required=True, help="file to write: .parquet, .jsonl or .jsonl.gz")
    parser.add_argument("--name", help="name of the score of responses (default: the function's, or the kind's)")
    parser.add_argument(
        "--disagree",
        choices=("error", "equal", "swap", "drop"),
        help="if the reward prefers the rejected response: stop, rate both the same, relabel, or leave out (default: "
        "error)",
    )
    add_overwrite(parser)
    add_bad_rows(parser)
    parser.set_defaults(func=_rate)


def _rate(args: argparse.Namespace) -> int:
    check_outputs(args, {"--out": args.out}, SAVE_SUFFIXES, [args.source])
    named = read_name(args.reward)  # a name that means nothing, before any work
    columns = dict(args.column)
    if args.format == "auto" and holds_responses(args.source, split=args.split, columns=columns):
        return _rate_responses(args, named, Responses.load(args.source, split=args.split, columns=columns))
    if args.name is not None:
        raise ConfigError(f"{args.source} holds preferences, whose ratings have names of their own. Remove --name.")
    from popmargin.data.schema import holds_images
    from popmargin.rewards.rate import response_ratings, with_ratings

    prefs, disagree = load_source(args), args.disagree or "error"
    ratings = response_ratings(prefs, reward_of(args, _work(args), images=holds_images(prefs)))
    against = int((ratings.gap < 0).sum())
    rated = with_ratings(prefs, ratings, disagree=disagree)
    rated.save(args.out)
    for note in ratings.notes:
        print(note)
    left_out = {"the reward prefers the rejected response": len(prefs) - len(rated)}
    step = Step(name=f"rated by {args.reward}", rows_in=len(prefs), kept={"kept": len(rated)}, left_out=left_out)
    print("\n".join(step.lines()))
    print(f"the reward agrees with {len(prefs) - against} of {counted(len(prefs), 'label')}; others: {disagree}")
    print(f"wrote {counted(len(rated), 'preference')}, rated by {args.reward}, to {args.out}")
    return 0


def _work(args: argparse.Namespace) -> str:
    return f"data rate {args.out.resolve()}"


def _rate_responses(args: argparse.Namespace, named: Named, responses: Responses) -> int:
    from popmargin.rewards.rate_responses import holds_images, rate_responses

    if args.disagree is not None or (args.pairs, args.min_gap, args.seed) != ("best_vs_worst", 0.0, 0):
        raise ConfigError(
            f"{args.source} holds responses, which are rated one by one: --disagree, --pairs, --min-gap and --seed are "
            "for preferences. Make pairs of rated responses with popmargin data pairs, or read the file as preferences "
            "with --format responses."
        )
    name = args.name or _NAMES.get(named.kind) or named.place.rpartition(":")[2].rpartition(".")[2]
    rated = rate_responses(responses, reward_of(args, _work(args), images=holds_images(responses)), name=name)
    rated.responses.save(args.out)
    for note in rated.notes:
        print(note)
    count = len(responses.texts)
    print(f"{count} responses in = {count - rated.missing} scored + {rated.missing} without a score")
    print(f"wrote {len(responses)} prompts with {count} responses, scored as '{name}' by {args.reward}, to {args.out}")
    return 0
