"""popmargin recommend eval."""

import argparse
import sys
from pathlib import Path
from typing import Any

from popmargin.cli.overrides import add_fields
from popmargin.config import apply_overrides
from popmargin.errors import ConfigError
from popmargin.study.recommenders.recommend_config import MeasuredConfig


def add_parser(verbs: Any) -> None:
    """Add `recommend eval`."""
    parser = verbs.add_parser(
        "eval",
        help="measure a trained model, and baselines beside it",
        description="Rank the whole catalogue for every test user with a trained model, and with baselines that are "
        "fitted on the training part of the same split. The data and split are those of the training unless --data "
        "names other ones. Fields can be set: --data.split time --evaluation.draws 5. Values are YAML.",
        usage="popmargin recommend eval RUN [--data FILE] [--beside NAME,NAME] [--json] [--output FOLDER] "
        "[--SECTION.FIELD VALUE ...]",
    )
    parser.add_argument("run", type=Path, help="run directory, or the folder of a model")
    parser.add_argument("--data", metavar="FILE", help="file of events (default: that of the training)")
    parser.add_argument("--beside", metavar="NAMES", default="", help="baselines, separated by commas")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="for results.json and report.html (default: evaluation/recommendations in the run directory)",
    )
    add_fields(parser, MeasuredConfig)
    parser.set_defaults(func=run, standing=standing)


def standing(args: argparse.Namespace) -> tuple[str, list[str]]:
    """An evaluation is written only when complete, so it starts over."""
    return f"the evaluation of {args.run} was not written; the model is unchanged.", []


def run(args: argparse.Namespace) -> int:
    """Measure, write and print."""
    changes = apply_overrides({} if args.data is None else {"data": {"path": args.data}}, args.overrides)
    beside = [name.strip() for name in args.beside.split(",") if name.strip()]
    from popmargin.files import whole_folder
    from popmargin.report.recommendation_page import text_table, write_recommendation_report
    from popmargin.study.recommenders.recommend_evaluation import evaluate_recommender
    from popmargin.training.run_directory import RunDirectory

    directory = RunDirectory(args.run)
    default = directory.evaluation / "recommendations" if directory.started else None
    output = default if args.output is None else args.output
    ours = output is not None and (output / "results.json").is_file() and (output / "report.html").is_file()
    if output is not None and output.exists() and not ours and any(output.iterdir() if output.is_dir() else [output]):
        raise ConfigError(f"{output} is not empty and holds no earlier evaluation. Choose another --output.")
    results, told = evaluate_recommender(args.run, changes, beside)
    for line in told:
        print(line, file=sys.stderr)
    if output is not None:
        with whole_folder(output, replace=True) as partial:
            results.save(partial / "results.json")
            write_recommendation_report(results, partial / "report.html")
    if args.json:
        print(results.to_json(), end="")
        return 0
    print("\n".join([*(results.reading if beside else []), *([""] if beside else []), text_table(results)]))
    if output is not None:
        print(f"\nreport: {output / 'report.html'}")
    return 0
