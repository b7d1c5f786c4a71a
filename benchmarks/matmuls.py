"""How long the matrix products of a training step take by themselves."""

import functools
import time
from typing import Any

import torch
from torch import Tensor

from models import SHAPES
from popmargin.models import device


def needed_seconds(setting: Any, lengths: list[tuple[int, int, int]]) -> float:
    """Seconds of the products that a step needs, each measured alone: linear layers and head, forward and backward.

    Every prompt counts once; only completion positions count in the head. Attention's products are left out.

    Args:
        setting: model, dtype, lora, threads.
        lengths: tokens of prompt, chosen and rejected of each preference of the step.
    """
    shape = SHAPES[setting.model]
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    narrow = hidden * shape["num_key_value_heads"] // shape["num_attention_heads"]
    tokens = sum(prompt + chosen + rejected - 2 for prompt, chosen, rejected in lengths)
    completion = sum(chosen + rejected for _, chosen, rejected in lengths)
    dtype = torch.bfloat16 if setting.dtype == "bf16" else torch.float32
    layers = [(hidden, hidden, 2), (hidden, narrow, 2), (hidden, inner, 2), (inner, hidden, 1)]
    seconds = sum(
        count * _products(tokens, width_in, width_out, dtype, not setting.lora) for width_in, width_out, count in layers
    )
    head = _products(completion, hidden, shape["vocab_size"], dtype, not setting.lora)
    return shape["num_hidden_layers"] * seconds + head


@functools.cache
def _products(tokens: int, width_in: int, width_out: int, dtype: torch.dtype, weight_gradient: bool) -> float:
    """Seconds of x·Wᵀ, g·W and, for a trained weight, gᵀ·x."""
    random = torch.Generator(device()).manual_seed(0)

    def some(*size: int) -> Tensor:
        return torch.randn(*size, generator=random, device=device()).to(dtype)

    x, weight = some(tokens, width_in), some(width_out, width_in)
    gradient = some(tokens, width_out)

    def run() -> None:
        torch.nn.functional.linear(x, weight)
        gradient @ weight
        if weight_gradient:
            gradient.T @ x

    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best
