"""Tiny text-to-image pipelines and preferences between images, made once a session."""

from pathlib import Path
from typing import Any

import pytest
from image_runs import Configure, Folder

from popmargin.config import RunConfig, from_dict, merge


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder of a tiny pipeline of a kind, made once."""
    import tiny_pipelines  # diffusers takes seconds to import

    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = tiny_pipelines.saved(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return folder


@pytest.fixture(scope="session")
def image_preferences(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve preferences between images, with ratings."""
    import tiny_pipelines

    return tiny_pipelines.write_preferences(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def image_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The cache of all runs of the session."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def configure(pipeline_folder: Folder, image_preferences: str, image_cache: str, tmp_path: Path) -> Configure:
    """The configuration of a run of two steps of four pairs, with changes."""

    def make(*changes: dict[str, Any], kind: str = "pixels", name: str = "run") -> RunConfig:
        values: dict[str, Any] = {
            "output": str(tmp_path / name),
            "task": "images",
            "model": {"path": str(pipeline_folder(kind))},
            "data": {"train": image_preferences, "test_size": 4},
            "objective": {"name": "dpo"},
            "reference": {"cache": image_cache},
            "train": {"batch_size": 4, "learning_rate": 1e-3, "max_steps": 2, "warmup_ratio": 0.0},
        }
        for change in changes:
            values = merge(values, change)
        return from_dict(RunConfig, values)

    return make
