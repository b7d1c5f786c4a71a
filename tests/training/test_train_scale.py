"""A strength scale in training: where it comes from, and what a run records of it."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from few_fast import few_fast
from popmargin.config import RunConfig
from popmargin.errors import ConfigError, DataError
from popmargin.pop.edges import PopEdges
from popmargin.pop.fit import fit_strengths
from popmargin.pop.scale import StrengthScale
from popmargin.pop.strengths import half_normal_strengths
from popmargin.training.build import Run, make_parts
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory

Configure = Callable[..., RunConfig]
Metrics = Callable[[RunDirectory], list[dict[str, Any]]]


def scaled(**pop: Any) -> dict[str, Any]:
    return {"objective": {"name": "pop_scale"}, "pop": pop}


def test_a_scale_is_fitted_to_the_runs_edges_and_kept(configure: Configure) -> None:
    run, _ = train(configure(scaled(k=3, sampling="active", ridge=0.5), {"train": {"max_steps": 1}}))
    edges, scale = PopEdges.load(run.path / "edges.parquet"), StrengthScale.load(run.path / "scale.parquet")
    assert edges.parameters["sampling"] == "active" and scale.parameters["ridge"] == 0.5
    np.testing.assert_array_equal(fit_strengths(edges, scale.ids, ridge=0.5).strength, scale.strength)
    facts = run.facts()
    assert facts["edges_fingerprint"] == edges.fingerprint() and facts["scale"]["unknown"] == 0
    assert facts["rows"] == facts["train_preferences"] == len(scale)


def test_the_rows_of_a_batch_carry_their_own_strength(configure: Configure) -> None:
    config = configure(scaled(k=3))
    workspace = Run.read(config).workspace()
    parts = make_parts(Run.read(config), workspace)
    assert parts.scale is not None and parts.scale.ids == workspace.train.ids
    z = half_normal_strengths(parts.scale.strength)
    (batch,) = parts.collator([5, 2, 9])["parts"]
    np.testing.assert_allclose(batch["columns"]["scale"].numpy(), z[[5, 2, 9]], rtol=1e-6)
    truth = workspace.train.strength
    assert np.corrcoef(z, truth)[0, 1] > 0.6


@pytest.mark.parametrize("use", few_fast(["soft_label", "margin", "squared"], (0,)))
def test_margins_approach_their_targets(configure: Configure, metrics: Metrics, use: str) -> None:
    changes = {"objective": {"name": "pop_scale", "use": use}, "pop": {"k": 2}}
    run, _ = train(configure(changes, {"train": {"max_steps": 10, "batch_size": 32, "learning_rate": 1e-3}}))
    lines = metrics(run)
    assert lines[-1]["loss"] < 0.95 * lines[0]["loss"] and lines[-1]["reward_margin"] > lines[0]["reward_margin"]
    assert lines[0]["scale_target"] == pytest.approx(1.5 if use == "soft_label" else 1.0, abs=0.2)
    assert lines[0]["scale_short"] == 1.0


def test_a_scale_from_a_file_may_hold_more_and_not_less(configure: Configure, tmp_path: Path) -> None:
    workspace = Run.read(configure({})).workspace()
    ids = workspace.train.ids
    everything = fit_strengths(PopEdges.from_columns(ids[1:], ids[:-1]), ["elsewhere", *ids])
    everything.save(tmp_path / "scale.parquet")
    run, _ = train(configure(scaled(scale=str(tmp_path / "scale.parquet")), {"train": {"max_steps": 1}}))
    kept = StrengthScale.load(run.path / "scale.parquet")
    assert kept.ids == ids and not (run.path / "edges.parquet").exists()
    np.testing.assert_array_equal(kept.strength, everything.strength[1:])
    everything.select(ids[3:]).save(tmp_path / "part.parquet")
    with pytest.raises(DataError, match=f"no strength for 3 of {len(ids)} preferences"):
        train(configure(scaled(scale=str(tmp_path / "part.parquet")), {"output": str(tmp_path / "part")}))


def test_preferences_without_a_comparison_are_said_and_get_the_middle(
    configure: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ids = Run.read(configure({})).workspace().train.ids
    PopEdges.from_columns(ids[:4], ids[4:8]).save(tmp_path / "edges.parquet")
    config = configure(scaled(edges=str(tmp_path / "edges.parquet")))
    with caplog.at_level(logging.WARNING):
        parts = make_parts(Run.read(config), Run.read(config).workspace())
    assert f"{len(ids) - 8} of {len(ids)} training preferences have no comparison" in caplog.text
    column = parts.collator.columns["scale"]
    assert len(np.unique(column[8:])) == 1 and column[:4].min() > column[8] > column[4:8].max()


def test_a_zero_turns_the_weakest_preferences_round(configure: Configure, tmp_path: Path) -> None:
    """Their strengths are negative: as right answers in a known share say, or answers about the labels."""
    half = half_normal_strengths(Run.read(configure(scaled(k=3))).workspace().train.strength)
    for number, zero in enumerate(({"right": 0.75}, {"agreement": 0.625})):
        config = configure(scaled(k=3, zero=zero), {"output": str(tmp_path / str(number))})
        z = make_parts(Run.read(config), Run.read(config).workspace()).collator.columns["scale"]
        assert (z < 0).mean() == pytest.approx(0.25, abs=0.05) and np.abs(z).mean() == pytest.approx(1, abs=1e-5)
        assert np.corrcoef(z, half)[0, 1] > 0.5
    with pytest.raises(DataError, match="no column 'doubt'"):
        config = configure(scaled(k=3, zero={"wrong": "doubt"}))
        make_parts(Run.read(config), Run.read(config).workspace())


def test_what_sampled_edges_say_of_a_flipped_label(configure: Configure, tmp_path: Path) -> None:
    """Signed: by how much the response that is preferred now is better; before_flip: as somebody saw the old label."""

    def run_of(strength: str, sampling: str = "random") -> tuple[Any, PopEdges]:
        pop = {"strength": strength, "sampling": sampling, "k": 2}
        workspace = Run.read(configure({"objective": {"name": "pop"}, "pop": pop, "data": {"flip": 0.4}})).workspace()
        return workspace, workspace.edges(Run.read(configure({"pop": pop})).pop)

    claims = Run.read(configure({})).workspace().train.strength
    for strength in ("signed", "unsigned", "before_flip"):
        workspace, edges = run_of(strength)
        flipped = np.array([name in workspace.train.flipped for name in workspace.train.ids])
        assert flipped.any() and not flipped.all()
        truth = np.where(flipped, -claims, claims) if strength == "signed" else claims
        stronger, weaker = edges.resolve(workspace.train.ids)
        assert (truth[stronger] > truth[weaker]).all()
    _, chain = run_of("signed", "chain")
    assert len(chain) == 2 * len(claims)


def test_a_negative_ridge_is_refused(configure: Configure) -> None:
    with pytest.raises(ConfigError, match=r"pop\.ridge must be at least 0"):
        configure(scaled(ridge=-1.0))
