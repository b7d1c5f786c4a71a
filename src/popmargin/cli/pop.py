"""popmargin pop: sample preferences over preferences, show statistics, fit their scale, choose what to ask next."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.account import Step
from popmargin.cli import pop_scale
from popmargin.cli.data_options import add_data_arguments, load_data, seed
from popmargin.cli.outputs import add_overwrite, check_outputs
from popmargin.cli.reward_options import add_reward_arguments, reward_of
from popmargin.data.schema import holds_images
from popmargin.errors import counted
from popmargin.files import PARQUET
from popmargin.pop.edges import PopEdges
from popmargin.pop.sampling import SAMPLINGS, sample_edges
from popmargin.pop.stats import EdgeStatistics, edge_statistics
from popmargin.rewards.naming import read_name
from popmargin.rewards.rate import response_ratings


def add_parser(subparsers: Any) -> None:
    """Add `pop sample | stats | scale | ask` to the command line."""
    parser = subparsers.add_parser("pop", help="preferences over preferences: sample edges, fit their scale")
    verbs = parser.add_subparsers(dest="pop_verb", required=True, metavar="{sample,stats,scale,ask}")
    sample = verbs.add_parser("sample", help="draw pairs of preferences and label which one is stronger")
    sample.add_argument("data", help="preferences with ratings or a strength: a file, folder or hub id")
    add_reward_arguments(sample, required=False, purpose="label with this instead of the data's ratings")
    sample.add_argument("--source", help="source name stored with the edges (default: ratings, or the reward)")
    sample.add_argument("--out", type=Path, required=True, help="Parquet file to write")
    sample.add_argument(
        "--sampling",
        choices=SAMPLINGS,
        default="chain",
        help="chain: k pairs per preference, each of which shares a preference with the one before; random: as many "
        "random pairs; iterative: every preference is the stronger side of k edges (the paper's); active: as many, "
        "chosen to be informative about the strength scale (default: %(default)s)",
    )
    sample.add_argument(
        "--strength",
        choices=("signed", "unsigned"),
        default="signed",
        help="compare by how much the preferred response is better, negative where it is worse, or the absolute values "
        "(default: %(default)s)",
    )
    sample.add_argument("--k", type=int, default=1, help="edges per preference (default: %(default)s)")
    sample.add_argument("--seed", type=seed, default=0, help="random seed (default: %(default)s)")
    sample.add_argument("--flip", type=float, default=0.0, help="probability that a label is wrong (default: 0)")
    sample.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        help="temperature of Bradley-Terry noise, in units of strength (default: 0)",
    )
    sample.add_argument(
        "--budget",
        type=int,
        help="iterative: maximum comparisons per preference (default: all); active: total comparisons (default: k "
        "per preference)",
    )
    sample.add_argument(
        "--unmatched",
        choices=("keep", "drop"),
        default="keep",
        help="iterative: keep preferences without a weaker partner (margin 0), or drop them (default: keep)",
    )
    add_overwrite(sample)
    add_data_arguments(sample)
    sample.set_defaults(func=_sample)
    stats = verbs.add_parser("stats", help="show degrees, what is trained on, agreement, cycles and ties")
    stats.add_argument("edges", type=Path, help="edges written by `pop sample`")
    stats.add_argument("--data", required=True, help="the preferences they compare")
    stats.add_argument("--json", action="store_true", help="print JSON")
    add_data_arguments(stats)
    stats.set_defaults(func=_stats)
    pop_scale.add_parsers(verbs)


def _sample(args: argparse.Namespace) -> int:
    check_outputs(args, {"--out": args.out}, PARQUET, [args.data])
    if args.reward is not None:
        read_name(args.reward)  # a name that means nothing, before any work
    preferences = load_data(args, args.data)
    work = f"pop sample {args.out.resolve()}"
    reward = None if args.reward is None else reward_of(args, work, images=holds_images(preferences))
    ratings = None if reward is None else response_ratings(preferences, reward)
    strength = preferences.strength if ratings is None else ratings.gap
    for note in () if ratings is None else ratings.notes:
        print(note)
    if args.strength == "unsigned":
        strength = np.abs(strength)
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
    print(f"wrote {counted(len(edges), 'edge')} to {args.out}")
    print(describe(edge_statistics(edges, preferences.ids, strength)))
    return 0


def _stats(args: argparse.Namespace) -> int:
    edges = PopEdges.load(args.edges)
    preferences = load_data(args, args.data)
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
    sides = {"only the weaker side": facts.only_weaker, "only in ties": facts.only_tied, "in no edge": facts.in_no_edge}
    known = Step(
        name="preferences",
        rows_in=facts.preferences,
        kept={"the stronger side of an edge": facts.preferences - sum(sides.values())},
        left_out=sides,
    )
    rows = {
        "preferences": known.arithmetic,
        "comparisons": "unknown" if facts.comparisons is None else f"{counted(facts.comparisons, 'label')} requested",
        "edges": f"{facts.edges} = {counted(facts.training_rows, 'training row')} + {counted(facts.ties, 'tie')}",
        "unmatched": f"{counted(facts.unmatched, 'training row')} without a weaker side (margin 0)",
        "as stronger": f"mean {facts.as_stronger.mean:.2f}, max {facts.as_stronger.maximum}, never "
        f"{facts.as_stronger.never}",
        "as weaker": f"mean {facts.as_weaker.mean:.2f}, max {facts.as_weaker.maximum}, never {facts.as_weaker.never}",
        "trained on": share,
        "labels right": f"{facts.agreement:.1%} agree with the strengths",
        "contradicting": f"{counted(facts.contradicting_pairs, 'pair')} labelled both ways",
        "repeated": counted(facts.repeated_edges, "row"),
        "on cycles": counted(facts.edges_on_cycles, "row"),
        "components": f"{facts.components}, the largest with {counted(facts.largest_component, 'preference')}; "
        f"{facts.isolated} isolated",
    }
    return "\n".join(f"{name:<14} {text}" for name, text in rows.items())
