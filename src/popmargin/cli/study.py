"""`popmargin study`: plan a study, and ask what an annotator's next hour buys, and what it does for best of n."""

import argparse
import json
from pathlib import Path
from typing import Any

from popmargin.bounds import Size
from popmargin.cli import study_best_of_n, study_budget
from popmargin.cli.numbers import number


def add_parser(subparsers: Any) -> None:
    """Add `study power | budget | best-of-n` to the command line."""
    parser = subparsers.add_parser("study", help="plan a study; what the next hour of an annotator buys")
    verbs = parser.add_subparsers(dest="study_verb", required=True, metavar="{power,budget,best-of-n}")
    power = verbs.add_parser(
        "power",
        help="what differences larger studies would find, from a pilot's runs",
        description="Takes the spread of a pilot's differences between prompts, between seeds and of single cells, and "
        "simulates larger studies. Prints the smallest difference that 80% of them would tell from chance, and the "
        "power for a difference that you name.",
    )
    power.add_argument("runs", nargs="+", type=Path, help="the pilot: the folder of a study, or run directories")
    power.add_argument(
        "--metric",
        choices=("accuracy", "mean_reward"),
        default="accuracy",
        help="of held-out preferences, or of generations (default: %(default)s)",
    )
    power.add_argument("--baseline", help="the arm that others are compared with (default: the first)")
    power.add_argument("--arm", action="append", default=[], help="an arm that counts; repeatable (default: all)")
    power.add_argument("--difference", type=float, help="to be found: points of accuracy, or reward units")
    power.add_argument(
        "--prompts", type=_sizes, default=(100, 400, 1600), help="held-out prompts (default: 100,400,1600)"
    )
    power.add_argument("--seeds", type=_sizes, default=(3, 5, 10, 20), help="training runs (default: 3,5,10,20)")
    power.add_argument("--json", action="store_true", help="print JSON")
    power.set_defaults(func=run_power)
    study_budget.add_parser(verbs)
    study_best_of_n.add_parser(verbs)


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(number(Size)(part.strip())) for part in text.split(","))


def run_power(args: argparse.Namespace) -> int:
    """Plan, and print."""
    from popmargin.study.power_of_study import plan_study

    unit = 100.0 if args.metric == "accuracy" else 1.0
    plan = plan_study(
        args.runs,
        metric=args.metric,
        baseline=args.baseline,
        only=args.arm,
        difference=None if args.difference is None else args.difference / unit,
        prompts=args.prompts,
        seeds=args.seeds,
    )
    print(json.dumps(plan.to_dict(), indent=2) if args.json else describe(plan))
    return 0


def describe(plan: Any) -> str:
    """A plan as text."""
    share = plan.metric == "accuracy"
    unit, word = (100.0, "points") if share else (1.0, "reward units")
    digits = 1 if share else 3

    def shown(value: float, sign: str = "") -> str:
        return f"{unit * value:{sign}.{digits}f}"

    of = plan.components
    parts = {"between prompts": of.clusters, "between seeds": of.seeds, "of single cells": of.cells}
    spreads = ", ".join(f"{shown(value**0.5)} {name}" for name, value in parts.items())
    lines = [
        f"pilot: {plan.prompts} prompts, {plan.seeds} seeds; {plan.metric} against '{plan.baseline}', {word}",
        *(
            f"  {name}: {shown(gap.estimate, '+')} [{shown(gap.low, '+')}, {shown(gap.high, '+')}]"
            for name, gap in plan.differences.items()
        ),
        f"standard deviations of a difference: {spreads}",
        "",
        f"the smallest difference found in 80% of studies, {word}"
        + ("; power" if plan.designs[0].power is not None else ""),
    ]
    seeds = sorted({design.seeds for design in plan.designs})
    lines.append("prompts " + "".join(f"{f'{count} seeds':>16}" for count in seeds))
    for prompts in sorted({design.prompts for design in plan.designs}):
        cells = {design.seeds: design for design in plan.designs if design.prompts == prompts}
        said = [shown(cells[count].detectable) for count in seeds]
        if cells[seeds[0]].power is not None:
            said = [f"{text} ({cells[count].power:.0%})" for text, count in zip(said, seeds, strict=True)]
        lines.append(f"{prompts:<8}" + "".join(f"{text:>16}" for text in said))
    return "\n".join(lines)
