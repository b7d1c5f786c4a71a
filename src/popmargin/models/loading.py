"""The one place that loads weights and tokenizers, from folders and from the hub.

Only safetensors are read, code next to them never runs, and a LoRA adapter is merged into its base.
"""

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from popmargin.engine.dropout import switch_off_dropout
from popmargin.errors import ConfigError, RunError
from popmargin.models.adapter_files import ADAPTER_CONFIG, find_adapter
from popmargin.models.adapters import merge_adapter, stack_adapter
from popmargin.models.path import resolve_path
from popmargin.models.quiet import quiet_loading
from popmargin.models.refusals import FAILURES, reason, refuse_pickles

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def load_pretrained(
    auto: Any, path: str, what: str, *, dtype: torch.dtype, dropout: bool = False, stack: bool = False, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """A model from a folder or hub id, in main memory; for a LoRA adapter, its base with the adapter merged.

    Args:
        auto: one of transformers' Auto classes.
        path: a folder, a hub id, or `demo`.
        what: what it should be, for messages, e.g. `a reward model`.
        dtype: of the weights. An adapter is merged in fp32 first.
        dropout: keep the dropout of the model's own configuration on in training.
        stack: keep an adapter on its base, frozen, instead of merging it.
        options: further ones of `from_pretrained`.

    Returns:
        The model, and transformers' loading info: weights that were missing, unexpected, or of another shape.

    Raises:
        RunError: it cannot be loaded, has code of its own or pickled weights, or its adapter does not fit.
    """
    adapter = find_adapter(path) if stack else None
    if stack and adapter is None:
        raise ConfigError(f"model.start_adapter is stack, but '{path}' is a whole model. Remove the setting.")
    model, info = _load(auto, path if adapter is None else adapter.base, what, dtype, options, above=())
    model.name_or_path = model.config.name_or_path = path  # as given: our adapters will name it as their base
    if not dropout:
        switch_off_dropout(model)
    return (model if adapter is None else stack_adapter(model, adapter)), info


def _load(
    auto: Any, path: str, what: str, dtype: torch.dtype, options: dict[str, Any], above: tuple[str, ...]
) -> tuple[Any, dict[str, Any]]:
    adapter = find_adapter(path)
    if adapter is None:
        return _load_whole(auto, path, what, dtype, options)
    if path in above:
        raise RunError(f"The adapter '{path}' names itself as its base. Write the base into its {ADAPTER_CONFIG}.")
    try:
        model, info = _load(auto, adapter.base, what, torch.float32, options, (*above, path))
    except RunError as error:
        raise RunError(f"'{path}' is an adapter, but its base does not load: {error}") from error
    merge_adapter(model, adapter, info)
    cast_weights(model, dtype)
    return model, info


def _load_whole(
    auto: Any, path: str, what: str, dtype: torch.dtype, options: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    folder = resolve_path(path)
    refuse_pickles(folder, path)
    try:
        with quiet_loading(), _whole_weights():
            return auto.from_pretrained(
                folder, dtype=dtype, output_loading_info=True, use_safetensors=True, trust_remote_code=False, **options
            )
    except FAILURES as error:
        raise RunError(f"Cannot load {what} from '{path}': {reason(error)}") from error


@contextlib.contextmanager
def _whole_weights() -> Generator[None]:
    """Under ZeRO-3, transformers would load empty weights that only a DeepSpeed engine, made later, can fill."""
    from transformers.integrations import deepspeed

    if not deepspeed.is_deepspeed_zero3_enabled():
        yield
        return
    reference: Any = deepspeed._hf_deepspeed_config_weak_ref  # pyright: ignore[reportPrivateUsage]
    settings = reference()
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed.set_hf_deepspeed_config(settings)


def load_tokenizer_files(path: str) -> Any:
    """The tokenizer of a folder or hub id, unchanged; for an adapter without one, its base's.

    Raises:
        RunError: it cannot be loaded, or has code of its own.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(resolve_path(path), trust_remote_code=False)
    except FAILURES as error:
        adapter = find_adapter(path)
        if adapter is not None and adapter.base != path and not (Path(path) / "tokenizer_config.json").is_file():
            return load_tokenizer_files(adapter.base)
        if (Path(resolve_path(path)) / "model_index.json").is_file():
            raise RunError(
                f"'{path}' is a text-to-image model. Set task: images, and preferences between images."
            ) from None
        raise RunError(f"Cannot load a tokenizer from '{path}': {reason(error)}") from error


def stored_dtype(path: str) -> torch.dtype:
    """The dtype in which a model's weights are stored; for an adapter, its base's. fp32 if training does not use it.

    Raises:
        RunError: there is no such model.
    """
    from transformers import AutoConfig

    adapter = find_adapter(path)
    if adapter is not None and adapter.base != path:
        return stored_dtype(adapter.base)
    folder = resolve_path(path)
    try:
        config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except FAILURES as error:
        raise RunError(f"Cannot read the configuration of '{path}': {reason(error)}") from error
    dtype = config.dtype or config.get_text_config().dtype
    if dtype is None:  # transformers' rule: then the weights decide
        for file in sorted(Path(folder).glob("*.safetensors"))[:1]:
            with safe_open(file, "pt") as tensors:
                dtype = next((tensors.get_tensor(name).dtype for name in tensors.keys()), None)  # noqa: SIM118
    return dtype if dtype in _DTYPES else torch.float32


def cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast all weights in place; buffers such as rotary frequencies keep theirs."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
