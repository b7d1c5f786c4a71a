"""`popmargin train`."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from popmargin.cli.no_teardown import skip_teardown
from popmargin.cli.outputs import add_code
from popmargin.cli.overrides import add_fields
from popmargin.code_permission import code_flags
from popmargin.config import RunConfig, apply_overrides, from_dict, read_yaml, to_dict
from popmargin.config.written import commented_yaml
from popmargin.errors import ConfigError, counted
from popmargin.models.path import check_models
from popmargin.rewards.naming import reward_models
from popmargin.training.launch_files import launch_file, launch_files
from popmargin.training.run_directory import RunDirectory


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "train",
        help="train one policy or reward model",
        description="Train one policy or reward model. Any field of the configuration can be set, even in a mapping: "
        "--train.learning_rate 1e-5 --objective.name simpo --objective.gamma 0.5. Values are YAML.",
        usage="popmargin train [CONFIG] [--resume [auto]] [--overwrite] [--print-config] [--dry-run] [--code FILE] "
        "[--launch-file NAME] "
        "[--SECTION.FIELD VALUE ...]",
    )
    parser.add_argument(
        "config",
        nargs="?",
        type=Path,
        help="YAML file (default: defaults and flags, or with --resume the run's own settings)",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        metavar="auto",
        help="continue from the last checkpoint; auto: begin where there is no run yet, for jobs that are queued again",
    )
    parser.add_argument("--overwrite", action="store_true", help="delete an existing run in the output folder")
    parser.add_argument(
        "--print-config", action="store_true", help="write the configuration as YAML with comments, and train nothing"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="show the rows, the steps and the memory that a training would need, and train nothing",
    )
    add_code(parser)
    parser.add_argument(
        "--launch-file",
        metavar="NAME",
        help=f"print where a file lies that starts several processes, and train nothing: {', '.join(launch_files())}",
    )
    add_fields(parser, RunConfig)
    parser.set_defaults(func=run, standing=standing)


def load_config(path: Path | None, overrides: list[str], *, resume: bool | str = False) -> RunConfig:
    """A run's configuration from a file and flags; a resumed run without a file uses its own.

    Args:
        path: the file.
        overrides: the flags.
        resume: whether a run is resumed; `auto` where there is one, else it begins.

    Raises:
        ConfigError: unknown keys or values that do not fit.
        RunError: there is no run to resume.
    """
    output = apply_overrides({}, overrides).get("output", RunConfig().output) if path is None and resume else None
    if output is not None and (resume is True or RunDirectory(Path(str(output))).started):
        values = to_dict(RunDirectory(Path(str(output))).config())
    else:
        values = read_yaml(path) if path else {}
    try:
        return from_dict(RunConfig, apply_overrides(values, overrides))
    except ConfigError as error:
        if path is None or str(error) not in _complaints(values):
            raise
        raise ConfigError(f"{path}: {error}") from error


def _complaints(values: dict[str, Any]) -> str:
    """Errors in a file's values regardless of flags; empty if there are none."""
    try:
        from_dict(RunConfig, values)
    except ConfigError as error:
        return str(error)
    return ""


def _settings(args: argparse.Namespace) -> tuple[RunConfig, bool | str]:
    """The configuration, and whether a run is resumed: False, True or `auto`.

    Raises:
        ConfigError, RunError: as `load_config`, and two files.
    """
    path, resume = args.config, args.resume
    if resume not in (True, False, "auto"):  # the file, after --resume
        if path is not None:
            raise ConfigError(f"'{resume}' after --resume is neither auto nor the configuration, which is {path}.")
        path, resume = Path(resume), True
    return load_config(path, args.overrides, resume=resume), resume


def standing(args: argparse.Namespace) -> tuple[str, list[str]]:
    """The run's progress after an interruption."""
    from popmargin.cli.interrupted import run_standing

    config, resume = _settings(args)
    sentence, more = run_standing(config)
    return sentence, [] if resume == "auto" else more


def _dry_run(config: RunConfig) -> int:
    """Print what a training would do, and what it would need."""
    from popmargin.training.build import Run
    from popmargin.training.dry_run import dry_run

    run = Run.read(config)
    print("\n".join(dry_run(run, run.workspace())))
    return 0


def run(args: argparse.Namespace) -> int:
    """Train."""
    if args.launch_file is not None:
        print(launch_file(args.launch_file))
        return 0
    config, resume = _settings(args)
    if args.print_config:
        print(commented_yaml(config), end="")
        return 0
    check_models(config.model.path, config.reference.model, *reward_models(config.evaluation))
    import torch

    from popmargin.training.build import make_loss
    from popmargin.training.combinations import without_effect
    from popmargin.training.run import train

    if args.dry_run:
        return _dry_run(config)
    first = os.environ.get("RANK", "0") == "0"  # of several processes, only the first one prints
    idle = without_effect(make_loss(config), pop=config.pop, target=config.target, data=config.data) if first else ()
    for sentence in idle:
        print(sentence, file=sys.stderr)
    if first and resume == "auto" and not RunDirectory(Path(config.output)).started:
        print(f"There is no run in {config.output} yet: it begins.", file=sys.stderr)
    directory, _ = train(config, resume=bool(resume), overwrite=args.overwrite)
    if first:
        facts = directory.facts()
        print(
            f"trained {config.name} ({config.objective['name']}) on {counted(facts['rows'], 'row')} in "
            f"{counted(facts['steps'], 'step')}, {facts['train_seconds']:.0f} s\n"
            f"next: popmargin eval {directory.path}{code_flags(to_dict(config))}"
        )
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        skip_teardown(0)
    return 0
