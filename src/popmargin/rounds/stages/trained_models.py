"""Models that stages have trained."""

from pathlib import Path
from typing import Any

from popmargin.config import RunConfig
from popmargin.models.named_policy import NamedPolicy, find_policy
from popmargin.rounds.plan import Output


def start_model(config: RunConfig) -> Path | str:
    """The start model: a folder, whose content counts as an input, or a name."""
    folder = Path(config.model.path).expanduser()
    return folder.absolute() if folder.is_dir() else config.model.path


def start_inputs(config: RunConfig) -> dict[str, Output | Path]:
    """The start model as an input `model.path`; empty where it is a name, which stands in the settings."""
    start = start_model(config)
    return {} if isinstance(start, str) else {"model.path": start}


def policy_of(path: Path | str) -> NamedPolicy:
    """The policy in a folder that a training stage gives as its `model`, or any other that can be named."""
    run = Path(path).parent
    return find_policy(str(run if (run / "config.yaml").is_file() and Path(path).name == "model" else path))


def load_trained(path: Path) -> Any:
    """Its model, in evaluation mode."""
    return policy_of(path).load()
