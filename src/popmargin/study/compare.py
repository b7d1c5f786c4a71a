"""Run a study: train and evaluate every arm with every seed, skipping finished runs, and write the report."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from popmargin.code_permission import note_named
from popmargin.config import EvaluationConfig, dump_yaml, from_dict, to_dict
from popmargin.errors import ConfigError, RunError
from popmargin.evaluation.generating import generate_and_score
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.generative import generative_metrics
from popmargin.evaluation.grown import grown
from popmargin.evaluation.run import evaluate_policy, held_out_margins
from popmargin.files import whole_file
from popmargin.models.policies import process_count
from popmargin.report.render import write_report
from popmargin.report.results import StudyResults
from popmargin.rewards.configured import Rewards, configured_rewards
from popmargin.statistics.calibration import share_right
from popmargin.statistics.jackknife import row_means
from popmargin.study.config import StudyConfig
from popmargin.study.gather import collect
from popmargin.study.sharing import LOCKS, claimed, share
from popmargin.study.tune import tune
from popmargin.training.build import Run
from popmargin.training.callbacks import Probe
from popmargin.training.fingerprints import Record
from popmargin.training.inputs import differences, make_absolute
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory
from popmargin.training.workspace import Workspace


def say(message: str) -> None:
    """Print progress on stderr, so that stdout stays clean."""
    print(message, file=sys.stderr, flush=True)


def compare(study: StudyConfig, *, overwrite: bool = False) -> tuple[StudyResults, Path]:
    """Train, evaluate and compare all arms of a study.

    With a `tune` section, every arm's learning rate and β are chosen on a validation split first (`tune`).
    Runs already finished and evaluated with the same configuration, data and models are kept, so an interrupted study
    continues where it stopped. Several processes can run the same study at once, on one GPU each: they share the runs.

    Args:
        study: its configuration.
        overwrite: delete runs in its folder from another study, or with other data or models.

    Returns:
        The results, and the path of the HTML report.

    Raises:
        ConfigError, DataError, RunError: with the remedy.
    """
    if process_count() > 1:
        raise ConfigError(
            "compare does not run under torchrun. Start the same command several times, once per GPU: the processes "
            "share the runs. To train one run on several GPUs: torchrun -m popmargin train"
        )
    note_named(to_dict(study))
    output = Path(study.output)
    check_folder(output)
    (output / LOCKS).mkdir(parents=True, exist_ok=True)  # marks the folder as a study's
    if not overwrite:
        _refuse_other_runs(study)
    with whole_file(output / "study.yaml") as partial:
        partial.write_text(dump_yaml(to_dict(_anywhere(study))), encoding="utf-8")
    chosen: dict[str, str] = {}
    if study.tune is not None:
        study, chosen = tune(study, say)
    _train_all(study, overwrite)
    with claimed(output / LOCKS / "report.lock", wait=True):
        return _report(study, chosen)


def _anywhere(study: StudyConfig) -> StudyConfig:
    """The study with absolute paths, so that it can be continued from any working directory."""
    values = to_dict(study)
    for settings in (values["base"], *values["arms"].values()):
        make_absolute(settings)
    values["output"] = str(Path(study.output).absolute())
    if study.tune is not None and study.tune.reuse is not None:
        values["tune"]["reuse"] = str(Path(study.tune.reuse).absolute())
    return from_dict(StudyConfig, values)


def check_folder(folder: Path) -> None:
    """Check that a study may be written into a folder: a new or empty one, or a study's.

    Raises:
        RunError: it contains something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or not (folder / LOCKS).is_dir():
        raise RunError(f"{folder} is not empty and not a study folder. Choose another output.")


def _refuse_other_runs(study: StudyConfig) -> None:
    """Before any work: refuse to delete runs of another configuration without being told.

    Raises:
        RunError: it names them, with the fields that differ.
    """
    if study.tune is not None:
        return  # their settings are chosen first
    for config in (config for configs in study.run_configs().values() for config in configs):
        directory = RunDirectory(Path(config.output))
        if directory.started and (changed := differences(directory.config(), config)):
            raise RunError(
                f"{directory.path} contains a run with other settings:\n"
                + "".join(f"  {name}: {change}\n" for name, change in changed.items())
                + "Choose another folder (--output), or pass --overwrite to retrain what differs."
            )


def _train_all(study: StudyConfig, overwrite: bool) -> None:
    """Train and evaluate the remaining runs."""
    output = Path(study.output)
    if not overwrite:
        _refuse_other_runs(study)
    todo = [Run.read(config) for configs in study.run_configs().values() for config in configs]

    def title(number: int, run: Run) -> str:
        return f"[{number}/{len(todo)}] {run.config.name}, seed {run.config.seed}"

    workspace: Workspace | None = None
    for number, run in enumerate(todo, start=1):
        if _is_done(run):
            workspace = workspace if workspace is not None and workspace.fits(run.task) else run.workspace()
            if _is_as_it_was(run, workspace, overwrite):
                say(f"{title(number, run)}: already done")
    loaded: dict[str, Rewards | None] = {}
    references: dict[str, Generations] = {}

    def do(number: int, run: Run) -> None:
        nonlocal workspace
        config = run.config
        say(title(number, run))
        if workspace is None or not workspace.fits(run.task):
            before, workspace = workspace, run.workspace()
            if before is None or not workspace.samples_like(before):
                references.clear()
        key = repr(config.evaluation)
        if key not in loaded:
            loaded[key] = configured_rewards(config.evaluation, images="images" in workspace.task.provides)
        rewards = loaded[key]
        if rewards is not None and key not in references:
            references[key] = _reference(output, config.evaluation, workspace, rewards, len(references))
        if run.loss.uses_reference:
            _ = workspace.train.reference, workspace.test.reference  # now, not inside the first run's progress bar
        if run.directory.started and not overwrite:
            run.directory.check_record(_record(run, workspace))
        _run(run, workspace, rewards, references.get(key))

    share({f"{run.config.name}-{run.config.seed}": run for run in todo}, output / LOCKS, _is_done, do)


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


def _record(run: Run, workspace: Workspace) -> Record:
    return run.record(workspace)


def _is_done(run: Run) -> bool:
    directory = run.directory
    measured = (directory.evaluation / "metrics.json").is_file()
    return directory.finished and measured and not differences(directory.config(), run.config)


def _is_as_it_was(run: Run, workspace: Workspace, overwrite: bool) -> bool:
    """Whether a finished run's data and models are unchanged; otherwise it is deleted, if allowed."""
    directory = run.directory
    try:
        directory.check_record(_record(run, workspace))
    except RunError as error:
        if not overwrite:
            raise
        say(f"{error}\nIt is retrained, since --overwrite was given.")
        (directory.path / "run.json").unlink()
        return False
    return True


def _reference(
    output: Path, settings: EvaluationConfig, workspace: Workspace, rewards: Rewards, number: int
) -> Generations:
    say("sampling from the reference model")
    generations = generate_and_score(None, settings, workspace, rewards, prompts=settings.prompts)
    generations.save(output / f"reference_generations{f'-{number}' if number else ''}.parquet")
    return generations


def _run(
    run: Run,
    workspace: Workspace,
    rewards: Rewards | None,
    reference: Generations | None,
) -> None:
    config, directory = run.config, run.directory
    probe = _probe(run, workspace, rewards, reference) if config.evaluation.curve_points else None
    stale = directory.path.exists() and _is_stale(run, workspace)
    _, policy = train(config, workspace=workspace, resume=not stale, overwrite=stale, probe=probe, keep_model=True)
    if reference is not None:
        reference.save(directory.evaluation / "reference_generations.parquet")
    evaluate_policy(policy, run, workspace, rewards=rewards, reference=reference)


def _is_stale(run: Run, workspace: Workspace) -> bool:
    """Whether a run must start over: finished but not evaluated, or begun with other settings, data or models."""
    directory = run.directory
    if not directory.started:
        return False
    before = Record.load(directory.path)
    changed = before is not None and bool(before.changes(_record(run, workspace)))
    return directory.finished or changed or bool(differences(directory.config(), run.config))


def _probe(
    run: Run,
    workspace: Workspace,
    rewards: Rewards | None,
    reference: Generations | None,
) -> Probe:
    """Held-out accuracy, and KL and win rate on some prompts, during training."""
    settings, directory = run.config.evaluation, run.directory
    count = min(settings.curve_prompts, settings.prompts or settings.curve_prompts)
    first = None if rewards is None else Rewards(rewards.first)  # curves show nothing else
    some = None if reference is None else reference.first(count)
    told: list[str] = []

    def measure(policy: Any, step: int) -> dict[str, Any]:
        folder = directory.evaluation / "curves" / f"step-{step:06d}"
        margins = held_out_margins(policy, run, workspace)
        margins.save(folder / "margins.parquet")
        right = share_right(margins.reward_margin[None])
        values = {"accuracy": row_means(right, margins.clusters).interval(scale="share").to_dict()}
        if first is not None:
            generations = generate_and_score(policy, settings, workspace, first, prompts=count)
            generations.save(folder / "generations.parquet")
            intervals = generative_metrics(generations, some)
            said = None if some is None else grown(generations.responses, some.responses, "the reference")
            if said is not None and not told:
                told.append(said)
                say(f"{directory.path}: step {step}: {said}")
            named = filter(None, (generations.drawn.log_ratio, "win_rate_reference"))
            values |= {name: intervals[name].to_dict() for name in named}
        return values

    return measure
