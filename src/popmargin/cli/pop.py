"""popmargin pop: draw preferences over preferences, and look at them."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from popmargin.cli.rewards import add_reward_arguments, reward_of
from popmargin.data.load import load_preferences
from popmargin.data.pairs import PAIRINGS
from popmargin.data.schema import Preferences
from popmargin.evaluation.rate import response_ratings
from popmargin.pop.edges import PopEdges
from popmargin.pop.sampling import sample_edges
from popmargin.pop.stats import EdgeStatistics, edge_statistics


def add_parser(subparsers: Any) -> None:
    """Add `pop sample` and `pop stats` to the command line."""
    parser = subparsers.add_parser("pop", help="preferences over preferences: sample edges, look at their statistics")
    verbs = parser.add_subparsers(dest="pop_verb", required=True, metavar="{sample,stats}")
    sample = verbs.add_parser("sample", help="draw pairs of preferences and label which is the stronger one")
    sample.add_argument("data", help="preferences: a file, a folder or a hub id, with ratings or a strength")
    add_reward_arguments(sample, required=False, purpose="label with this instead of the data's ratings")
    sample.add_argument("--source", help="what the labels come from, for the edges (default: ratings, or the reward)")
    sample.add_argument("--out", type=Path, required=True, help="Parquet file to write")
    sample.add_argument(
        "--sampling",
        choices=("iterative", "random"),
        default="iterative",
        help="iterative: every preference is the stronger side of k edges; random: k pairs a preference at random "
        "(default: %(default)s)",
    )
    sample.add_argument("--k", type=int, default=1, help="edges for each preference (default: %(default)s)")
    sample.add_argument("--seed", type=int, default=0, help="seed of all draws (default: %(default)s)")
    sample.add_argument("--flip", type=float, default=0.0, help="probability that a label is wrong (default: 0)")
    sample.add_argument(
        "--temperature", type=float, default=0.0, help="Bradley-Terry noise, on the scale of the strengths (default: 0)"
    )
    sample.add_argument("--budget", type=int, help="iterative: most comparisons for each preference (default: all)")
    sample.add_argument(
        "--unmatched",
        choices=("keep", "drop"),
        default="keep",
        help="iterative: a preference without a weaker partner trains with margin 0, or is left out (default: keep)",
    )
    _add_data_arguments(sample)
    sample.set_defaults(func=_sample)
    stats = verbs.add_parser("stats", help="degrees, who is trained on, agreement, cycles, ties")
    stats.add_argument("edges", type=Path, help="edges that `pop sample` wrote")
    stats.add_argument("--data", required=True, help="the preferences that they are about")
    stats.add_argument("--json", action="store_true", help="print JSON")
    _add_data_arguments(stats)
    stats.set_defaults(func=_stats)


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
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
    data.add_argument("--data-seed", type=int, default=0, help="seed of drawn pairs of responses (default: 0)")
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


def _load(args: argparse.Namespace, source: str) -> Preferences:
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


def _sample(args: argparse.Namespace) -> int:
    reward = reward_of(args) if args.reward is not None else None
    preferences = _load(args, args.data)
    strength = preferences.strength if reward is None else response_ratings(preferences, reward).gap
    edges = sample_edges(
        preferences.ids,
        strength,
        sampling=args.sampling,
        k=args.k,
        seed=args.seed,
        flip=args.flip,
        temperature=args.temperature,
        budget=args.budget,
        unmatched=args.unmatched,
        source=args.source or args.reward or "ratings",
    )
    edges.save(args.out)
    print(f"wrote {len(edges)} edges to {args.out}")
    print(describe(edge_statistics(edges, preferences.ids, strength)))
    return 0


def _stats(args: argparse.Namespace) -> int:
    edges = PopEdges.load(args.edges)
    preferences = _load(args, args.data)
    facts = edge_statistics(edges, preferences.ids, preferences.strength)
    if args.json:
        print(json.dumps({**facts.to_dict(), "parameters": edges.parameters}, indent=2))
    else:
        made = ", ".join(f"{name}={value}" for name, value in edges.parameters.items() if "fingerprint" not in name)
        print(f"made with      {made or 'unknown parameters'}")
        print(describe(facts))
    return 0


def describe(facts: EdgeStatistics) -> str:
    """Edge statistics as a few lines of text."""
    share = "  ".join(
        f"{name} {facts.training_share[name]:.1%} (data {facts.data_share[name]:.1%})" for name in facts.training_share
    )
    rows = {
        "preferences": f"{facts.preferences}",
        "comparisons": "unknown" if facts.comparisons is None else f"{facts.comparisons} labels asked for",
        "edges": f"{facts.edges} = {facts.training_rows} training rows + {facts.ties} ties",
        "unmatched": f"{facts.unmatched} training rows without a weaker side (margin 0)",
        "as stronger": f"mean {facts.as_stronger.mean:.2f}, most {facts.as_stronger.maximum}, "
        f"never {facts.as_stronger.never}",
        "as weaker": f"mean {facts.as_weaker.mean:.2f}, most {facts.as_weaker.maximum}, never {facts.as_weaker.never}",
        "trained on": share,
        "labels right": f"{facts.agreement:.1%} agree with the strengths",
        "contradicting": f"{facts.contradicting_pairs} pairs labelled both ways",
        "repeated": f"{facts.repeated_edges} rows",
        "on cycles": f"{facts.edges_on_cycles} rows",
        "components": f"{facts.components}, the largest with {facts.largest_component} preferences; "
        f"{facts.isolated} isolated",
    }
    return "\n".join(f"{name:<14} {text}" for name, text in rows.items())
