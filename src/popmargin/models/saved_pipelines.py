"""Writing a trained text-to-image model in diffusers' format, whole or as LoRA weights, and reading it back."""

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from popmargin.config import ModelConfig
from popmargin.errors import ConfigError, RunError
from popmargin.listed_files import refuse_changed
from popmargin.models.lora import add_adapter
from popmargin.models.path import LORA_WEIGHTS
from popmargin.models.pipelines import INDEX, Pipeline, load_part
from popmargin.models.policies import BASE_FILE
from popmargin.models.saved import write_tensors
from popmargin.models.shared_weights import shared_copy
from popmargin.safe_reading import read_json

WEIGHTS = "diffusion_pytorch_model.safetensors"
_METADATA = "lora_adapter_metadata"  # diffusers' key
_PREFIX = "base_model.model."


def make_denoiser(start: nn.Module, config: ModelConfig) -> Any:
    """A model to train: all weights of a copy of the start model, or a LoRA adapter on all its linear layers.

    Raises:
        ConfigError: adapter settings that do not fit the model.
    """
    from peft import LoraConfig

    model: Any = shared_copy(start) if config.lora_rank else copy.deepcopy(start)

    def recompute(*_: Any, **__: Any) -> None:
        model.enable_gradient_checkpointing()

    for name in ("activation_checkpointing_enable", "gradient_checkpointing_enable"):  # transformers' names
        setattr(model, name, recompute)
    if not config.lora_rank:
        return model.requires_grad_(True)
    if config.lora_last_layers is not None:
        raise ConfigError(
            "model.lora_last_layers has no meaning for a text-to-image model, whose blocks are not in one row: remove "
            "it."
        )
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    alpha = config.lora_alpha if config.lora_alpha is not None else 2 * config.lora_rank
    lora = LoraConfig(r=config.lora_rank, lora_alpha=alpha, lora_dropout=config.lora_dropout, target_modules=linear)  # pyright: ignore[reportArgumentType]
    return add_adapter(model, lora)


def save_whole(pipeline: Pipeline, model: Any, weights: Mapping[str, Tensor], folder: Path, dtype: torch.dtype) -> None:
    """A pipeline folder with trained weights; the other parts are copied.

    Args:
        pipeline: the start model.
        model: gives the configuration.
        weights: of the trained part.
        folder: created if missing.
        dtype: of the weights on disk.

    Raises:
        RunError: the files differ from the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = read_json(pipeline.folder / INDEX)
    for place in sorted(pipeline.folder.iterdir()):
        if place.is_dir() and place.name in index and place.name != pipeline.name:
            shutil.copytree(place, folder / place.name, dirs_exist_ok=True)
    shutil.copyfile(pipeline.folder / INDEX, folder / INDEX)
    model.save_config(folder / pipeline.name)
    cast = {name: value.detach().to("cpu", dtype) if value.is_floating_point() else value.detach().cpu()
            for name, value in weights.items()}  # fmt: skip
    write_tensors(cast, folder / pipeline.name / WEIGHTS)


def save_lora(pipeline: Pipeline, model: Any, state: Mapping[str, Tensor] | None, folder: Path) -> None:
    """LoRA weights that `load_lora_weights` of diffusers reads, with the fingerprint of their base.

    Args:
        pipeline: the start model.
        model: with the adapter.
        state: its gathered weights, if they are sharded in the model.
        folder: created if missing.

    Raises:
        RunError: the file differs from the weights.
    """
    from peft import get_peft_model_state_dict

    weights: dict[str, Tensor] = get_peft_model_state_dict(model, state_dict=state)
    renamed = {f"{pipeline.name}.{name.removeprefix(_PREFIX)}": value.detach().cpu() for name, value in weights.items()}
    settings = model.peft_config["default"].to_dict()
    told = {
        f"{pipeline.name}.{key}": sorted(settings[key]) if isinstance(settings[key], set) else settings[key]
        for key in ("r", "lora_alpha", "lora_dropout", "target_modules")
    }
    write_tensors(renamed, folder / LORA_WEIGHTS, {_METADATA: json.dumps(told, indent=2, sort_keys=True)})
    (folder / BASE_FILE).write_text(pipeline.fingerprint(pipeline.name) + "\n", encoding="utf-8")


def load_trained(folder: Path, pipeline: Pipeline) -> Any:
    """The trained part of a saved text-to-image model.

    Args:
        folder: of a run's model.
        pipeline: the start model.

    Raises:
        RunError: there is none, it is not as it was written, or its LoRA weights were trained on other weights.
    """
    refuse_changed(folder, remedy="Copy the folder again, or train again.")
    if (folder / LORA_WEIGHTS).is_file():
        return _load_lora(folder, pipeline)
    if not (folder / INDEX).is_file():
        raise RunError(f"{folder} has no trained model: has the run finished? Resume it with popmargin train --resume.")
    dtype = next(pipeline.model.parameters()).dtype
    return load_part(folder / pipeline.name, pipeline.model, str(folder), dtype)


def _load_lora(folder: Path, pipeline: Pipeline) -> Any:
    from peft import LoraConfig, set_peft_model_state_dict

    note = folder / BASE_FILE
    if note.is_file() and note.read_text(encoding="utf-8").strip() != pipeline.fingerprint(pipeline.name):
        raise RunError(
            f"The adapter in {folder} was trained on a start model whose weights have since changed, so together "
            "they are a different model. Restore the start model, or train again."
        )
    try:
        with safe_open(folder / LORA_WEIGHTS, "pt") as file:
            told = json.loads(file.metadata()[_METADATA])
        weights = load_file(folder / LORA_WEIGHTS)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"The LoRA weights in {folder} cannot be read ({error}). Train again.") from error
    settings = {key.removeprefix(f"{pipeline.name}."): value for key, value in told.items()}
    model = add_adapter(shared_copy(pipeline.model), LoraConfig(**settings))
    set_peft_model_state_dict(
        model, {f"{_PREFIX}{name.removeprefix(f'{pipeline.name}.')}": value for name, value in weights.items()}
    )
    return model.eval()
