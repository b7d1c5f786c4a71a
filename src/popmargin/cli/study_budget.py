"""`popmargin study budget`: what the next hour of an annotator buys."""

import argparse
from pathlib import Path
from typing import Any

from popmargin.cli.overrides import add_fields
from popmargin.errors import counted
from popmargin.study.budget.budget_config import BudgetConfig, load_budget


def add_parser(verbs: Any) -> None:
    """Add `study budget` to the command line."""
    parser = verbs.add_parser(
        "budget",
        help="what the next hour of an annotator buys: more preferences, comparisons, votes, ratings or grades",
        description="Simulate an annotator on human votes or ratings, spend the same minutes in many ways, fit reward "
        "models to what each buys, and write one HTML report with the frontier and what to take. Finished draws are "
        "kept, so the same command goes on after an interruption, and --draws adds more. Any field can be set: --sizes "
        "'[100, 500]'; --prices.decide_seconds 8. Values are YAML.",
        usage="popmargin study budget [CONFIG] [--data FILE] [--output FOLDER] [--overwrite] [--FIELD VALUE ...]",
    )
    parser.add_argument("config", type=Path, nargs="?", help="YAML file")
    parser.add_argument("--data", metavar="FILE", help="preferences with votes, soft labels, ratings or strengths")
    parser.add_argument("--output", help="folder of the study")
    parser.add_argument("--overwrite", action="store_true", help="begin again where settings or data have changed")
    add_fields(parser, BudgetConfig)
    parser.set_defaults(func=run_budget_study, standing=budget_standing)


def config_of(args: argparse.Namespace) -> BudgetConfig:
    """The study that the flags name.

    Raises:
        ConfigError: unknown keys or values that do not fit.
    """
    changes: dict[str, Any] = {} if args.output is None else {"output": args.output}
    if args.data is not None:
        changes["data"] = {"path": args.data}
    return load_budget(args.config, args.overrides, changes)


def run_budget_study(args: argparse.Namespace) -> int:
    """Run what is missing, and print what to take."""
    config = config_of(args)
    from popmargin.report.budget_page import budget_table
    from popmargin.study.budget.budget_study import run_budget

    results, report = run_budget(config, overwrite=args.overwrite)
    print(f"{budget_table(results)}\n\n{counted(results.draws, 'draw')}, {results.seconds:.0f} s\nreport: {report}")
    return 0


def budget_standing(args: argparse.Namespace) -> tuple[str, list[str]]:
    """How much is finished, after an interruption."""
    config = config_of(args)
    from popmargin.study.budget.budget_study import finished_draws

    done, count = finished_draws(config)
    return f"{done} of {counted(count, 'part')} of {config.output} are finished, and are kept.", []
