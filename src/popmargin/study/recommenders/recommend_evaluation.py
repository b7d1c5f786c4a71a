"""Measure a trained recommender, and baselines beside it, on a split of a file of events."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.account import Step
from popmargin.config import dump_yaml, from_dict, merge, to_dict
from popmargin.data.ragged import Ragged
from popmargin.errors import ConfigError, DataError, counted, first_few
from popmargin.recommend.baselines.base import BASELINES
from popmargin.recommend.item_sequences import Catalogue
from popmargin.recommend.saved_parts import parts_digest, save_parts
from popmargin.recommend.splitting import Cases, Parts
from popmargin.recommend.trained import load
from popmargin.report.results import StudyResults
from popmargin.study.recommenders.prepared_events import SETTINGS, read_events, read_settings, split_events
from popmargin.study.recommenders.recommend_config import EventsConfig, MeasuredConfig, RankingConfig
from popmargin.study.recommenders.recommender_job import Job, run_job
from popmargin.study.recommenders.recommender_results import Measurement, Recommended, results_of
from popmargin.study.recommenders.saved_rankings import read_measured, read_rankings
from popmargin.training.run_directory import RunDirectory, versions

_SPLIT = ("split", "shares", "seed")


def evaluate_recommender(
    folder: Path, changes: Mapping[str, Any], beside: Sequence[str] = ()
) -> tuple[StudyResults, list[str]]:
    """The metrics of a trained model and of baselines that are fitted on the training part of the same split.

    Args:
        folder: a run directory, or the folder of a model.
        changes: `data` and `evaluation`, put over those of the training.
        beside: names of baselines.

    Returns:
        The results, and sentences on the data.

    Raises:
        ConfigError, DataError, RunError: with the remedy.
    """
    for name in beside:
        BASELINES.get(name)
    if len(set(beside)) < len(beside):
        raise ConfigError("--beside names a baseline twice. Name each once.")
    model = load(folder)
    before = trained_on(folder)
    config = _config(folder, before, changes)
    parts, _ = known_parts(split_events(read_events(config.data), config.data), model.catalogue, folder, config.data)
    told = [line for step in parts.account for line in step.lines()]
    told += _refuse_other_split(folder, before, config.data, parts)
    run = RunDirectory(folder)
    name = run.config().name if run.started else folder.name
    label = name if name not in beside else f"{name} (model)"
    arms = [Recommended(label, label, "model", _objective(run), "published", [])]
    arms += [Recommended(each, each, each, each, "baseline", []) for each in beside]
    with tempfile.TemporaryDirectory(prefix="popmargin-recommend-") as place:
        save_parts(Path(place), parts)
        arms = [_measured(arm, folder, Path(place), config.evaluation) for arm in arms]
    neighbour = "item_knn" if "item_knn" in beside else (beside[0] if beside else label)
    history = "cannot be recommended again" if config.evaluation.exclude_history else "can be recommended again"
    facts = {
        "Model": str(folder), "Source": config.data.path, "Split": config.data.split.replace("_", " "),
        "Items of the history": history,
    }  # fmt: skip
    results = results_of(
        arms, parts, part=config.evaluation.part, cutoffs=config.evaluation.cutoffs, baseline=neighbour,
        title=f"{name} on {Path(config.data.path).name}", config=dump_yaml(to_dict(config)), facts=facts,
        versions=versions(),
    )  # fmt: skip
    return results, told


def trained_on(folder: Path) -> dict[str, Any] | None:
    """The digest and settings of the events that a run was trained on; None if they are not known."""
    run = RunDirectory(folder)
    if not run.started:
        return None
    prepared = Path(run.config().data.train).parent
    return read_settings(prepared) if (prepared / SETTINGS).is_file() else None


def _config(folder: Path, before: Mapping[str, Any] | None, changes: Mapping[str, Any]) -> MeasuredConfig:
    values = merge({"data": {}, "evaluation": {}}, changes)
    if before is not None:
        values["data"] = {**before["settings"], **values["data"]}
    config = from_dict(MeasuredConfig, values)
    if not config.data.path:
        raise ConfigError(f"What {folder} was trained on is not known. Name a file of events with --data.")
    return config


def _refuse_other_split(
    folder: Path, before: Mapping[str, Any] | None, settings: EventsConfig, parts: Parts
) -> list[str]:
    """Refuse to measure on another split of the training's file; of other data, say that nobody knows."""
    if before is not None and before["digest"] == parts_digest(parts):
        return []
    old = {} if before is None else before["settings"]
    if before is not None and Path(settings.path).absolute() == Path(old["path"]):
        changed = [f"data.{name}: {old[name]} → {getattr(settings, name)}" for name in _SPLIT
                   if old[name] != getattr(settings, name)]  # fmt: skip
        if changed:
            raise ConfigError(
                f"{folder} was trained on another split of {settings.path} ({'; '.join(changed)}), so that it has seen "
                "what it would be measured on. Remove these flags."
            )
    return [f"These are not the data that {folder} was trained on: make sure that it has not seen these users."]


def known_parts(parts: Parts, catalogue: Catalogue, folder: Path, settings: EventsConfig) -> tuple[Parts, list[str]]:
    """The split in the numbers of a model's catalogue.

    Args:
        parts: the split, in numbers of its own.
        catalogue: of the model.
        folder: of the model, for messages.
        settings: whose `bad_rows` says what happens to users with an item that the model does not know.

    Returns:
        The split, and a sentence on what was left out.

    Raises:
        DataError: an unknown item; the message names file, user, item and remedy.
    """
    names = parts.catalogue.names
    unknown = [name for name in names if name not in catalogue]
    number_I = np.array([0, *(catalogue.numbers([name])[0] if name in catalogue else 0 for name in names)], np.int32)
    if unknown and settings.bad_rows == "raise":
        raise DataError(
            f"{settings.path}: {counted(len(unknown), 'item')} of {len(names)} not among the {len(catalogue)} of "
            f"{folder}: {first_few(unknown)}{_whose(parts, set(unknown))}. Train with all items, or leave out such "
            "users and report them: --data.bad_rows drop."
        )
    steps: list[Step] = []

    def cases(found: Cases, name: str) -> Cases:
        items, targets = number_I[found.histories.values], number_I[found.targets]
        lost = np.zeros(len(found), dtype=bool)
        lost[np.repeat(np.arange(len(found)), found.histories.lengths)[items == 0]] = True
        lost |= targets == 0
        kept = np.flatnonzero(~lost)
        if unknown:
            steps.append(Step(name=f"{name} users whose items {folder} knows", rows_in=len(found), unit="users",
                              kept={"kept": len(kept)}, left_out={"an unknown item": int(lost.sum())}))  # fmt: skip
        if not len(kept):
            raise DataError(f"{settings.path}: no {name} user is left whose items {folder} knows. Give other data.")
        histories = Ragged(items, found.histories.offsets).take(kept)
        return Cases(tuple(found.users[place] for place in kept), histories, targets[kept])

    def sequences(found: Ragged) -> Ragged:
        items = number_I[found.values]
        ends = np.concatenate([[0], np.cumsum(items > 0)])
        return Ragged(items[items > 0], ends[found.offsets].astype(np.int64))

    train, known = sequences(parts.train), sequences(parts.known)
    if unknown:
        lost = int(parts.train.lengths.sum() - train.lengths.sum())
        steps.append(Step(name="events of the training part, for baselines", rows_in=int(parts.train.lengths.sum()),
                          kept={"kept": int(train.lengths.sum())}, left_out={"an unknown item": lost},
                          unit="events"))  # fmt: skip
    valid, test = cases(parts.valid, "validation"), cases(parts.test, "test")
    found = Parts(catalogue, train, known, valid, test, (*parts.account, *steps), parts.train_users)
    return found, [line for step in steps for line in step.lines()]


def _whose(parts: Parts, unknown: set[str]) -> str:
    """A user of the measured parts who has an unknown item, for a message."""
    for cases in (parts.test, parts.valid):
        for place, user in enumerate(cases.users):
            items = [*cases.histories[place].tolist(), int(cases.targets[place])]
            named = [parts.catalogue.names[item - 1] for item in items]
            for item in named:
                if item in unknown:
                    return f" (user '{user}' has '{item}')"
    return ""


def _objective(run: RunDirectory) -> str:
    return str(run.config().objective["name"]) if run.started else "model"


def _measured(arm: Recommended, folder: Path, place: Path, settings: RankingConfig) -> Recommended:
    """The arm, fitted and ranked in a process of its own."""
    output = place / "rankings" / arm.name
    job = Job(
        data=str(place), output=str(output), part=settings.part, places=max(settings.cutoffs),
        exclude_history=settings.exclude_history, draws=settings.draws, record={},
        recommender="" if arm.kind == "model" else arm.kind, model=str(folder) if arm.kind == "model" else "",
    )  # fmt: skip
    run_job(job, arm.label)
    measured = read_measured(output)
    assert measured is not None
    seed = None
    if arm.kind == "model":
        run = RunDirectory(folder)
        seed = run.config().seed if run.started else 0
    return replace(arm, measurements=[Measurement(seed, read_rankings(output), measured["costs"])])
