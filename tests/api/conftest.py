"""TRL's arguments, and preferences in memory, for the tests of the front door."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popmargin.config import RunConfig
from popmargin.data.schema import Preferences
from popmargin.training.sides import load_split


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One for all tests of the front door: what it holds is named by its content."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def cache(cache_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POPMARGIN_CACHE", cache_folder)


@pytest.fixture
def arguments(tmp_path: Path) -> Callable[..., Any]:
    """TRL's arguments with the settings of the short run in conftest."""
    from trl import DPOConfig

    def make(**changes: Any) -> Any:
        values: dict[str, Any] = {
            "output_dir": str(tmp_path / "trl"),
            "seed": 0,
            "per_device_train_batch_size": 8,
            "learning_rate": 1e-3,
            "max_steps": 3,
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
            "bf16": False,
            "gradient_checkpointing": False,
            "max_length": 96,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
        }
        return DPOConfig(**(values | changes))

    return make


@pytest.fixture
def sides(configure: Callable[..., RunConfig]) -> tuple[Preferences, Preferences]:
    return load_split(configure().data)
