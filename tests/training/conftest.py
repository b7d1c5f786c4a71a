"""What training tests read back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from popmargin.files import read_jsonl
from popmargin.training.run_directory import RunDirectory

Weights = dict[str, torch.Tensor]


@pytest.fixture
def metrics() -> Callable[[RunDirectory], list[dict[str, Any]]]:
    return lambda run: read_jsonl(run.path / "metrics.jsonl")


@pytest.fixture
def weights() -> Callable[[Path], Weights]:
    """The tensors of a model folder: full weights or adapter."""

    def read(folder: Path) -> Weights:
        files = [f for f in folder.glob("*.safetensors") if not f.name.startswith("popmargin")]
        return {name: tensor for file in files for name, tensor in load_file(file).items()}

    return read
