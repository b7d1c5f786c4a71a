"""`popmargin demo`."""

import argparse
from typing import Any

FULL: dict[str, Any] = {
    "title": "Controlled sentiment, full study",
    "output": "demo-report-full",
    "seeds": [0, 1, 2, 3, 4],
    "base": {"data": {"limit": None}, "evaluation": {"prompts": None}},
}


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "demo",
        help="run the controlled-sentiment study on the embedded model and data",
        description="Compare seven objectives on the embedded model and data and write one HTML report. "
        "Fields of the study can be set: --base.train.learning_rate 1e-4 (popmargin compare --help lists them).",
    )
    parser.add_argument("--full", action="store_true", help="all data and 5 seeds (hours instead of minutes)")
    parser.add_argument("--output", help="folder of the study (default: demo-report)")
    parser.add_argument(
        "--overwrite", action="store_true", help="retrain runs in that folder whose settings have changed"
    )
    parser.set_defaults(func=run, standing=standing)


def study_of(args: argparse.Namespace, changes: dict[str, Any]) -> Any:
    """The demo's study, with flags and other changes applied."""
    from popmargin.config import merge, read_yaml
    from popmargin.demo.folder import demo_study_path
    from popmargin.study.config import load_study
    from popmargin.study.standard import standard_study_path

    own = merge(read_yaml(demo_study_path()), FULL if args.full else {})
    if args.output is not None:
        own["output"] = args.output
    return load_study(standard_study_path(), args.overrides, merge(own, changes))


def standing(args: argparse.Namespace) -> tuple[str, list[str]]:
    """The study's progress after an interruption."""
    from popmargin.cli.interrupted import study_standing

    return study_standing(study_of(args, {}))


def run(args: argparse.Namespace) -> int:
    """Run the study and say where the report is."""
    from popmargin.models.policies import bf16_is_slower
    from popmargin.study.compare import compare, say

    changes: dict[str, Any] = {}
    if bf16_is_slower():
        changes = {"base": {"model": {"precision": "fp32"}}}
        say("This CPU emulates bf16: the demo runs in fp32, which changes its numbers a little.")
    results, report = compare(study_of(args, changes), overwrite=args.overwrite)
    print("\n".join(f"- {sentence}" for sentence in results.reading))
    print(f"report: {report}")
    return 0
