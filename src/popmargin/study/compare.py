"""Run a study: train and evaluate every arm with every seed, skipping what is done, and write the report."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from popmargin.config import RunConfig, dump_yaml, to_dict
from popmargin.errors import ConfigError
from popmargin.evaluation.calibration import share_right
from popmargin.evaluation.generative import Generations, generative_metrics
from popmargin.evaluation.jackknife import row_means
from popmargin.evaluation.rewards import Reward
from popmargin.evaluation.run import configured_reward, evaluate_policy, generate_and_score, held_out_margins
from popmargin.report.build import write_report
from popmargin.report.results import StudyResults
from popmargin.study.config import StudyConfig
from popmargin.study.results import collect
from popmargin.study.sharing import LOCKS, claimed, share
from popmargin.study.tune import tune
from popmargin.training.callbacks import Probe
from popmargin.training.prepare import Workspace
from popmargin.training.run import make_loss, process_count, train
from popmargin.training.run_directory import RunDirectory


def say(message: str) -> None:
    """Progress for a person, on stderr so that stdout stays clean."""
    print(message, file=sys.stderr, flush=True)


def compare(study: StudyConfig) -> tuple[StudyResults, Path]:
    """Train, evaluate and compare all arms of a study.

    With a `tune` section, every arm's learning rate and β are chosen on a validation split first (`tune`).
    Runs that are finished and evaluated under the same configuration are kept, so that an interrupted study goes on
    where it stopped. Several processes can run the same study at once, on a GPU each: they share the runs.

    Args:
        study: its configuration.

    Returns:
        The results, and the path of the HTML report.

    Raises:
        ConfigError, DataError, RunError: with what to do about it.
    """
    if process_count() > 1:
        raise ConfigError(
            "compare does not run under torchrun. Start the same command several times, on a GPU each: they share the "
            "runs. Train one run on several GPUs with: torchrun -m popmargin train"
        )
    output = Path(study.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "study.yaml").write_text(dump_yaml(to_dict(study)), encoding="utf-8")
    chosen: dict[str, str] = {}
    if study.tune is not None:
        study, chosen = tune(study, say)
    _train_all(study)
    with claimed(output / LOCKS / "report.lock", wait=True):
        return _report(study, chosen)


def _train_all(study: StudyConfig) -> None:
    """Train and evaluate what is not done yet."""
    output = Path(study.output)
    todo = [config for configs in study.run_configs().values() for config in configs]

    def title(number: int, config: RunConfig) -> str:
        return f"[{number}/{len(todo)}] {config.name}, seed {config.seed}"

    for number, config in enumerate(todo, start=1):
        if _is_done(config):
            say(f"{title(number, config)}: done before")
    workspace: Workspace | None = None
    rewards: dict[str, Reward | None] = {}
    references: dict[str, Generations] = {}

    def do(number: int, config: RunConfig) -> None:
        nonlocal workspace
        say(title(number, config))
        if workspace is None or not workspace.fits(config):
            workspace = Workspace(config)
            references.clear()
        key = repr(config.evaluation)
        if key not in rewards:
            rewards[key] = configured_reward(config.evaluation)
        reward = rewards[key]
        if reward is not None and key not in references:
            references[key] = _reference(output, config, workspace, reward, len(references))
        if make_loss(config).uses_reference:
            _ = workspace.train_reference, workspace.test_reference  # now, not inside the first run's progress bar
        _run(config, workspace, RunDirectory(Path(config.output)), reward, references.get(key))

    share({f"{config.name}-{config.seed}": config for config in todo}, output / LOCKS, _is_done, do)


def _report(study: StudyConfig, chosen: Mapping[str, str]) -> tuple[StudyResults, Path]:
    output = Path(study.output)
    runs = {arm: [RunDirectory(Path(c.output)) for c in configs] for arm, configs in study.run_configs().items()}
    results = collect(
        runs,
        title=study.title,
        baseline=study.baseline,
        labels={arm: study.label(arm) for arm in study.arms},
        config=dump_yaml(to_dict(study)),
        facts={f"Chosen for {study.label(arm)}": sentence for arm, sentence in chosen.items()},
    )
    results.save(output / "results.json")
    report = output / "report.html"
    write_report(results, report)
    return results, report


def _is_done(config: RunConfig) -> bool:
    directory = RunDirectory(Path(config.output))
    measured = (directory.evaluation / "metrics.json").is_file()
    return directory.finished and measured and to_dict(directory.config()) == to_dict(config)


def _reference(output: Path, config: RunConfig, workspace: Workspace, reward: Reward, number: int) -> Generations:
    say("sampling from the reference model")
    generations = generate_and_score(
        workspace.reference_model, config, workspace, reward, prompts=config.evaluation.prompts
    )
    generations.save(output / f"reference_generations{f'-{number}' if number else ''}.parquet")
    return generations


def _run(
    config: RunConfig,
    workspace: Workspace,
    directory: RunDirectory,
    reward: Reward | None,
    reference: Generations | None,
) -> None:
    probe = _probe(config, workspace, directory, reward, reference) if config.evaluation.curve_points else None
    stale = directory.path.exists() and (directory.finished or to_dict(directory.config()) != to_dict(config))
    _, policy = train(config, workspace=workspace, resume=not stale, overwrite=stale, probe=probe, keep_model=True)
    if reference is not None:
        reference.save(directory.evaluation / "reference_generations.parquet")
    evaluate_policy(policy, config, workspace, directory, reward=reward, reference=reference)


def _probe(
    config: RunConfig,
    workspace: Workspace,
    directory: RunDirectory,
    reward: Reward | None,
    reference: Generations | None,
) -> Probe:
    """Held-out accuracy, and KL and win rate on some prompts, during training."""
    settings = config.evaluation
    some = None if reference is None else reference.first(settings.curve_prompts)

    def measure(policy: Any, step: int) -> dict[str, Any]:
        folder = directory.evaluation / "curves" / f"step-{step:06d}"
        margins = held_out_margins(policy, config, workspace)
        margins.save(folder / "margins.parquet")
        right = share_right(margins.reward_margin[None])
        values = {"accuracy": row_means(right, margins.clusters).interval(scale="share").to_dict()}
        if reward is not None:
            generations = generate_and_score(policy, config, workspace, reward, prompts=settings.curve_prompts)
            generations.save(folder / "generations.parquet")
            intervals = generative_metrics(generations, some)
            values |= {name: intervals[name].to_dict() for name in ("kl_per_token", "win_rate_reference")}
        return values

    return measure
