"""Margins by configuration: every pair of objective and source trains or is refused, and known ones are themselves."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from few_fast import few_fast
from popmargin.cli.main import main
from popmargin.config import RunConfig, from_dict, to_dict
from popmargin.data.load import load_preferences
from popmargin.errors import ConfigError, DataError
from popmargin.objectives.base import OBJECTIVES, Needs, Objective
from popmargin.study.config import StudyConfig
from popmargin.study.standard import keep_possible
from popmargin.training.arguments import training_arguments
from popmargin.training.build import Run, make_loss, make_parts, make_trainer
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory

Configure = Callable[..., RunConfig]
Metrics = Callable[[RunDirectory], list[dict[str, Any]]]
OWN_SOURCES = ["fixed", "pop", "ratings"]
OWN = [name for name in OBJECTIVES.names() if OBJECTIVES.get(name).function.__module__.startswith("popmargin.")]


@pytest.mark.parametrize("source", OWN_SOURCES)
@pytest.mark.parametrize("name", OWN)
def test_every_pair_trains_or_is_refused(
    name: str, source: str, configure: Configure, metrics: Metrics, soft_path: str
) -> None:
    config = configure(
        {"objective": {"name": name}, "margin": {"source": source}, "target": {"kind": "policy"}},
        {"train": {"max_steps": 1}, "data": {"train": soft_path}},
    )
    if OBJECTIVES.get(name).takes_margin != "yes":
        with pytest.raises(ConfigError, match=f"'{source}' cannot be combined with the objective '{name}', which"):
            make_loss(config)
        return
    run, _ = train(config)
    (line,) = metrics(run)
    assert math.isfinite(line["loss"]) and line["grad_norm"] > 0
    assert ("target_margin_mean" in line) == (source == "pop")
    assert ("rating_margin_std" in line) == (source == "ratings")
    assert (run.path / "edges.parquet").is_file() == (source == "pop" or name == "dpo_stronger")


def test_refused_with_the_reason_and_the_remedy(configure: Configure) -> None:
    for name, reason in [
        ("pop", "already has its own margin or target"),
        ("amapo", "already has its own margin or target"),
        ("cdpo", "has soft labels, which already express how strong a preference is"),
        ("dpop", "it may use single scores"),
    ]:
        config = configure({"objective": {"name": name}, "margin": {"source": "fixed"}})
        with pytest.raises(ConfigError, match=f"{reason}.*remove `margin`, or choose one of aps, dpo, dpo_stronger"):
            make_loss(config)


def test_a_users_own_objective_is_held_to_the_same(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    def register(**declared: Any) -> None:
        kind: Objective = replace(OBJECTIVES.get("hinge"), name="own_hinge", **declared)
        monkeypatch.setitem(OBJECTIVES._entries, "own_hinge", kind)  # pyright: ignore[reportPrivateUsage]

    config = configure({"objective": {"name": "own_hinge"}, "margin": {"source": "pop"}})
    register(takes_margin="no")
    with pytest.raises(ConfigError, match=r'not declared to depend only on chosen − rejected.*takes_margin="yes"'):
        make_loss(config)
    register(takes_margin="yes", needs=Needs(edges=True, weaker="gradient"))
    with pytest.raises(ConfigError, match="already uses the weaker sides of edges, with gradient"):
        make_loss(config)
    register(takes_margin="yes")
    assert make_loss(config).needs == Needs(edges=True, weaker="target")


@pytest.mark.parametrize(
    "changes",
    few_fast(
        [
            {},
            {"target": {"kind": "bank", "tau": 0.5}, "train": {"epochs": 2, "max_steps": None}},
            {"model": {"lora_rank": 2}},
            {"task": "reward"},
            {"tokens": {"name": "selective"}, "regularizers": [{"name": "budget"}], "train": {"micro_batch_size": 4}},
        ],
        (1,),
    ),
    ids=["full", "bank", "lora", "reward", "tokens-budget"],
)
def test_dpo_with_the_pop_margin_is_pop(
    changes: dict[str, Any], tmp_path: Path, configure: Configure, metrics: Metrics, weights: Any
) -> None:
    shared: dict[str, Any] = {"target": {"tau": 0.5}, "pop": {"sampling": "random", "k": 2}}
    runs = [
        train(configure(shared, changes, own, {"output": str(tmp_path / name)}))[0]
        for name, own in (
            ("pop", {"objective": {"name": "pop", "margin_max": 0.5}}),
            ("dpo", {"objective": {"name": "dpo"}, "margin": {"source": "pop", "margin_max": 0.5}}),
        )
    ]
    theirs, ours = (metrics(run) for run in runs)
    assert len(ours) >= 3 and any(line["target_margin_mean"] > 0 for line in ours)
    for one, other in zip(theirs, ours, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    there, here = (weights(run.model) for run in runs)
    assert there.keys() == here.keys()
    for name, tensor in there.items():
        torch.testing.assert_close(here[name], tensor, rtol=1e-4, atol=1e-5)


def test_the_margin_reaches_the_loss_and_not_the_log(
    configure: Configure, metrics: Metrics, data_path: str, tmp_path: Path
) -> None:
    """At step 1 all log-ratios are 0: hinge is 1 + mean margin, and the reward margin stays 0."""
    all_rows = {"train": {"max_steps": 1, "batch_size": 32}}
    run, _ = train(configure({"objective": {"name": "hinge"}, "margin": {"source": "ratings", "scale": 0.5}}, all_rows))
    (line,) = metrics(run)
    rows = load_preferences(data_path)
    ids = set(Run.read(configure(all_rows)).workspace().train.ids)
    rating = np.array([gap for gap, row in zip(rows.rating_gap, rows.ids, strict=True) if row in ids])
    assert len(rating) == 32
    np.testing.assert_allclose(line["loss"], np.maximum(0, 1 + 0.5 * rating).mean(), rtol=1e-4)
    np.testing.assert_allclose(line["rating_margin_mean"], 0.5 * rating.mean(), rtol=1e-4)
    np.testing.assert_allclose(line["rating_margin_std"], 0.5 * rating.std(), rtol=1e-3)
    assert line["reward_margin"] == pytest.approx(0, abs=1e-5)


def test_an_objectives_own_figures_are_of_what_it_sees(configure: Configure, metrics: Metrics) -> None:
    """At gap 0 without margin τ is the smallest; a margin of 3 leaves no row there."""
    steps = {"objective": {"name": "aps"}, "train": {"max_steps": 1}}
    run, _ = train(configure(steps))
    (plain,) = metrics(run)
    run, _ = train(configure(steps, {"margin": {"source": "fixed", "value": 3.0}}), overwrite=True)
    (moved,) = metrics(run)
    assert plain["tau_mean"] == pytest.approx(0.1) and moved["tau_mean"] > 3


def test_ratings_that_are_missing(configure: Configure, unrated_path: str) -> None:
    config = configure({"margin": {"source": "ratings"}, "data": {"train": unrated_path}})
    with pytest.raises(DataError, match="objective or its margin needs chosen_rating and rejected_rating, which"):
        train(config)


def test_a_target_that_is_not_finite_stops_before_the_step(configure: Configure) -> None:
    config = configure({"margin": {"source": "pop"}, "target": {"kind": "bank"}})
    directory = RunDirectory(Path(config.output))
    parts = make_parts(Run.read(config), Run.read(config).workspace())
    trainer = make_trainer(training_arguments(config.train, config.seed, directory.checkpoints), parts)
    target: Any = parts.loss.target
    target.load_state({name: torch.full_like(value, torch.nan) for name, value in target.state().items()})
    with pytest.raises(ValueError, match="The target's gap is not finite at step 1"):
        trainer.train()


def test_configuration_round_trip(configure: Configure) -> None:
    config = configure({"margin": {"source": "fixed", "value": 2}})
    assert from_dict(RunConfig, to_dict(config)) == config and make_loss(config).margin is not None
    old = to_dict(config)
    del old["margin"]
    assert from_dict(RunConfig, old).margin is None


def test_a_study_leaves_out_margins_that_the_data_cannot_give(
    base_run: dict[str, Any], unrated_path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = {"model": base_run["model"], "data": {"train": unrated_path, "test_size": 8}}
    sources: dict[str, Any] = {name: {"objective": {"name": "dpo"}, "margin": {"source": name}}
                               for name in OWN_SOURCES}  # fmt: skip
    study = StudyConfig(base=base, arms={"dpo": {"objective": {"name": "dpo"}}, **sources})
    assert list(keep_possible(study).arms) == ["dpo", "fixed"]
    said = capsys.readouterr().err
    assert "skipping ratings" in said and "skipping pop" in said


def test_the_list_of_objectives_says_who_takes_a_margin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["objectives", "hinge"]) == 0
    assert "takes a margin" in capsys.readouterr().out
    assert main(["objectives", "cpo"]) == 0
    assert "takes a margin" not in capsys.readouterr().out


def test_a_margin_column_stands_for_ratings(
    configure: Configure, metrics: Metrics, data_path: str, tmp_path: Path
) -> None:
    """The same rows with their gaps as `margin` instead of ratings train alike, and the report names the column."""
    lines = [json.loads(line) for line in Path(data_path).read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line["id"], line["margin"] = line.get("id"), line.pop("chosen_rating") - line.pop("rejected_rating")
    bare = tmp_path / "margin.jsonl"
    bare.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    common = {"objective": {"name": "dpo_rating_margin"}, "train": {"max_steps": 1}}
    rated = Run.read(configure(common)).workspace().train
    config = configure(common, {"data": {"train": str(bare)}})
    train(config)
    found = Run.read(config).workspace().train
    np.testing.assert_allclose(found.column("margin"), rated.column("margin"))
    assert "there are no ratings, so the column 'margin' is the margin if an objective needs one" in (
        found.preferences.report.notes
    )
