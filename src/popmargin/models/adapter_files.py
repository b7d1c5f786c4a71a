"""The files of a LoRA adapter: where they are, and which base they name."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from popmargin.config_names import EMBEDDED
from popmargin.errors import RunError
from popmargin.models.path import resolve_path
from popmargin.models.refusals import reason, refuse_pickles
from popmargin.safe_reading import read_json

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class Adapter:
    """An adapter's files.

    Attributes:
        path: folder or hub id, as given.
        base: folder or hub id of the model it was trained on, as it names it.
        weights: its safetensors file.
    """

    path: str
    base: str
    weights: Path

    def tensors(self) -> dict[str, torch.Tensor]:
        """Its weights, by their names in the file."""
        return load_file(self.weights)


def find_adapter(path: str) -> Adapter | None:
    """The adapter in a folder or hub repository, if there is one.

    Raises:
        RunError: it names no base, its weights are not in safetensors, or there is a whole model next to it.
    """
    if path in EMBEDDED:
        return None
    from transformers.utils.hub import cached_file
    from transformers.utils.peft_utils import find_adapter_config_file

    folder = resolve_path(path)
    try:
        file = find_adapter_config_file(folder)
    except OSError:  # no such model: loading it reports that
        return None
    if file is None:
        return None
    try:
        settings = read_json(file)
        weights = cached_file(folder, ADAPTER_WEIGHTS, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError) as error:
        raise RunError(f"Cannot read the adapter '{path}': {reason(error)}") from error
    if any(Path(folder).glob("model*.safetensors")):
        raise RunError(
            f"{path} contains both a whole model and an adapter, and it is unclear whether the adapter is already "
            f"merged. Keep one of them: remove {ADAPTER_CONFIG} or the model's weights, or move the adapter to its "
            f"own folder."
        )
    if weights is None:
        refuse_pickles(folder, path)
        raise RunError(f"The adapter '{path}' has no {ADAPTER_WEIGHTS}: is the folder complete?")
    base = settings.get("base_model_name_or_path")
    if not base:
        raise RunError(f"The adapter '{path}' names no base: write base_model_name_or_path into {file}.")
    return Adapter(path, str(base), Path(weights))
