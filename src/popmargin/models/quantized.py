"""Frozen weights in 4 bits, for adapters on top of them (QLoRA, Dettmers et al. 2023)."""

import importlib.util
from typing import Any

import torch
from torch import nn

from popmargin.errors import ConfigError
from popmargin.models.adapter_files import find_adapter


def in_four_bits(path: str, dtype: torch.dtype, place: torch.device, *, stack: bool) -> dict[str, Any]:
    """Options of `from_pretrained` that keep a model's linear layers, except the head, in nf4, doubly quantized.

    Args:
        path: of the model.
        dtype: in which the layers compute, and in which all other weights are.
        place: where the weights are quantized.
        stack: whether an adapter stays on its base.

    Raises:
        ConfigError: bitsandbytes is not installed, or an adapter would have to be merged into 4-bit weights.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "model.quantization: nf4 needs bitsandbytes, which is not installed. Run: pip install bitsandbytes"
        )
    if not stack and find_adapter(path) is not None:
        raise ConfigError(
            f"model.quantization: nf4 cannot merge the adapter '{path}' into weights of 4 bits. Set "
            "model.start_adapter to stack, or start from a whole model."
        )
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": settings, "device_map": {"": place}}


def keep_gradients(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking weights for a kernel of CPUs that has no gradient.

    It does so in place in the first forward pass in evaluation mode, such as the reference's: adapters below would then
    be trained on wrong gradients.
    """
    layers: Any = model.modules()
    for module in layers:
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
