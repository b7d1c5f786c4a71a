"""`popmargin study best-of-n`: which labels make a reward model choose well among n samples."""

import argparse
from pathlib import Path
from typing import Any

from popmargin.cli.overrides import add_fields
from popmargin.errors import counted
from popmargin.study.best_of_n.best_of_n_config import BestOfNConfig, load_best_of_n


def add_parser(verbs: Any) -> None:
    """Add `study best-of-n` to the command line."""
    parser = verbs.add_parser(
        "best-of-n",
        help="which labels make a reward model choose well among n samples of a policy, by a gold reward",
        description="Simulate an annotator by a gold reward, spend the same minutes in many ways, fit reward models to "
        "what each buys, let all of them choose among the same samples, and write one HTML report: gold reward against "
        "divergence for n = 1, 2, 4 …, beside the accuracy on pairs. Finished draws are kept, so the same command goes "
        "on after an interruption, and --draws adds more. Any field can be set: --sizes '[100, 400]'; --samples.score "
        "NAME. Values are YAML.",
        usage="popmargin study best-of-n [CONFIG] [--output FOLDER] [--overwrite] [--FIELD VALUE ...]",
    )
    parser.add_argument("config", type=Path, nargs="?", help="YAML file")
    parser.add_argument("--output", help="folder of the study")
    parser.add_argument("--overwrite", action="store_true", help="begin again where settings or samples have changed")
    add_fields(parser, BestOfNConfig)
    parser.set_defaults(func=run_best_of_n_study, standing=best_of_n_standing)


def config_of(args: argparse.Namespace) -> BestOfNConfig:
    """The study that the flags name.

    Raises:
        ConfigError: unknown keys or values that do not fit.
    """
    changes: dict[str, Any] = {} if args.output is None else {"output": args.output}
    return load_best_of_n(args.config, args.overrides, changes)


def run_best_of_n_study(args: argparse.Namespace) -> int:
    """Run what is missing, and print every arm."""
    config = config_of(args)
    from popmargin.report.best_of_n_page import best_of_n_table
    from popmargin.study.best_of_n.best_of_n_study import run_best_of_n

    results, report = run_best_of_n(config, overwrite=args.overwrite)
    print(f"{best_of_n_table(results)}\n\n{counted(results.draws, 'draw')}, {results.seconds:.0f} s\nreport: {report}")
    return 0


def best_of_n_standing(args: argparse.Namespace) -> tuple[str, list[str]]:
    """How much is finished, after an interruption."""
    config = config_of(args)
    from popmargin.study.best_of_n.best_of_n_study import finished_draws

    done, count = finished_draws(config)
    return f"{done} of {counted(count, 'part')} of {config.output} are finished, and are kept.", []
