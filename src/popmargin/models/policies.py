"""Loading start models, putting adapters on them, and reading finished runs back."""

import copy
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from popmargin.config import ModelConfig
from popmargin.engine.rewards import HEAD
from popmargin.errors import ConfigError, RunError
from popmargin.listed_files import refuse_changed
from popmargin.models.adapter_files import find_adapter
from popmargin.models.adapters import is_stacked, put_on_top, without_start_adapter
from popmargin.models.loading import cast_weights, load_pretrained, load_tokenizer_files
from popmargin.models.lora import add_adapter
from popmargin.models.quantized import in_four_bits, keep_gradients
from popmargin.models.shared_weights import copy_to_merge, shared_copy

BASE_FILE = "popmargin_base.txt"
"""Next to an adapter: the fingerprint of the start model it was trained on."""


def base_dtype(config: ModelConfig) -> torch.dtype:
    """The dtype of the start model's weights in memory: bf16 only if they stay frozen, since it loses small steps.

    Merging a start adapter into its base is such a step, so these bases are in fp32 too.
    """
    frozen = config.precision == "bf16" and config.lora_rank and stands_alone(config)
    return torch.bfloat16 if frozen else torch.float32


def stands_alone(config: ModelConfig) -> bool:
    """Whether an adapter's base can be loaded by name, so that only the adapter need be saved.

    A base with a merged start adapter is nowhere on disk.
    """
    return config.start_adapter == "stack" or find_adapter(config.path) is None


def load_tokenizer(path: str) -> Any:
    """The tokenizer of a model folder or hub id, with a padding token: its own, else EOS, else another special token.

    Which one does not matter to a causal model, since padding is masked.

    Raises:
        RunError: it cannot be loaded, has code of its own, or has no token to pad with.
    """
    return with_padding(load_tokenizer_files(path), path)


def with_padding(tokenizer: Any, path: str) -> Any:
    """The same tokenizer with a padding token, as `load_tokenizer` chooses it."""
    if isinstance(tokenizer, str):
        raise ConfigError(f"The tokenizer is a text, '{tokenizer}'. Pass AutoTokenizer.from_pretrained('{tokenizer}').")
    if tokenizer.pad_token_id is None:
        special = [str(token) for _, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special]
        spare = [token for token in (tokenizer.eos_token, tokenizer.unk_token, *special) if token is not None]
        if not spare:
            raise RunError(
                f"The tokenizer of '{path}' has no padding token, no EOS and no other special token to pad with. In "
                "its tokenizer_config.json, set pad_token and eos_token to tokens in the model's vocabulary."
            )
        tokenizer.pad_token = spare[0]
    return tokenizer


def load_model(
    path: str,
    dtype: torch.dtype,
    *,
    dropout: bool = False,
    stack: bool = False,
    place: torch.device | None = None,
    quantization: str = "none",
) -> Any:
    """A causal language model from a folder or hub id; see `loading.load_pretrained`.

    Args:
        path: a folder, a hub id, or `demo`.
        dtype: of the weights.
        dropout: keep the dropout of the model's own configuration on in training.
        stack: keep an adapter on its base, frozen, instead of merging it.
        place: where it is put; None for the default accelerator.
        quantization: `nf4` keeps the weights of its linear layers, except the head, in 4 bits.

    Raises:
        ConfigError: bitsandbytes, which quantizes, is not installed, or an adapter would have to be merged.
        RunError: it cannot be loaded, or has missing weights, such as a reward model without an LM head.
    """
    from transformers import AutoModelForCausalLM

    place = place or device()
    options: dict[str, Any] = {} if quantization == "none" else in_four_bits(path, dtype, place, stack=stack)
    model, info = load_pretrained(AutoModelForCausalLM, path, "a causal language model", dtype=dtype, dropout=dropout,
                                  stack=stack, **options)  # fmt: skip
    # With tied embeddings a classifier has no missing weights, but it is no longer a language model.
    classifier = f"{HEAD}.weight" in info["unexpected_keys"]
    if info["missing_keys"] or classifier:
        what = "is a classifier, such as a reward model" if classifier else "has missing weights"
        lacks = f" ({min(info['missing_keys'])} would be random)" if info["missing_keys"] else ""
        raise RunError(f"'{path}' is not a trained causal language model: it {what}{lacks}. Choose another model.")
    if quantization != "none":
        keep_gradients(model)
    return model.to(place)


def device() -> torch.device:
    """The accelerator if there is one, otherwise the CPU."""
    found = torch.accelerator.current_accelerator()
    return found if found is not None and torch.accelerator.is_available() else torch.device("cpu")


def process_count() -> int:
    """Number of processes that train one run together, even before they are connected."""
    if torch.distributed.is_initialized():
        return int(torch.distributed.get_world_size())
    return int(os.environ.get("WORLD_SIZE", "1"))


_ROUNDS = 24
"""In some processes, up to ten of the first matmuls wait for each other's threads."""


@functools.cache
def bf16_is_slower() -> bool:
    """Whether bf16 matmuls take longer than fp32 ones here, as on CPUs without instructions for them; measured once."""
    if device().type != "cpu":
        return False
    pairs = [(_matmul_seconds(torch.bfloat16), _matmul_seconds(torch.float32)) for _ in range(_ROUNDS)]
    return min(bf16 for bf16, _ in pairs) > min(fp32 for _, fp32 in pairs)


def _matmul_seconds(dtype: torch.dtype) -> float:
    left, right = torch.ones(128, 576, dtype=dtype), torch.ones(576, 1536, dtype=dtype)
    started = time.perf_counter()
    torch.matmul(left, right)
    return time.perf_counter() - started


def make_policy(start: nn.Module, config: ModelConfig, *, own: Any = None, adapter: Any = None) -> Any:
    """A model to train: all weights of a copy of the start model, or a LoRA adapter around its own weights.

    Args:
        start: the start model, whose weights stay as they are; those under an adapter are not copied.
        config: whether it gets an adapter, and which one.
        own: a model with the weights of the start model to be trained itself, which may be the start model.
        adapter: peft's configuration of the adapter; None makes it from `config`.

    Raises:
        ConfigError: adapter settings that do not fit the model.
    """
    if not config.lora_rank:
        model: Any = copy.deepcopy(start) if own is None else own
        return model.requires_grad_(True)
    model = shared_copy(start) if own is None else own
    settings = adapter or lora_config(model, config, head=model.get_output_embeddings(), task_type="CAUSAL_LM")
    return put_on_top(model, settings) if is_stacked(model) else add_adapter(model, settings)


def lora_config(model: Any, config: ModelConfig, *, head: nn.Module | None, task_type: str) -> Any:
    """peft's configuration of an adapter on all linear layers except the head, including GPT-2's Conv1D.

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
            raise ConfigError(
                f"model.lora_last_layers is {config.lora_last_layers}, but the model has {layers} layers."
            )
        chosen = list(range(layers - config.lora_last_layers, layers))
    return LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha if config.lora_alpha is not None else 2 * config.lora_rank,  # pyright: ignore[reportArgumentType]
        lora_dropout=config.lora_dropout,
        target_modules=sorted(linear),
        fan_in_fan_out=Conv1D in linear.values(),  # the layout of its weights
        layers_to_transform=chosen,
        task_type=task_type,  # pyright: ignore[reportArgumentType]
    )


def _linear_layers(model: Any, head: nn.Module | None) -> dict[str, type[nn.Module]]:
    """The last name of every linear layer except the head -> its class."""
    from transformers.pytorch_utils import Conv1D

    of_head = set() if head is None else set(head.modules())
    layers: dict[str, type[nn.Module]] = {
        name.removesuffix(".base_layer").rpartition(".")[2]: type(module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module not in of_head and ".lora_" not in name
    }
    if not layers:
        raise ConfigError("The model has no linear layers for LoRA to adapt; set model.lora_rank to 0.")
    return layers


def merged(model: Any) -> Any:
    """A copy in main memory with the adapter merged, in fp32: bf16 would lose small changes.

    Weights that are in main memory, and in fp32, and without an adapter, are not copied.
    """
    where = next(model.parameters()).device
    result = copy_to_merge(model.to("cpu"))
    model.to(where)
    cast_weights(result, torch.float32)
    return result.merge_and_unload(safe_merge=True)  # not in place


def load_policy(folder: Path, start: nn.Module, *, fingerprint: Callable[[], str] | None = None) -> Any:
    """A trained policy: from a folder with full weights, or an adapter around the weights of the start model.

    Args:
        folder: of a run's model.
        start: the start model; those weights are not copied.
        fingerprint: of the start model; computed only if the folder says which one its adapter was trained on.

    Raises:
        RunError: the folder has neither, or its adapter was trained on other weights.
    """
    refuse_changed(folder, remedy="Copy the folder again, or train again.")
    note = folder / BASE_FILE
    if fingerprint is not None and note.is_file() and note.read_text(encoding="utf-8").strip() != fingerprint():
        raise RunError(
            f"The adapter in {folder} was trained on a start model whose weights have since changed, so together "
            "they are a different policy. Restore the start model, or train again."
        )
    if (folder / "adapter_config.json").is_file():
        from peft import PeftModel

        base = without_start_adapter(start) if is_stacked(start) else shared_copy(start)
        return PeftModel.from_pretrained(base, folder)  # pyright: ignore[reportArgumentType]
    if (folder / "config.json").is_file():
        return load_model(str(folder), next(start.parameters()).dtype)
    raise RunError(f"{folder} has no trained model: has the run finished? Resume it with popmargin train --resume.")
