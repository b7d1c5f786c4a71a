"""popmargin recommend: train a model from a file of events, measure it, compare recommenders."""

import argparse
from pathlib import Path
from typing import Any

from popmargin.cli import recommend_eval
from popmargin.cli.overrides import add_fields
from popmargin.errors import ConfigError, counted
from popmargin.study.recommenders.recommend_config import RecommendConfig, TrainedConfig, load_recommend_config


def add_parser(subparsers: Any) -> None:
    """Add `recommend train | eval | compare` to the command line."""
    parser = subparsers.add_parser(
        "recommend",
        help="recommend items: train a model, measure it, compare it with baselines",
    )
    verbs = parser.add_subparsers(dest="recommend_verb", required=True, metavar="{train,eval,compare}")
    train = verbs.add_parser(
        "train",
        help="train a model from a file of events",
        description="Split a file of events, make vectors of its items and train a model. Any field can be set: "
        "--data.split time; --run.train.learning_rate 1e-3 sets one of the run (popmargin train --help lists them). "
        "Values are YAML.",
        usage="popmargin recommend train CONFIG [--resume] [--overwrite] [--FIELD VALUE ...]",
    )
    train.add_argument("config", type=Path, help="YAML file")
    train.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    train.add_argument("--overwrite", action="store_true", help="delete an existing run in the output folder")
    add_fields(train, TrainedConfig)
    train.set_defaults(func=run_train, standing=train_standing)
    compare = verbs.add_parser(
        "compare",
        help="fit, train and compare recommenders, and write a report",
        description="Fit baselines and train models on one split, rank the whole catalogue for every user, and write "
        "one HTML report. Finished arms are kept, so the same command goes on after an interruption; several processes "
        "share the arms. Any field can be set: --seeds '[0, 1, 2]'; --base.train.epochs 20 sets one of all models, "
        "--arms.NAME.options.decay 0.7 one of an arm. Values are YAML.",
        usage="popmargin recommend compare STUDY [--output FOLDER] [--overwrite] [--FIELD VALUE ...]",
    )
    compare.add_argument("study", type=Path, help="YAML file")
    compare.add_argument("--output", help="folder of the study")
    compare.add_argument("--overwrite", action="store_true", help="repeat arms whose settings or data have changed")
    add_fields(compare, RecommendConfig)
    compare.set_defaults(func=run_compare, standing=compare_standing)
    recommend_eval.add_parser(verbs)


def study_of(args: argparse.Namespace) -> RecommendConfig:
    """The comparison that the flags name.

    Raises:
        ConfigError: unknown keys or values that do not fit.
    """
    changes = {} if args.output is None else {"output": args.output}
    return load_recommend_config(RecommendConfig, args.study, args.overrides, changes)


def run_compare(args: argparse.Namespace) -> int:
    """Compare; print the verdict, the table, and where the report is."""
    study = study_of(args)
    from popmargin.config import to_dict
    from popmargin.report.recommendation_page import text_table
    from popmargin.study.recommenders.recommend_study import SETTINGS, compare_recommenders

    written = Path(study.output) / SETTINGS
    if written.exists() and written.samefile(args.study):
        own = load_recommend_config(RecommendConfig, args.study)
        if to_dict(own) != to_dict(study):
            raise ConfigError(
                f"{args.study} is also the input and would be overwritten by the comparison with its changes. Choose "
                "another folder with --output."
            )
    results, report = compare_recommenders(study, overwrite=args.overwrite)
    print("\n".join([*results.reading, "", text_table(results), "", f"report: {report}"]))
    return 0


def compare_standing(args: argparse.Namespace) -> tuple[str, list[str]]:
    """How many arms are finished, after an interruption."""
    study = study_of(args)
    done = len(list((Path(study.output) / "rankings").glob("*/*/measured.json")))
    count = sum(len(study.seeds) if study.has_seeds(arm) else 1 for arm in study.arms)
    return f"{done} of {counted(count, 'ranking')} of {study.output} are finished, and are kept.", []


def run_train(args: argparse.Namespace) -> int:
    """Prepare the data and train."""
    config = load_recommend_config(TrainedConfig, args.config, args.overrides)
    from popmargin.study.recommenders.recommend_training import train_recommender

    directory, seconds = train_recommender(config, resume=args.resume, overwrite=args.overwrite)
    facts = directory.facts()
    print(
        f"trained {facts['name']} ({facts['objective']}) on {counted(facts['rows'], 'row')} in "
        f"{counted(facts['steps'], 'step')}, {seconds:.0f} s\nnext: popmargin recommend eval {directory.path} --beside "
        "item_knn,markov,popularity"
    )
    return 0


def train_standing(args: argparse.Namespace) -> tuple[str, list[str]]:
    """The run's progress after an interruption."""
    from popmargin.cli.interrupted import run_standing

    return run_standing(load_recommend_config(TrainedConfig, args.config, args.overrides).run_config())
