"""Loading start models, putting adapters on them, and reading finished runs back."""

import contextlib
import copy
import functools
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from popmargin.adapters import add_adapter
from popmargin.config import ModelConfig
from popmargin.engine.rewards import HEAD
from popmargin.errors import ConfigError, RunError


def base_dtype(config: ModelConfig) -> torch.dtype:
    """The dtype of the start model's weights: bf16 only where they stay frozen, since small steps are lost in bf16."""
    return torch.bfloat16 if config.precision == "bf16" and config.lora_rank else torch.float32


def resolve_path(path: str) -> str:
    """`demo` as the folder of the embedded model; anything else as it is."""
    if path == "demo":
        from popmargin.demo.model import demo_model_path

        return str(demo_model_path())
    return path


def load_tokenizer(path: str) -> Any:
    """The tokenizer of a model folder or hub id, with a padding token.

    Raises:
        RunError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve_path(path))
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"Cannot load a tokenizer from '{path}': {first_line(error)}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(path: str, dtype: torch.dtype) -> Any:
    """A causal language model from a folder or hub id, on the default accelerator.

    Raises:
        RunError: it cannot be loaded, or lacks weights, as a reward model lacks those of the words' head.
    """
    from transformers import AutoModelForCausalLM

    try:
        with quiet_loading():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                resolve_path(path), dtype=dtype, output_loading_info=True
            )
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"Cannot load a causal language model from '{path}': {first_line(error)}") from error
    model, info = loaded
    # With tied embeddings a classifier lacks nothing, but is no language model any more.
    classifier = f"{HEAD}.weight" in info["unexpected_keys"]
    if info["missing_keys"] or classifier:
        what = "is a classifier, such as a reward model" if classifier else "was saved without some of its weights"
        lacks = f" ({min(info['missing_keys'])} would be random)" if info["missing_keys"] else ""
        raise RunError(f"'{path}' is no trained causal language model: it {what}{lacks}. Name another model.")
    return model.to(device())


@contextlib.contextmanager
def quiet_loading() -> Generator[None]:
    """Without transformers' own bars: loading takes a moment, and ours tell of what takes longer."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def device() -> torch.device:
    """The accelerator when there is one, else the CPU."""
    found = torch.accelerator.current_accelerator()
    return found if found is not None and torch.accelerator.is_available() else torch.device("cpu")


@functools.cache
def bf16_is_slower() -> bool:
    """Whether bf16 matmuls take longer than fp32 ones here, as on CPUs without instructions for them; measured once."""
    if device().type != "cpu":
        return False
    return _matmul_seconds(torch.bfloat16) > _matmul_seconds(torch.float32)


def _matmul_seconds(dtype: torch.dtype) -> float:
    left, right = torch.ones(128, 576, dtype=dtype), torch.ones(576, 1536, dtype=dtype)
    best = float("inf")
    for _ in range(4):  # the first one warms up
        started = time.perf_counter()
        torch.matmul(left, right)
        best = min(best, time.perf_counter() - started)
    return best


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).strip().partition("\n")[0]


def make_policy(start: nn.Module, config: ModelConfig) -> Any:
    """A model to train, from a copy of the start model: all weights, or a LoRA adapter.

    Raises:
        ConfigError: adapter settings that do not fit the model.
    """
    model: Any = copy.deepcopy(start)
    if not config.lora_rank:
        return model.requires_grad_(True)
    return add_adapter(model, lora_config(model, config, head=model.get_output_embeddings(), task_type="CAUSAL_LM"))


def lora_config(model: Any, config: ModelConfig, *, head: nn.Module | None, task_type: str) -> Any:
    """peft's configuration of an adapter on all linear layers but the head, GPT-2's Conv1D among them.

    Raises:
        ConfigError: adapter settings that do not fit the model.
    """
    from peft import LoraConfig
    from transformers.pytorch_utils import Conv1D

    layers = getattr(model.config, "num_hidden_layers", None)
    chosen = None
    linear = _linear_layers(model, head)
    if config.lora_last_layers is not None:
        if layers is None or not 1 <= config.lora_last_layers <= layers:
            raise ConfigError(f"model.lora_last_layers is {config.lora_last_layers}; the model has {layers} layers.")
        chosen = list(range(layers - config.lora_last_layers, layers))
    return LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha if config.lora_alpha is not None else 2 * config.lora_rank,  # pyright: ignore[reportArgumentType]
        lora_dropout=config.lora_dropout,
        target_modules=sorted(linear),
        fan_in_fan_out=Conv1D in linear.values(),  # how its weights lie
        layers_to_transform=chosen,
        task_type=task_type,  # pyright: ignore[reportArgumentType]
    )


def _linear_layers(model: Any, head: nn.Module | None) -> dict[str, type[nn.Module]]:
    """The last name of every linear layer but the head -> its class."""
    from transformers.pytorch_utils import Conv1D

    layers: dict[str, type[nn.Module]] = {
        name.rpartition(".")[2]: type(module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
    if not layers:
        raise ConfigError("The model has no linear layers that LoRA could adapt; set model.lora_rank to 0.")
    return layers


def load_policy(folder: Path, start: nn.Module) -> Any:
    """A trained policy: a folder with full weights, or an adapter that goes onto a copy of the start model.

    Raises:
        RunError: the folder holds neither.
    """
    if (folder / "adapter_config.json").is_file():
        from peft import PeftModel

        return PeftModel.from_pretrained(copy.deepcopy(start), folder)  # pyright: ignore[reportArgumentType]
    if (folder / "config.json").is_file():
        return load_model(str(folder), next(start.parameters()).dtype)
    raise RunError(f"{folder} holds no trained model: has the run finished? Resume it with popmargin train --resume.")
