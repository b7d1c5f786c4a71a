"""Rounds on the tiny model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popmargin.config import merge
from popmargin.rounds.rounds_config import RoundsConfig

MakeRounds = Callable[..., RoundsConfig]


@pytest.fixture
def make_rounds(tmp_path: Path, base_run: dict[str, Any], reward_path: str) -> MakeRounds:
    """Rounds of a recipe: `make_rounds({"name": "spa", "rounds": 1}, base={...}, output=...)`."""

    def make(recipe: dict[str, Any], base: dict[str, Any] | None = None, **fields: Any) -> RoundsConfig:
        own = {key: base_run[key] for key in ("model", "data", "reference", "train", "evaluation")}
        own = merge(own, {"evaluation": {"reward": reward_path}, "train": {"max_steps": None, "save_steps": 1}})
        values = {"output": str(tmp_path / "rounds"), "recipe": {"max_new_tokens": 6, **recipe}}
        return RoundsConfig(base=merge(own, base or {}), **(values | fields))

    return make


def facts(folder: Path, stage: str) -> dict[str, Any]:
    """What a finished stage says."""
    return json.loads((folder / stage / "manifest.json").read_text())["facts"]
