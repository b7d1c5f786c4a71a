"""Compare recommenders: fit, train and rank every arm with every seed, skipping what is finished, and report."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from popmargin.config import dump_yaml, from_dict, read_saved, to_dict
from popmargin.errors import ConfigError, RunError
from popmargin.files import whole_file
from popmargin.models.policies import process_count
from popmargin.recommend.saved_parts import load_parts
from popmargin.recommend.splitting import Parts
from popmargin.report.recommendation_page import write_recommendation_report
from popmargin.report.results import StudyResults
from popmargin.study.compare import check_folder
from popmargin.study.recommenders.prepared_events import (
    TRAIN,
    VALID,
    prepare,
    read_events,
    split_events,
    start_digest,
    start_model,
    tell,
)
from popmargin.study.recommenders.recommend_config import RecommendConfig, check_arms
from popmargin.study.recommenders.recommender_job import Job, run_job
from popmargin.study.recommenders.recommender_results import Measurement, collect_recommenders
from popmargin.study.recommenders.saved_rankings import read_measured, read_rankings
from popmargin.study.sharing import LOCKS, claimed, share
from popmargin.training.build import Run
from popmargin.training.inputs import flat
from popmargin.training.run_directory import RunDirectory, versions

SETTINGS = "recommend.yaml"
"""The resolved configuration in the folder of a comparison."""
_WHERE = ("output", "name", "model.path", "data.train", "data.test", "reference.cache", "data.cache")  # locations


@dataclass(frozen=True)
class Piece:
    """One arm with one seed.

    Attributes:
        arm, seed: which; the seed is None for a baseline that has none.
        job: what its process does.
        title: for messages.
    """

    arm: str
    seed: int | None
    job: Job
    title: str

    @property
    def folder(self) -> Path:
        """Of its rankings."""
        return Path(self.job.output)

    @property
    def name(self) -> str:
        """For the lock."""
        return f"{self.arm}-{'once' if self.seed is None else self.seed}"


def say(message: str) -> None:
    """Print progress on stderr, so that stdout stays clean."""
    print(message, file=sys.stderr, flush=True)


def compare_recommenders(study: RecommendConfig, *, overwrite: bool = False) -> tuple[StudyResults, Path]:
    """Fit or train, rank and compare all arms of a study.

    Every arm and seed works in a process of its own. What is finished is kept, so that the same call goes on after an
    interruption, and several processes can share a study.

    Args:
        study: its configuration.
        overwrite: repeat arms whose settings or data have changed.

    Returns:
        The results, and the path of the HTML report.

    Raises:
        ConfigError, DataError, RunError: with the remedy.
    """
    if process_count() > 1:
        raise ConfigError(
            "recommend compare does not run under torchrun. Start the same command several times: the processes share "
            "the arms."
        )
    check_arms(study)
    output = Path(study.output)
    check_folder(output)
    parts = split_events(read_events(study.data), study.data)
    for line in tell(parts.account):
        say(line)
    (output / LOCKS).mkdir(parents=True, exist_ok=True)  # marks the folder as a study's
    with claimed(output / LOCKS / "data.lock", wait=True):
        fingerprint = prepare(parts, study.data, output / "data", overwrite=overwrite)
        pieces = pieces_of(study, parts, fingerprint, overwrite=overwrite)
    if not overwrite:
        _refuse_other_arms(pieces)
    with whole_file(output / SETTINGS) as partial:
        partial.write_text(dump_yaml(to_dict(study)), encoding="utf-8")
    for number, piece in enumerate(pieces, 1):
        if _is_done(piece):
            say(f"[{number}/{len(pieces)}] {piece.title}: already done")

    def do(number: int, piece: Piece) -> None:
        say(f"[{number}/{len(pieces)}] {piece.title}")
        run_job(piece.job, piece.title)

    share({piece.name: piece for piece in pieces}, output / LOCKS, _is_done, do)
    with claimed(output / LOCKS / "report.lock", wait=True):
        return report_study(study, parts)


def pieces_of(study: RecommendConfig, parts: Parts, fingerprint: str, *, overwrite: bool) -> list[Piece]:
    """What there is to do, with the start models of all arms written.

    Args:
        study: its configuration.
        parts: the split.
        fingerprint: of the split.
        overwrite: repeat what has changed.
    """
    output, pieces = Path(study.output), list[Piece]()
    evaluation = asdict(study.evaluation)
    cutoffs = evaluation.pop("cutoffs")
    for arm in study.arms:
        seeds = list[int | None](study.seeds) if study.has_seeds(arm) else [None]
        for seed in seeds:
            folder = rankings_folder(output, arm, seed)
            title = study.label(arm) + ("" if seed is None else f", seed {seed}")
            shared: dict[str, Any] = {
                "data": str(output / "data"), "output": str(folder), "part": study.evaluation.part,
                "places": max(cutoffs), "exclude_history": study.evaluation.exclude_history,
                "draws": study.evaluation.draws,
            }  # fmt: skip
            record = {"data": fingerprint, "evaluation": evaluation, "places": max(cutoffs)}
            found = study.baseline_of(arm)
            if found is not None:
                options = study.options_of(arm, seed or 0)
                record |= {"recommender": found.name, "options": options}
                record["evaluation"] = {name: value for name, value in evaluation.items() if name != "draws"}
                job = Job(**shared, record=record, recommender=found.name, options=options)
            else:
                job = _model_job(study, parts, arm, seed or 0, shared, record, overwrite=overwrite)
            pieces.append(Piece(arm, seed, job, title))
    return pieces


def _model_job(
    study: RecommendConfig,
    parts: Parts,
    arm: str,
    seed: int,
    shared: dict[str, Any],
    record: dict[str, Any],
    *,
    overwrite: bool,
) -> Job:
    output = Path(study.output)
    vectors = study.vectors_of(arm)
    start, seconds, notes = start_model(parts, vectors, output / "start")
    for note in notes if seed == study.seeds[0] else ():
        say(f"{study.label(arm)}: {note}")
    place = {
        "output": str(output / "runs" / arm / f"seed-{seed}"),
        "model": {"path": str(start)},
        "data": {"train": str(output / "data" / TRAIN), "test": str(output / "data" / VALID)},
    }
    config = study.run_config(arm, seed, place)
    settings = {key: value for key, value in flat(to_dict(config)).items() if key not in _WHERE}
    record |= {"run": settings, "start": start_digest(start), "vectors": asdict(vectors)}
    again = overwrite and _is_stale(RunDirectory(Path(config.output)), Run.read(config))
    return Job(**shared, record=record, run=to_dict(config), overwrite=again, vector_seconds=seconds)


def _is_stale(directory: RunDirectory, run: Run) -> bool:
    """Whether a run must start over: it was begun with other settings, rows or vectors."""
    if not directory.started:
        return False
    try:
        directory.check(run.config, resume=True, overwrite=False)
        directory.check_record(run.record(run.workspace()))
    except RunError:
        return True
    return False


def _refuse_other_arms(pieces: list[Piece]) -> None:
    """Before any work: refuse to repeat arms of other settings or data without being told.

    Raises:
        RunError: it names them, with what differs.
    """
    for piece in pieces:
        measured = read_measured(piece.folder)
        changed = {} if measured is None else record_changes(measured["record"], piece.job.record)
        if changed:
            raise RunError(
                f"{piece.folder} contains {piece.title} with other settings:\n"
                + "".join(f"  {name}: {change}\n" for name, change in changed.items())
                + "Choose another folder (--output), or pass --overwrite to repeat what differs."
            )


def record_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """What differs between two records of what rankings depend on, each as `before → now`; fewer places are no change.

    Example:
        >>> record_changes({"options": {"decay": 1.0}, "places": 20}, {"options": {"decay": 0.7}, "places": 10})
        {'options.decay': '1.0 → 0.7'}
    """
    old, new = flat(before), flat(now)
    missing = "not set"
    changed = {
        name: (old.get(name, missing), new.get(name, missing))
        for name in [*old, *(name for name in new if name not in old)]
        if old.get(name, missing) != new.get(name, missing)
    }
    if "places" in changed and old.get("places", 0) >= new["places"]:
        del changed["places"]
    named = {"data": "the split", "start": "the vectors of items", "places": "evaluation.cutoffs (largest)"}
    return {named.get(name, name): f"{first} → {second}" for name, (first, second) in changed.items()}


def _is_done(piece: Piece) -> bool:
    measured = read_measured(piece.folder)
    return measured is not None and not record_changes(measured["record"], piece.job.record)


def rankings_folder(output: Path, arm: str, seed: int | None) -> Path:
    """Where the rankings of an arm with a seed lie."""
    return output / "rankings" / arm / ("once" if seed is None else f"seed-{seed}")


def finished_arms(study: RecommendConfig, output: Path) -> dict[str, list[Measurement]]:
    """What is measured so far, by arm.

    Args:
        study: its configuration.
        output: its folder, which may have been moved.
    """
    found: dict[str, list[Measurement]] = {}
    for arm in study.arms:
        for seed in list[int | None](study.seeds) if study.has_seeds(arm) else [None]:
            folder = rankings_folder(output, arm, seed)
            measured = read_measured(folder)
            if measured is not None:
                found.setdefault(arm, []).append(Measurement(seed, read_rankings(folder), measured["costs"]))
    return found


def report_study(study: RecommendConfig, parts: Parts) -> tuple[StudyResults, Path]:
    """Write results.json and report.html of a finished comparison."""
    output = Path(study.output)
    results = collect_recommenders(study, parts, finished_arms(study, output), versions())
    results.save(output / "results.json")
    return results, write_recommendation_report(results, output / "report.html")


def results_in(folder: Path, *, title: str | None = None, baseline: str | None = None) -> StudyResults:
    """The results of what is finished in the folder of a comparison.

    Args:
        folder: of the comparison.
        title, baseline: instead of its own.

    Raises:
        ConfigError: the baseline is not an arm.
        RunError: the baseline is not finished.
    """
    study = from_dict(RecommendConfig, read_saved(folder / SETTINGS))
    study = replace(study, title=title or study.title, baseline=baseline or study.baseline)
    measured = finished_arms(study, folder)
    if study.baseline not in measured:
        raise RunError(f"{folder}: the arm '{study.baseline}' is not finished. Go on with popmargin recommend compare.")
    return collect_recommenders(study, load_parts(folder / "data"), measured, versions())
