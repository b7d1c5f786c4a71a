"""Run a best-of-n study: draws in processes of their own, each kept as soon as it is finished, then one report."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.config import dump_yaml, to_dict
from popmargin.errors import ConfigError, counted
from popmargin.files import digest, read_jsonl, whole_file
from popmargin.report.best_of_n_page import write_best_of_n_report
from popmargin.report.best_of_n_results import BestOfNResults
from popmargin.study.best_of_n.best_of_n_config import NOT_OF_A_DRAW, BestOfNConfig
from popmargin.study.best_of_n.choosing_draw import Ground, run_draw
from popmargin.study.best_of_n.gather_choices import gather
from popmargin.study.best_of_n.gold_samples import Samples, read_samples
from popmargin.study.best_of_n.sample_features import sample_features
from popmargin.study.budget.draw_processes import run_draws
from popmargin.study.budget.head_features import whitened
from popmargin.study.budget.price_list import Prices
from popmargin.study.budget.same_settings import check_same, forget

DRAWS, SETTINGS, RESULTS, REPORT = "draws.jsonl", "best-of-n.yaml", "best-of-n.json", "report.html"


def run_best_of_n(config: BestOfNConfig, *, overwrite: bool = False) -> tuple[BestOfNResults, Path]:
    """Run what is missing of a best-of-n study, and write its results and its report.

    Args:
        config: of the study; `draws` may be raised later, and the same folder goes on.
        overwrite: begin again if the folder has draws of other settings or samples.

    Returns:
        The results and the path of the report.

    Raises:
        RunError: the folder has draws of other settings or samples.
        DataError: the samples or features cannot be used.
    """
    began = time.perf_counter()
    output = Path(config.output)
    samples = read_samples(config)
    ground = ground_of(config, samples)
    if overwrite:
        forget(output)
        (output / DRAWS).unlink(missing_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    check_same(output, _facts(config, ground), rehearse=config.rehearse)
    with whole_file(output / SETTINGS) as partial_file:
        partial_file.write_text(dump_yaml(to_dict(config)), encoding="utf-8")
    lean = replace(ground, strengths=ground.strengths.lean())
    log, sizes = output / DRAWS, config.sizes
    rows = run_draws(run_draw, lean, config, log, sizes=sizes, draws=config.draws, workers=config.workers)
    facts = samples.facts | {"Features": f"{ground.features.shape[1]} of each sample"}
    results = gather(rows, config, ground, seconds=time.perf_counter() - began, facts=facts)
    with whole_file(output / RESULTS) as partial_file:
        partial_file.write_text(results.to_json(), encoding="utf-8")
    return results, write_best_of_n_report(results, output / REPORT)


def finished_draws(config: BestOfNConfig) -> tuple[int, int]:
    """How many parts of a study (a size of a draw) are finished, and how many it has."""
    log = read_jsonl(Path(config.output) / DRAWS)
    done = {(row["size"], row["draw"]) for row in log if row["draw"] < config.draws and row["size"] in config.sizes}
    return len(done), len(config.sizes) * config.draws


def ground_of(config: BestOfNConfig, samples: Samples) -> Ground:
    """What all draws share; features are whitened on the training samples.

    Raises:
        ConfigError: an n that is larger than the number of samples of a prompt.
    """
    strengths, measured = samples.strengths, samples.measured
    ns = config.ns or [2**power for power in range(measured.fewest.bit_length())]
    if max(ns) > measured.fewest:
        raise ConfigError(
            f"The best of {max(ns)} cannot be taken: a prompt has {counted(measured.fewest, 'sample')} (empty ones do "
            "not count). Give smaller ns, or sample more."
        )
    place = {text: row for row, text in enumerate(strengths.texts)}
    for text in measured.texts:
        place.setdefault(text, len(place))
    features = sample_features(list(place), samples.raw, config.features, str(Path(config.output) / "features"))
    known = np.arange(len(strengths.texts))
    return Ground(
        measured=measured, strengths=strengths, features=whitened(features, known, config.features.dimensions),
        place=np.array([place[text] for text in measured.texts], dtype=np.int64),
        prices=Prices.of(config.prices, strengths), ns=sorted(set(ns)),
    )  # fmt: skip


def _facts(config: BestOfNConfig, ground: Ground) -> dict[str, Any]:
    """What the draws of a folder share: other settings or samples give other numbers."""
    values = {name: value for name, value in to_dict(config).items() if name not in NOT_OF_A_DRAW}
    del values["sizes"]  # each size has draws of its own
    gold = ground.measured.gold.tobytes(), ground.strengths.log_odds.tobytes()
    return {
        "settings": json.loads(json.dumps(values)),
        "samples": digest(repr((ground.measured.texts, ground.strengths.texts)).encode(), *gold),
        "features": digest(np.ascontiguousarray(ground.features.round(6)).tobytes()),
    }
