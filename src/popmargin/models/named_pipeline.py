"""The text-to-image model that a name means: a run directory with what it has trained, or a pipeline's folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch

from popmargin.config import read_saved
from popmargin.errors import RunError
from popmargin.models.path import resolve_path
from popmargin.models.pipelines import INDEX, Pipeline, load_pipeline
from popmargin.models.saved_pipelines import LORA_WEIGHTS, load_trained


@dataclass(frozen=True)
class NamedPipeline:
    """A text-to-image model by its name, of which nothing is loaded yet.

    Attributes:
        name: as given.
        folder: what loads: the model's folder of a run, else the name itself.
        start: what a run started from.
        size: height and width of the images that a run was trained on; None for the model's own.
        precision: fp32 or bf16, as a run was trained; fp32 where it is none.
    """

    name: str
    folder: str
    start: str = ""
    size: int | None = None
    precision: str = "fp32"

    def load(self) -> tuple[Pipeline, Any]:
        """The pipeline, and the U-Net or transformer to sample with: of a LoRA run the adapter on the start model.

        Raises:
            RunError: it cannot be loaded, or the start model of an adapter has changed.
        """
        if (Path(self.folder) / LORA_WEIGHTS).is_file():
            start = load_pipeline(self.start, torch.float32, size=self.size)
            return start, load_trained(Path(self.folder), start)
        pipeline = load_pipeline(self.folder, torch.float32, size=self.size)
        return pipeline, pipeline.model


def find_pipeline(name: str) -> NamedPipeline | None:
    """What a name means; nothing is loaded. None if it names a model of another kind.

    Args:
        name: a run directory, a pipeline's folder, or the hub id of one that is on this machine.

    Raises:
        RunError: there is no such folder, or the run has not finished.
    """
    folder = Path(name).expanduser()
    if (folder / "config.yaml").is_file():
        saved: dict[str, Any] = read_saved(folder / "config.yaml")
        task = saved.get("task", "policy")
        kind, options = (task, {}) if isinstance(task, str) else (task.get("name"), task)
        if kind != "images":
            return None
        if not (folder / "run.json").is_file():
            raise RunError(f"{name} has not finished training. Continue with popmargin train --resume.")
        model = saved.get("model", {})
        how = options.get("size"), model.get("precision", "fp32")
        return NamedPipeline(str(folder), str(folder / "model"), model.get("path", ""), *how)
    place = resolve_path(name)
    here = (Path(place) / INDEX).is_file()
    if not here and not Path(place).is_dir():
        here = isinstance(huggingface_hub.try_to_load_from_cache(place, INDEX), str)
    return NamedPipeline(name, name) if here else None
