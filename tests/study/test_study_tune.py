"""The grid before a study: what is tried, what is chosen, and that the test preferences have no say in it."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from popmargin.config import DataConfig
from popmargin.errors import ConfigError
from popmargin.study.compare import compare
from popmargin.study.config import StudyConfig, TuneConfig
from popmargin.study.tune import FILE, Trial, tune
from popmargin.training.sides import load_split

MakeStudy = Callable[..., StudyConfig]
GRID = TuneConfig(learning_rates=[1e-3, 1e-2], beta_factors=[1.0, 3.0], validation_size=0.25)


@pytest.mark.slow
def test_a_study_is_tuned_once_and_says_what_it_chose(tmp_path: Path, make_study: MakeStudy) -> None:
    study = make_study(seeds=[0], tune=GRID)
    results, _ = compare(study)
    lines = [json.loads(line) for line in (tmp_path / "study" / FILE).read_text().splitlines()]
    tried = {(line["arm"], line["learning_rate"], line["beta"]) for line in lines}
    assert tried == {(arm, rate, beta) for arm in ("dpo", "pop") for rate in (1e-3, 1e-2) for beta in (0.1, 0.3)}
    assert not list((tmp_path / "study").glob("tuning-*"))
    best = max((line for line in lines if line["arm"] == "pop"), key=lambda one: (one["accuracy"], one["spearman"]))
    chosen, _ = tune(study, lambda _: None)
    assert chosen.tune is None
    run = chosen.run_config("pop", 0)
    assert run.train.learning_rate == best["learning_rate"] and run.objective["beta"] == best["beta"]
    assert run.data.validation_size == 0 and run.target.tau == 0.5
    assert f"learning rate {best['learning_rate']:g}, β {best['beta']:g}" in results.data["Chosen for DPO-PoP"]
    assert "best of 4 settings" in results.data["Chosen for DPO-PoP"]
    told: list[str] = []
    tune(study, told.append)
    assert not told  # nothing is tried again


@pytest.mark.slow
def test_an_interrupted_search_goes_on(tmp_path: Path, make_study: MakeStudy) -> None:
    study = make_study(seeds=[0], tune=dataclasses.replace(GRID, beta_factors=[1.0]))
    (tmp_path / "study").mkdir()
    tune(study, lambda _: None)
    file = tmp_path / "study" / FILE
    complete = file.read_text()
    file.write_text("".join(complete.splitlines(keepends=True)[:3]))
    told: list[str] = []
    tune(study, told.append)
    assert len(told) == 1 and "[tuning 4/4] pop" in told[0]
    assert file.read_text() == complete  # the same seed gives the same numbers


def test_settings_of_another_search(tmp_path: Path, make_study: MakeStudy) -> None:
    found = tmp_path / "found"
    found.mkdir()
    trials = [Trial("dpo", 1e-3, 0.1, 0.6, 0.0, 9, "a"), Trial("dpo", 2e-3, 0.1, 0.7, -0.2, 9, "b"),
              Trial("dpo", 3e-3, 0.1, 0.7, 0.2, 9, "c"), Trial("dpo", 4e-3, 0.1, 0.7, 0.2, 9, "d")]  # fmt: skip
    (found / FILE).write_text("".join(json.dumps(dataclasses.asdict(trial)) + "\n" for trial in trials))
    study = make_study(seeds=[0], tune=TuneConfig(reuse=str(found)))
    with pytest.raises(ConfigError, match="no trial of the arms pop"):
        tune(study, lambda _: None)
    only = dataclasses.replace(study, arms={"dpo": study.arms["dpo"]})
    assert tune(only, lambda _: None)[0].run_config("dpo", 0).train.learning_rate == 3e-3


def test_validation_preferences_come_from_the_training_side(data_path: str) -> None:
    train, test = load_split(DataConfig(train=data_path, test_size=0.25))
    fewer, validation = load_split(DataConfig(train=data_path, test_size=0.25, validation_size=0.25))
    assert set(fewer.ids) | set(validation.ids) == set(train.ids) and len(validation)
    assert not set(validation.prompt_keys) & (set(fewer.prompt_keys) | set(test.prompt_keys))


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="beta_factors"):
        TuneConfig(beta_factors=[])
    with pytest.raises(ConfigError, match="validation_size"):
        TuneConfig(validation_size=0)
