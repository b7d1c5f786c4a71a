"""`popmargin compare`."""

import argparse
from pathlib import Path
from typing import Any

from popmargin.cli.overrides import add_fields
from popmargin.errors import ConfigError
from popmargin.models.path import check_models
from popmargin.rewards.naming import FORMS, reward_models
from popmargin.study.config import StudyConfig, load_study


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "compare",
        help="train and evaluate several objectives, and write a report",
        description="Train and evaluate the arms of a study and write one HTML report. Without STUDY, the standard "
        "one: DPO, fixed and rating margins, the control, DPO-PoP with iterative and random edges, and pop_rank. "
        "Any field can be set: --seeds '[0, 1, 2]'; --base.train.learning_rate 1e-5 sets one of all runs, "
        "--arms.NAME.objective.beta 0.2 one of an arm (popmargin train --help lists them). Values are YAML.",
        usage="popmargin compare [STUDY] [--data DATA] [--model MODEL] [--reward REWARD] [--output FOLDER] "
        "[--overwrite] [--FIELD VALUE ...]",
    )
    parser.add_argument("study", nargs="?", type=Path, help="YAML file")
    parser.add_argument("--data", help="preferences: file, saved data set or hub id")
    parser.add_argument("--model", help="start model: folder, hub id, demo, demo-digits or demo-emoji")
    parser.add_argument("--reward", help=f"scores generations: {FORMS}")
    parser.add_argument("--output", help="folder of the study")
    parser.add_argument(
        "--overwrite", action="store_true", help="retrain runs in that folder whose settings have changed"
    )
    add_fields(parser, StudyConfig)
    parser.set_defaults(func=run, standing=standing)


def standing(args: argparse.Namespace) -> tuple[str, list[str]]:
    """The study's progress after an interruption."""
    from popmargin.cli.interrupted import study_standing

    return study_standing(study_of(args))


def refuse_own_file(file: Path, study: StudyConfig) -> None:
    """The resolved study is written into its folder; refuse to overwrite the input file with something different.

    Raises:
        ConfigError: the input file is there and differs.
    """
    from popmargin.config import to_dict

    written = Path(study.output) / "study.yaml"
    if written.exists() and written.samefile(file) and to_dict(load_study(file)) != to_dict(study):
        raise ConfigError(
            f"{file} is also the input and would be overwritten by the study with its changes. Choose another folder "
            f"with --output."
        )


def run(args: argparse.Namespace) -> int:
    """Compare and say where the report is."""
    study = study_of(args)
    for configs in study.run_configs().values():
        check_models(configs[0].model.path, configs[0].reference.model, *reward_models(configs[0].evaluation))
    from popmargin.study.compare import compare

    if args.study is not None:
        refuse_own_file(args.study, study)
    results, report = compare(study, overwrite=args.overwrite)
    print("\n".join(f"- {sentence}" for sentence in results.reading))
    print(f"report: {report}")
    return 0


def study_of(args: argparse.Namespace) -> Any:
    """The study that the flags name.

    Raises:
        ConfigError: neither a study nor data is given.
    """
    from popmargin.study.standard import keep_possible, standard_study_path

    if args.study is None and args.data is None:
        raise ConfigError("Give a STUDY.yaml, or your preferences with --data (and a model with --model).")
    base: dict[str, Any] = {}
    if args.data is not None:
        base["data"] = {"train": args.data}
    if args.model is not None:
        base["model"] = {"path": args.model}
    if args.reward is not None:
        base["evaluation"] = {"reward": args.reward}
    changes: dict[str, Any] = {"base": base}
    if args.output is not None:
        changes["output"] = args.output
    study = load_study(args.study or standard_study_path(), args.overrides, changes)
    if args.study is None:
        study = keep_possible(study)
    return study
