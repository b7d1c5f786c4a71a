"""The same small grid for every arm on a validation split: learning rates, and multiples of the objective's β."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from popmargin.config import RunConfig, merge, to_dict
from popmargin.errors import ConfigError, counted
from popmargin.evaluation.run import held_out_margins
from popmargin.files import append_jsonl, read_jsonl
from popmargin.objectives.base import OBJECTIVES
from popmargin.study.config import StudyConfig, TuneConfig
from popmargin.study.sharing import LOCKS, share
from popmargin.training.build import Run
from popmargin.training.run import train
from popmargin.training.workspace import Workspace

FILE = "tuning.jsonl"


@dataclass(frozen=True)
class Trial:
    """One setting of one arm, trained without the validation preferences and measured on them.

    Attributes:
        arm: the arm.
        learning_rate: the one tried.
        beta: the one tried; None if the objective has none.
        accuracy: share of validation preferences in the right order, ties counted half.
        spearman: rank correlation of reward margins with strengths; 0 where unknown.
        preferences: number of validation preferences.
        digest: of the configuration, so that a changed study is searched again.
        data: digest of the preferences, so that changed data is searched again; empty in trials of older versions.
    """

    arm: str
    learning_rate: float
    beta: float | None
    accuracy: float
    spearman: float
    preferences: int
    digest: str
    data: str = ""


def tune(study: StudyConfig, say: Callable[[str], None]) -> tuple[StudyConfig, dict[str, str]]:
    """Choose every arm's learning rate and β by validation accuracy; ties by correlation with strength, then order.

    Trials are stored in the study's folder, so an interrupted search continues where it stopped. One training
    seed (the study's first) is used.

    Args:
        study: with its `tune` section.
        say: called with progress messages.

    Returns:
        The study with the chosen settings in its arms, and a sentence for every arm.

    Raises:
        ConfigError: the search of `tune.reuse` did not try an arm, or a setting is wrong.
    """
    settings = study.tune
    assert settings is not None
    folder = Path(settings.reuse or study.output)
    if settings.reuse is not None:
        trials = _read(folder)
        missing = [arm for arm in study.arms if arm not in {trial.arm for trial in trials}]
        if missing:
            raise ConfigError(f"tune.reuse: {folder / FILE} holds no trial of the arms {', '.join(missing)}.")
    else:
        trials = _search(study, settings, say)
    arms, sentences = dict(study.arms), dict[str, str]()
    for arm, changes in study.arms.items():
        own = [trial for trial in trials if trial.arm == arm]
        best = max(own, key=lambda trial: (trial.accuracy, trial.spearman))  # the first of equals
        arms[arm] = merge(changes, _changes(best.learning_rate, best.beta))
        beta = "" if best.beta is None else f", β {best.beta:g}"
        sentences[arm] = (
            f"learning rate {best.learning_rate:g}{beta}: {best.accuracy:.1%} of {best.preferences} validation "
            f"preferences, best of {counted(len(own), 'setting')}"
        )
    return replace(study, arms=arms, tune=None), sentences


def _changes(learning_rate: float, beta: float | None) -> dict[str, Any]:
    return {"train": {"learning_rate": learning_rate}} | ({} if beta is None else {"objective": {"beta": beta}})


def _search(study: StudyConfig, settings: TuneConfig, say: Callable[[str], None]) -> list[Trial]:
    folder = Path(study.output)
    todo: dict[str, tuple[str, float, float | None, RunConfig]] = {}
    for arm in study.arms:
        for learning_rate, beta in _grid(study, arm, settings):
            config = _config(study, arm, settings, _changes(learning_rate, beta))
            todo[_digest(config)] = (arm, learning_rate, beta, config)
    first = next(iter(todo.values()))[3]
    workspace = Run.read(first).workspace()
    data = _data(workspace)

    def found() -> dict[str, Trial]:
        return {trial.digest: trial for trial in _read(folder) if trial.data in ("", data)}

    def tried(digest: str) -> bool:
        return digest in found()

    def attempt(number: int, digest: str) -> None:
        nonlocal workspace
        arm, learning_rate, beta, config = todo[digest]
        say(f"[tuning {number}/{len(todo)}] {arm}, learning rate {learning_rate:g}, β {beta}")
        run = Run.read(config)
        if not workspace.fits(run.task):
            workspace = run.workspace()
        accuracy, spearman, count = _measure(replace(config, output=f"{config.output}-{digest[:16]}"), workspace)
        trial = Trial(arm, learning_rate, beta, accuracy, spearman, count, digest, data)
        append_jsonl(folder / FILE, asdict(trial))

    share({digest: digest for digest in todo}, folder / LOCKS, tried, attempt)
    trials = found()
    return [trials[digest] for digest in todo]


def _data(workspace: Workspace) -> str:
    sides = (workspace.train.preferences, workspace.test.preferences)
    return hashlib.sha256("".join(side.fingerprint() for side in sides).encode()).hexdigest()


def _grid(study: StudyConfig, arm: str, settings: TuneConfig) -> Sequence[tuple[float, float | None]]:
    config = study.run_config(arm, study.seeds[0])
    rates = settings.learning_rates or [config.train.learning_rate]
    objective = OBJECTIVES.get(str(config.objective["name"]))
    options = objective.make_options({key: value for key, value in config.objective.items() if key != "name"})
    if "beta" not in {field.name for field in dataclasses.fields(options)}:
        return [(rate, None) for rate in rates]
    return [(rate, float(f"{options.beta * factor:.12g}")) for rate, factor in product(rates, settings.beta_factors)]


def _config(study: StudyConfig, arm: str, settings: TuneConfig, changes: Mapping[str, Any]) -> RunConfig:
    """A run of the arm without the test preferences and without generations."""
    place = {"data": {"validation_size": settings.validation_size}}
    arms = {arm: merge(merge(study.arms[arm], changes), place)}
    config = replace(study, arms=arms, baseline=arm, tune=None).run_config(arm, study.seeds[0])
    evaluation = replace(config.evaluation, reward=None, curve_points=0)
    return replace(config, output=str(Path(study.output) / "tuning"), evaluation=evaluation)


def _digest(config: RunConfig) -> str:
    """sha256 (hex) of the differences from the defaults, so that adding a field does not change it."""
    own: dict[str, Any] = {}
    for name, default in to_dict(RunConfig()).items():
        value = to_dict(config)[name]
        if isinstance(value, dict) and isinstance(default, dict):
            changed = {key: one for key, one in value.items() if key not in default or one != default[key]}
            own |= {name: changed} if changed else {}
        elif value != default:
            own[name] = value
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def _measure(config: RunConfig, workspace: Workspace) -> tuple[float, float, int]:
    _, policy = train(config, workspace=workspace, overwrite=True, keep_model=True)
    margins = held_out_margins(policy, Run.read(config), workspace)
    shutil.rmtree(config.output)
    margin_N, strength_N = margins.reward_margin, margins.strength
    right = (margin_N > 0) + 0.5 * (margin_N == 0)
    known = np.isfinite(strength_N)
    varied = len(np.unique(strength_N[known])) > 1 and len(np.unique(margin_N[known])) > 1
    spearman = np.corrcoef(rankdata(margin_N[known]), rankdata(strength_N[known]))[0, 1] if varied else 0.0
    return float(right.mean()), float(spearman), len(margin_N)


def _read(folder: Path) -> list[Trial]:
    file = folder / FILE
    return [Trial(**line) for line in read_jsonl(file)] if file.is_file() else []
