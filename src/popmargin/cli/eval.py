"""`popmargin eval`."""

import argparse
import json
from pathlib import Path
from typing import Any

from popmargin.cli import eval_benchmark
from popmargin.cli.cost_options import add_cost_options
from popmargin.cli.judge_options import add_server_options, request_values
from popmargin.cli.outputs import add_code
from popmargin.cli.overrides import add_fields
from popmargin.config import RunConfig, apply_overrides, from_dict, to_dict
from popmargin.errors import ConfigError
from popmargin.models.path import check_models
from popmargin.rewards.naming import FORMS, reward_models
from popmargin.training.run_directory import RunDirectory


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "eval",
        help="evaluate a run, or any model on compared responses",
        description="Evaluate a run on exactly the preferences held out in training and, with a reward, on "
        "generations. Fields of evaluation can be set: --evaluation.reward my_module:my_reward. To use other "
        "held-out data: --data.test FILE; none of its prompts may have been trained on. Or evaluate any model, without "
        "a run, on compared responses: --model MODEL --data FILE.",
        usage="popmargin eval RUN [--against RUN] [--server URL --model NAME | --answers FILE] [--goals 1,4,7,10] "
        "[--json] [--code FILE] "
        "[--SECTION.FIELD VALUE ...]\n       popmargin eval --model MODEL --data FILE [--as policy|reward|compare] "
        "[--reference MODEL] [--per-token]\n       [--layout NAME] [--split NAME] [--subset COLUMN] [--options YAML] "
        "[--dry-run] [--price PRICE]\n       "
        "[--against RESULT.json] [--out FILE.json] [--report FILE.html] [--overwrite] [--json]",
    )
    parser.add_argument("run", type=Path, nargs="?", help="run directory")
    parser.add_argument(
        "--against",
        type=Path,
        help="another evaluated run, for a paired win rate; or another model's result on the same benchmark (.json)",
    )
    parser.add_argument("--answers", metavar="FILE", help="take the policy's responses from a file, by the prompt")
    server = parser.add_argument_group("a policy that a server has")
    server.add_argument("--server", metavar="URL", help="an OpenAI-compatible server that samples the policy")
    server.add_argument("--model", metavar="NAME", help="the policy's name on the server; without RUN, any model")
    add_server_options(server)
    add_cost_options(server, "this server")
    eval_benchmark.add_flags(parser)
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")
    parser.add_argument(
        "--goals",
        metavar="1,4,7,10",
        help="answer the same prompts at each of these goals, for a run that was trained on goals (evaluation.goals)",
    )
    add_code(parser)
    add_fields(parser, RunConfig, ["evaluation"])
    parser.set_defaults(func=run, standing=standing)


def standing(args: argparse.Namespace) -> tuple[str, list[str]]:
    """An evaluation is written only when complete, so it starts over."""
    if args.run is None:
        return "the result was not written.", []
    return f"the evaluation of {args.run} was not written; the run is unchanged.", []


def _elsewhere(args: argparse.Namespace, config: RunConfig) -> Any:
    """Where the policy's responses come from; None where it is sampled here.

    Raises:
        ConfigError: flags that do not fit together.
    """
    from popmargin.evaluation.elsewhere import from_file, from_server

    names = ("workers", "requests_per_minute", "retries", "timeout", "api_key_env", "price_in", "price_out", "max_cost")
    given = {name: value for name in ("model", *names) if (value := getattr(args, name)) is not None}
    given |= {"no_logprobs": True} if args.no_logprobs else {}
    given |= {"request": request_values(args.request)} if args.request else {}
    if args.server is None:
        paid = next((name for name in ("max_cost", "price_in", "price_out") if name in given), None)
        if paid is not None:
            raise ConfigError(
                f"--{paid.replace('_', '-')} is for --server, or for a judge that --model names. For the judge that "
                f"scores the answers of a run: --evaluation.reward_options.{paid} {given[paid]:g}."
            )
        if given:
            raise ConfigError(f"--{next(iter(given)).replace('_', '-')} is for --server. Remove it, or name a server.")
        return None if args.answers is None else from_file(args.answers)
    if args.answers is not None:
        raise ConfigError("Give --server or --answers, not both.")
    if "model" not in given:
        raise ConfigError(f"--server {args.server}: give the policy's name there with --model.")
    logprobs = not given.pop("no_logprobs", False)
    return from_server(args.server, given.pop("model"), config.evaluation, logprobs=logprobs, **given)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print."""
    if eval_benchmark.wanted(args):
        return eval_benchmark.run(args)
    goals = [] if args.goals is None else ["--evaluation.goals", f"[{args.goals}]"]
    config = from_dict(RunConfig, apply_overrides(to_dict(RunDirectory(args.run).config()), [*args.overrides, *goals]))
    check_models(config.model.path, config.reference.model, *reward_models(config.evaluation))
    from popmargin.evaluation.run import evaluate_run
    from popmargin.rewards.load import IMAGE_FORMS
    from popmargin.tasks.base import TASKS
    from popmargin.training.build import Run

    opened = Run.opened(args.run, config)
    metrics = evaluate_run(opened, against=args.against, elsewhere=_elsewhere(args, config))
    if args.json:
        print(json.dumps(metrics, indent=2, sort_keys=True))
        return 0
    for name, interval in sorted(metrics["intervals"].items()):
        if interval["estimate"] is not None:
            low, high = (f"{interval[end]:.4f}" if interval[end] is not None else "?" for end in ("low", "high"))
            print(f"{name:24} {interval['estimate']:9.4f}   95% {low} to {high}")
    task = TASKS.get(config.task_name)
    images = "images" in task.provides
    if "goal" in metrics:
        print(f"Goals: {metrics['goal']['note']}.")
    if "goals" in metrics:
        print(f"Sweep over goals: {metrics['goals']['note']}.")
    if "sampling" in metrics:
        drawn = metrics["sampling"]["drawn"]
        print(f"Images are sampled with {drawn}." if images else f"Completions are sampled at {drawn}.")
        if "elsewhere" in metrics["sampling"]:
            print(f"Those of the policy are {metrics['sampling']['elsewhere']}.")
    if "generation" not in task.provides:
        print(f"The run is {task.noun}, which generates nothing.{task.use.format(model=args.run / 'model')}")
    elif config.evaluation.reward is None:
        print(f"No generations: name a reward with --evaluation.reward ({IMAGE_FORMS if images else FORMS}).")
    return 0
