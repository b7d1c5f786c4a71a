"""`popmargin rounds`."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from popmargin.cli.overrides import add_fields
from popmargin.errors import ConfigError, WaitingError
from popmargin.rounds.rounds_config import REPORT, RoundsConfig, load_rounds


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "rounds",
        help="run a recipe of rounds: sample, label, pair, train, and again",
        description="Run the stages of a recipe, each in a folder of its own. Finished stages are kept, so the same "
        "command goes on after an interruption; several processes share the work. RECIPE is a YAML file, or the name "
        "of an example on the embedded model and data. Any field can be set: --recipe.rounds 2 "
        "--base.train.learning_rate 1e-5. Values are YAML.",
        usage="popmargin rounds RECIPE [--until STAGE] [--status] [--print-config] [--output FOLDER] [--reuse FOLDER] "
        "[--overwrite] [--FIELD VALUE ...]",
    )
    parser.add_argument("recipe", help="YAML file, or the name of an example")
    parser.add_argument("--until", metavar="STAGE", help="the last stage to run, such as round-1 or round-1/label")
    parser.add_argument("--status", action="store_true", help="show where every stage stands, and run nothing")
    parser.add_argument("--print-config", action="store_true", help="write the configuration as YAML, and run nothing")
    parser.add_argument("--output", help="folder of the stages")
    parser.add_argument(
        "--reuse",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="take finished stages from another folder of rounds where inputs and settings are the same; can be given "
        "several times",
    )
    parser.add_argument("--overwrite", action="store_true", help="repeat stages whose inputs or settings have changed")
    add_fields(parser, RoundsConfig)
    parser.set_defaults(func=run, standing=standing)


def config_of(args: argparse.Namespace) -> RoundsConfig:
    """The rounds that the flags name.

    Raises:
        ConfigError: neither a file nor an example.
    """
    from popmargin.demo.folder import demo_rounds
    from popmargin.errors import did_you_mean
    from popmargin.files import no_such_file

    examples, changes = demo_rounds(), {} if args.output is None else {"output": args.output}
    file = Path(args.recipe)
    if not file.is_file():
        if args.recipe not in examples and (file.suffix or file.parent != Path()):
            raise ConfigError(no_such_file(file))
        if args.recipe not in examples:
            raise ConfigError(
                f"'{args.recipe}' is neither a file nor an example. {did_you_mean(args.recipe, examples)}"
            )
        file = examples[args.recipe]
    return load_rounds(file, args.overrides, changes)


def standing(args: argparse.Namespace) -> tuple[str, list[str]]:
    """How many stages are finished, after an interruption."""
    from popmargin.recipes.base import plan_of
    from popmargin.rounds.runner import states_of

    config = config_of(args)
    states = states_of(plan_of(config), Path(config.output))
    done = sum(state.standing == "finished" for state in states.values())
    report = Path(config.output) / REPORT
    shown = f" Their report: {report}." if done and report.is_file() else ""
    return f"{done} of {len(states)} stages of {config.output} are finished, and are kept.{shown}", []


def commented(config: RoundsConfig) -> str:
    """The configuration as YAML, with every option of its recipe and what it does."""
    from popmargin.config.written import commented_yaml
    from popmargin.recipes.base import options_of
    from popmargin.yaml_file import dump_yaml

    recipe, options = options_of(config)
    lines = [f"# {recipe.summary}"]
    for name in ("title", "output", "seed"):
        lines.append(dump_yaml({name: getattr(config, name)}).rstrip())
    lines += ["recipe:", f"  name: {config.recipe['name']}", commented_yaml(options, "  ")]
    lines += ["# settings of all runs (popmargin train --print-config explains them)", dump_yaml({"base": config.base})]
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    """Run the recipe, or say where it stands."""
    from popmargin.recipes.base import plan_of

    config = config_of(args)
    if args.print_config:
        print(commented(config), end="")
        return 0
    plan = plan_of(config)
    if args.status:
        from popmargin.rounds.status import status_lines

        print("\n".join(status_lines(plan, Path(config.output))))
        return 0
    from popmargin.rounds.run_rounds import run_rounds

    try:
        report = run_rounds(config, plan, until=args.until, overwrite=args.overwrite, reuse=args.reuse)
    except WaitingError as waiting:
        same = shlex.join(["popmargin", *(word for word in args.arguments if word != "--overwrite")])
        print(f"{waiting}\nthen go on with: {same}\nreport: {Path(config.output) / REPORT}")
        return 0
    if args.until is not None:
        print(f"stopped after {args.until}; without --until, the same command goes on")
    print(f"report: {report}")
    return 0
