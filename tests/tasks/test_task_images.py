"""Text-to-image models: a run of two steps on a tiny pipeline, from preferences to a folder that diffusers loads."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pipelines
import pytest

from popmargin.config import RunConfig, from_dict, merge
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory

Configure = Callable[..., RunConfig]


@pytest.fixture(scope="session")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipelines.saved(tmp_path_factory.mktemp("pixels"))


@pytest.fixture(scope="session")
def preferences(tmp_path_factory: pytest.TempPathFactory) -> str:
    return pipelines.write_preferences(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def configure(pixels: Path, preferences: str, cache: str, tmp_path: Path) -> Configure:
    """The configuration of a run of two steps of four pairs, with changes."""

    def make(changes: dict[str, Any] | None = None, name: str = "run") -> RunConfig:
        base = {
            "output": str(tmp_path / name),
            "task": "images",
            "model": {"path": str(pixels)},
            "data": {"train": preferences, "test_size": 4},
            "objective": {"name": "dpo"},
            "reference": {"cache": cache},
            "train": {"batch_size": 4, "learning_rate": 1e-3, "max_steps": 2, "warmup_ratio": 0.0},
        }
        return from_dict(RunConfig, merge(base, changes or {}))

    return make


def metrics(run: RunDirectory) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_two_steps(configure: Configure) -> None:
    run, model = train(configure(), keep_model=True)
    first, second = metrics(run)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6) and first["accuracy"] == 0.5
    assert first["winner_error_change"] == first["loser_error_change"] == first["d_std"] == 0
    assert second["loss"] != first["loss"] and second["d_std"] > 0


EDGES: dict[str, Any] = {"pop": {"k": 2}}
EVERY = [
    ({"objective": {"name": name}, **more}, None)
    for name, more in (
        ("dpo", {}),
        ("ipo", {}),
        ("hinge", {}),
        ("ropo", {}),
        ("aps", {}),
        ("amapo", {}),
        ("simpo", {}),
        ("geometric_dpo", {"data": {"soft_label_temperature": "range"}}),
        ("smpo", {"data": {"soft_label_temperature": "quantiles"}}),
        ("dpo_rating_margin", {}),
        ("dpo_fixed_margin", {}),
        ("pop", {"target": {"kind": "ema"}}),
        ("pop", {"target": {"kind": "policy"}}),
        ("pop", {"target": {"kind": "bank"}}),
        ("pop_rank", {}),
        ("pop_scale", {}),
        ("dpo", {"regularizers": [{"name": "sft"}]}),
    )
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [changes for changes, _ in EVERY], ids=lambda changes: "-".join(
        [changes["objective"]["name"], *changes.get("target", {}).values(), *(["sft"] if "regularizers" in changes else [])]
    )
)  # fmt: skip
def test_every_objective_trains(configure: Configure, changes: dict[str, Any]) -> None:
    run, _ = train(configure(changes))
    lines = metrics(run)
    assert len(lines) == 2 and all(math.isfinite(line["loss"]) for line in lines)
    assert lines[0]["grad_norm"] > 0
