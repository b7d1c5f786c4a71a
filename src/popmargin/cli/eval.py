"""`popmargin eval`."""

import argparse
import json
from pathlib import Path
from typing import Any

from popmargin.cli.overrides import add_fields
from popmargin.config import RunConfig, apply_overrides, from_dict, to_dict
from popmargin.models.path import check_models
from popmargin.rewards.naming import FORMS, reward_models
from popmargin.training.run_directory import RunDirectory


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "eval",
        help="evaluate a trained policy",
        description="Evaluate a run on exactly the preferences held out in training and, with a reward, on "
        "generations. Fields of evaluation can be set: --evaluation.reward my_module:my_reward. To use other "
        "held-out data: --data.test FILE; none of its prompts may have been trained on.",
        usage="popmargin eval RUN [--against RUN] [--json] [--SECTION.FIELD VALUE ...]",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--against", type=Path, help="another evaluated run, for a paired win rate")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")
    add_fields(parser, RunConfig, ["evaluation"])
    parser.set_defaults(func=run, standing=standing)


def standing(args: argparse.Namespace) -> tuple[str, list[str]]:
    """An evaluation is written only when complete, so it starts over."""
    return f"the evaluation of {args.run} was not written; the run is unchanged.", []


def run(args: argparse.Namespace) -> int:
    """Evaluate and print."""
    config = from_dict(RunConfig, apply_overrides(to_dict(RunDirectory(args.run).config()), args.overrides))
    check_models(config.model.path, config.reference.model, *reward_models(config.evaluation))
    from popmargin.evaluation.run import evaluate_run
    from popmargin.tasks.base import TASKS
    from popmargin.training.build import Run

    metrics = evaluate_run(Run.opened(args.run, config), against=args.against)
    if args.json:
        print(json.dumps(metrics, indent=2, sort_keys=True))
        return 0
    for name, interval in sorted(metrics["intervals"].items()):
        if interval["estimate"] is not None:
            low, high = (f"{interval[end]:.4f}" if interval[end] is not None else "?" for end in ("low", "high"))
            print(f"{name:24} {interval['estimate']:9.4f}   95% {low} to {high}")
    if "goal" in metrics:
        print(f"Goals: {metrics['goal']['note']}.")
    if "sampling" in metrics:
        print(f"Completions are sampled at {metrics['sampling']['drawn']}.")
    task = TASKS.get(config.task_name)
    if "generation" not in task.provides:
        print(f"The run is {task.noun}, which generates nothing.{task.use.format(model=args.run / 'model')}")
    elif config.evaluation.reward is None:
        print(f"No generations: name a reward with --evaluation.reward ({FORMS}).")
    return 0
