"""What tests of text-to-image models share besides fixtures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from popmargin.config import RunConfig
from popmargin.training.run_directory import RunDirectory

Configure = Callable[..., RunConfig]
Folder = Callable[[str], Path]


def metrics(run: RunDirectory) -> list[dict[str, Any]]:
    """The lines of its log."""
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
