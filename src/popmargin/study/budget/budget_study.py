"""Run a budget study: draws in processes of their own, each kept as soon as it is finished, then one report."""

import json
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.config import dump_yaml, to_dict
from popmargin.files import digest, read_jsonl, whole_file
from popmargin.report.budget_page import write_budget_report
from popmargin.report.budget_results import BudgetResults
from popmargin.study.budget.budget_config import NOT_OF_A_DRAW, BudgetConfig
from popmargin.study.budget.draw import Ground, Parts, run_draw
from popmargin.study.budget.draw_processes import run_draws
from popmargin.study.budget.gather_draws import gather
from popmargin.study.budget.head_features import features_of_file, features_of_model, whitened
from popmargin.study.budget.human_strengths import HumanStrengths, read_strengths
from popmargin.study.budget.price_list import Prices
from popmargin.study.budget.same_settings import check_same, forget

DRAWS, SETTINGS, RESULTS, REPORT = "draws.jsonl", "budget.yaml", "budget.json", "report.html"


def run_budget(config: BudgetConfig, *, overwrite: bool = False) -> tuple[BudgetResults, Path]:
    """Run what is missing of a budget study, and write its results and its report.

    Args:
        config: of the study; `draws` may be raised later, and the same folder goes on.
        overwrite: begin again if the folder has draws of other settings or data.

    Returns:
        The results and the path of the report.

    Raises:
        RunError: the folder has draws of other settings or data.
        DataError: the data or features cannot be used.
    """
    began = time.perf_counter()
    output = Path(config.output)
    ground = _ground(config)
    if overwrite:
        forget(output)
        (output / DRAWS).unlink(missing_ok=True)
    check_same(output, _facts(config, ground), rehearse=config.rehearse)
    with whole_file(output / SETTINGS) as partial_file:
        partial_file.write_text(dump_yaml(to_dict(config)), encoding="utf-8")
    lean = replace(ground, strengths=ground.strengths.lean())
    log, sizes = output / DRAWS, config.sizes
    rows = run_draws(run_draw, lean, config, log, sizes=sizes, draws=config.draws, workers=config.workers)
    results = gather(rows, config, ground, seconds=time.perf_counter() - began)
    with whole_file(output / RESULTS) as partial_file:
        partial_file.write_text(results.to_json(), encoding="utf-8")
    return results, write_budget_report(results, output / REPORT)


def finished_draws(config: BudgetConfig) -> tuple[int, int]:
    """How many parts of a study (a size of a draw) are finished, and how many it has."""
    log = read_jsonl(Path(config.output) / DRAWS)
    done = {(row["size"], row["draw"]) for row in log if row["draw"] < config.draws and row["size"] in config.sizes}
    return len(done), len(config.sizes) * config.draws


def _ground(config: BudgetConfig) -> Ground:
    data = {field.name: getattr(config.data, field.name) for field in fields(config.data)}
    strengths = read_strengths(data.pop("path"), **data)
    parts = Parts.of(strengths, config)
    features = _features(config, strengths)
    rows = parts.development
    known = np.unique(np.concatenate([strengths.better[rows], strengths.worse[rows]]))
    features = whitened(features, known, config.features.dimensions)
    return Ground(strengths=strengths, features=features, parts=parts, prices=Prices.of(config.prices, strengths))


def _features(config: BudgetConfig, strengths: HumanStrengths) -> Any:
    chosen = config.features
    if chosen.file is not None:
        return features_of_file(chosen.file, strengths.texts)
    return features_of_model(strengths, chosen, str(Path(config.output) / "features"))


def _facts(config: BudgetConfig, ground: Ground) -> dict[str, Any]:
    """What the draws of a folder share: other settings or data give other numbers."""
    values = {name: value for name, value in to_dict(config).items() if name not in NOT_OF_A_DRAW}
    del values["sizes"]  # each size has draws of its own
    return {
        "settings": json.loads(json.dumps(values)),
        "data": digest(repr(ground.strengths.texts).encode(), ground.strengths.log_odds.tobytes()),
        "features": digest(np.ascontiguousarray(ground.features.round(6)).tobytes()),
    }
