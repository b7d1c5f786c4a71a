"""A small study on the tiny model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popmargin.config import merge
from popmargin.study.config import StudyConfig

MakeStudy = Callable[..., StudyConfig]
ARMS = {
    "dpo": {"label": "DPO", "objective": {"name": "dpo"}},
    "pop": {"label": "DPO-PoP", "objective": {"name": "pop"}, "target": {"tau": 0.5}},
}


@pytest.fixture
def make_study(tmp_path: Path, base_run: dict[str, Any], reward_path: str) -> MakeStudy:
    def make(changes: dict[str, Any] | None = None, **fields: Any) -> StudyConfig:
        base = {name: base_run[name] for name in ("model", "data", "train")}
        base["evaluation"] = {**base_run["evaluation"], "reward": reward_path, "curve_points": 2, "curve_prompts": 2}
        settings = {
            "output": str(tmp_path / "study"),
            "base": merge(base, changes or {}),
            "arms": ARMS,
            "seeds": [0, 1],
        }
        return StudyConfig(**(settings | fields))

    return make
