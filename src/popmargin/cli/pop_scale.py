"""popmargin pop scale and pop ask: fit the strength scale of edges, and choose the comparisons to ask for next."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from popmargin.bounds import Positive, RightShare
from popmargin.cli.data_options import add_data_arguments, load_data, seed
from popmargin.cli.numbers import number
from popmargin.cli.outputs import add_overwrite, check_outputs
from popmargin.cli.weights import add_weights, weights_of
from popmargin.data.saving import SAVE_SUFFIXES
from popmargin.errors import ConfigError, counted
from popmargin.files import PARQUET, whole_file
from popmargin.pop.active import ActiveSampler
from popmargin.pop.edge_sources import read_edges
from popmargin.pop.fit import fit_strengths
from popmargin.pop.labelled import weighted_annotators
from popmargin.pop.scale import StrengthScale
from popmargin.pop.strengths import SLOPE, with_strengths
from popmargin.pop.zero import right_share


def add_parsers(verbs: Any) -> None:
    """Add `pop scale` and `pop ask`."""
    scale = verbs.add_parser("scale", help="fit a strength for every preference from edges, with standard errors")
    scale.add_argument("edges", help="PoP edges: a Parquet file, or a label store (labels.db)")
    scale.add_argument("--data", required=True, help="the preferences they compare")
    scale.add_argument("--out", type=Path, required=True, help="Parquet file to write")
    _add_model_arguments(scale)
    scale.add_argument(
        "--ties",
        choices=("davidson", "half", "drop"),
        help="model ties, count them as half a win each, or drop them (default: davidson; thurstone: half)",
    )
    scale.add_argument("--without", nargs="+", metavar="NAME", default=[], help="annotators whose labels are left out")
    add_weights(scale)
    scale.add_argument("--reliability", action="store_true", help="also fit each annotator's reliability")
    scale.add_argument(
        "--confidence",
        choices=("weight", "probability", "ignore"),
        default="weight",
        help="what the edges' confidence means: a label's weight, or the probability that it is right (default: "
        "%(default)s)",
    )
    scale.add_argument(
        "--estimate",
        choices=("mean", "mode"),
        default="mean",
        help="posterior mean (well-calibrated intervals) or mode (faster) (default: %(default)s)",
    )
    scale.add_argument("--seed", type=seed, default=0, help="seed for estimating standard errors (default: 0)")
    scale.add_argument("--preferences-out", type=Path, help="also write the preferences with their strength")
    scale.add_argument(
        "--as",
        dest="use",
        choices=("soft_label", "margin", "strength"),
        default="soft_label",
        help="column to write it to: a soft label, ratings whose gap is the margin, or the strength (default: "
        "%(default)s)",
    )
    scale.add_argument(
        "--slope",
        type=number(Positive),
        default=SLOPE,
        help="log-odds of the soft label per unit of strength (default: 1.5)",
    )
    zero = scale.add_mutually_exclusive_group()
    zero.add_argument(
        "--right",
        type=number(RightShare),
        help="share of labels that are right: preferences below that place turn round (default: all are right)",
    )
    zero.add_argument("--agreement", type=number(RightShare), help="the same from how often a second annotator agrees")
    zero.add_argument("--wrong", metavar="COLUMN", help="the same from a column: 1 where a label was called wrong")
    scale.add_argument("--json", action="store_true", help="print JSON")
    add_overwrite(scale)
    add_data_arguments(scale)
    scale.set_defaults(func=_scale)
    ask = verbs.add_parser("ask", help="choose the comparisons most informative about the scale, for people to answer")
    ask.add_argument("edges", nargs="?", help="answers so far, a file or a label store; omit it in the first round")
    ask.add_argument("--data", required=True, help="the preferences")
    ask.add_argument("--n", type=int, default=200, help="comparisons to choose (default: %(default)s)")
    ask.add_argument("--out", type=Path, required=True, help="Parquet file to write: columns first, second (ids)")
    ask.add_argument("--seed", type=seed, default=0, help="random seed (default: 0)")
    _add_model_arguments(ask)
    add_overwrite(ask)
    add_data_arguments(ask)
    ask.set_defaults(func=_ask)


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        choices=("bradley_terry", "thurstone"),
        default="bradley_terry",
        help="logistic or normal comparison noise (default: %(default)s)",
    )
    parser.add_argument(
        "--ridge", type=float, default=0.1, help="precision of the prior on strengths (default: %(default)s)"
    )


def _scale(args: argparse.Namespace) -> int:
    zero = {"--right": args.right, "--agreement": args.agreement, "--wrong": args.wrong}
    given = [flag for flag, value in zero.items() if value is not None]
    if given and args.preferences_out is None:
        raise ConfigError(
            f"{given[0]} has no effect without --preferences-out: the scale itself has no zero. Add it, or set "
            f"--pop.zero.{given[0].removeprefix('--')} in training."
        )
    weights = weights_of(args)
    if weights and args.confidence != "weight":
        raise ConfigError(
            f"--weight multiplies weights, but --confidence {args.confidence} has none. Omit one of them."
        )
    inputs = [args.data, *_store_file(args.edges)]
    check_outputs(args, {"--out": args.out}, PARQUET, inputs)
    check_outputs(args, {"--preferences-out": args.preferences_out}, SAVE_SUFFIXES, [*inputs, args.out])
    preferences = load_data(args, args.data)
    edges = read_edges(args.edges, preferences.ids, without=args.without)
    if args.confidence != "weight" and edges.parameters.get("weights"):
        names = ", ".join(edges.parameters["weights"])
        raise ConfigError(
            f"The labels of {names} have a weight, and --confidence {args.confidence} has none. Use --confidence "
            "weight, or set their weight to 1: popmargin label annotators weight."
        )
    if weights:
        edges = weighted_annotators(edges, weights, args.edges)
    scale = fit_strengths(
        edges,
        preferences.ids,
        model=args.model,
        ridge=args.ridge,
        ties=args.ties,
        reliability=args.reliability,
        confidence=args.confidence,
        estimate=args.estimate,
        seed=args.seed,
    )
    scale.save(args.out)
    if args.preferences_out is not None:
        wrong = None if args.wrong is None else preferences.column(args.wrong)
        right = right_share(scale.strength, right=args.right, agreement=args.agreement, wrong=wrong)
        with_strengths(preferences, scale, use=args.use, slope=args.slope, right=right).save(args.preferences_out)
        if right is not None and args.use != "soft_label":
            print(f"{args.preferences_out}: where the {args.use} is negative, read it with --contradictions keep "
                  "(data.contradictions)", file=sys.stderr)  # fmt: skip
    if args.json:
        print(json.dumps(_facts(scale), indent=2))
        return 0
    print(f"wrote the strengths of {counted(len(scale), 'preference')} to {args.out}")
    if args.preferences_out is not None:
        print(f"wrote the preferences with their {args.use} to {args.preferences_out}")
    print(describe(scale))
    return 0


def _facts(scale: StrengthScale) -> dict[str, Any]:
    return {
        "preferences": len(scale),
        "model": scale.model,
        "converged": scale.converged,
        "log_likelihood": scale.log_likelihood,
        "tie": scale.tie,
        "reliability": {
            name: {"estimate": value, "low": scale.reliability_interval[name][0],
                   "high": scale.reliability_interval[name][1]}
            for name, value in scale.reliability.items()
        },
        **scale.parameters,
    }  # fmt: skip


def describe(scale: StrengthScale) -> str:
    """A fitted scale as a few lines of text."""
    facts, known = scale.parameters, scale.comparisons > 0
    error = float(np.median(scale.standard_error[known]))
    spread = float(scale.strength[known].std())
    rows = {
        "model": f"{scale.model}, ridge {facts['ridge']:g}, {facts['newton_steps']} Newton steps"
        + ("" if scale.converged else "; NOT CONVERGED"),
        "comparisons": f"{facts['comparisons']} of {counted(facts['edges'], 'edge')}; {facts['without_weaker_side']} "
        "without a weaker side",
        **({"rankings": f"{facts['rankings']}, each one answer"} if facts.get("rankings") else {}),
        "ties": f"{facts['ties_seen']}"
        + (f", {facts['ties']}" if facts["ties"] else "")
        + (f", ν = {scale.tie:.3f}" if scale.tie is not None else ""),
        "unknown": f"{counted(scale.unknown, 'preference')} without a comparison: strength 0, the prior's mean",
        "components": f"{facts['components']}; only the prior puts them on a common scale",
        "strength": f"spread {spread:.3f} (standard deviation), median standard error {error:.3f} "
        f"({facts['standard_errors']})",
    }
    for name, value in sorted(scale.reliability.items(), key=lambda entry: -entry[1]):
        low, high = scale.reliability_interval[name]
        rows[name] = f"reports correctly {value:.1%} [{low:.1%}, {high:.1%}]"
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows.items())


def _store_file(edges: str | None) -> list[str]:
    """The file that edges are read from, without a project's name."""
    return [] if edges is None else [edges.partition("#")[0]]


def _ask(args: argparse.Namespace) -> int:
    check_outputs(args, {"--out": args.out}, PARQUET, [args.data, *_store_file(args.edges)])
    preferences = load_data(args, args.data)
    sampler = ActiveSampler(preferences.ids, seed=args.seed, model=args.model, ridge=args.ridge)
    if args.edges is not None:
        sampler.tell(read_edges(args.edges, preferences.ids))
    pairs = sampler.ask(args.n)
    columns = [pa.array([pair[side] for pair in pairs], pa.string()) for side in (0, 1)]
    with whole_file(args.out, PARQUET) as partial:
        pq.write_table(pa.table(columns, names=["first", "second"]), partial, compression="zstd")
    print(f"wrote {counted(len(pairs), 'comparison')} to ask to {args.out}")
    if len(pairs) < args.n:
        print("every other pair has already been compared")
    return 0
