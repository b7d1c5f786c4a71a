"""How long the matrix products of a training step take by themselves."""

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from models import SHAPES
from popmargin.models.policies import device


def needed_seconds(setting: Any, lengths: list[tuple[int, int, int]]) -> float:
    """Seconds of the products that a step needs, each measured alone: linear layers, attention and head, both ways.

    Every prompt counts once; only completion positions count in the head. Attention counts what the causal mask lets
    through, at the rate of whole products.

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
    heads, key_heads = shape["num_attention_heads"], shape["num_key_value_heads"]
    for prompt, chosen, rejected in lengths:
        seen = _seen(prompt, chosen, rejected)
        length = _rounded(prompt + (chosen + rejected) // 2)
        whole = _attention(length, heads, key_heads, hidden // heads, dtype)
        seconds += whole * seen / length**2
    return shape["num_hidden_layers"] * seconds + head


def needed_flops(setting: Any, lengths: list[tuple[int, int, int]]) -> float:
    """Floating-point operations of the same products.

    Args:
        setting: model and lora.
        lengths: tokens of prompt, chosen and rejected of each preference of the step.
    """
    shape = SHAPES[setting.model]
    hidden, inner, heads = shape["hidden_size"], shape["intermediate_size"], shape["num_attention_heads"]
    layer = hidden * (2 * hidden + 2 * hidden * shape["num_key_value_heads"] // heads + 3 * inner)
    passes = 2 if setting.lora else 3
    total = 0.0
    for prompt, chosen, rejected in lengths:
        total += 2 * passes * (prompt + chosen + rejected - 2) * layer * shape["num_hidden_layers"]
        total += 2 * passes * (chosen + rejected) * hidden * shape["vocab_size"]
        total += 12 * _seen(prompt, chosen, rejected) * hidden * shape["num_hidden_layers"]
    return total


def _seen(prompt: int, chosen: int, rejected: int) -> float:
    """Pairs of tokens of which one sees the other."""
    return sum(tail * prompt + tail * tail / 2 for tail in (chosen - 1, rejected - 1)) + prompt * prompt / 2


def _rounded(length: int) -> int:
    return max(64, -(-length // 64) * 64)


@functools.cache
def _attention(length: int, heads: int, key_heads: int, size: int, dtype: torch.dtype) -> float:
    """Seconds of q·kᵀ and w·v, and of the four products of their backward, over a square of this length."""
    rows = heads // key_heads * length
    q, k = _some(key_heads, rows, size, dtype=dtype), _some(key_heads, length, size, dtype=dtype)
    scores = _some(key_heads, rows, length, dtype=dtype)

    def run() -> None:
        for _ in range(2):  # scores, gradient of the weights
            q @ k.transpose(1, 2)
            scores @ k  # result, gradient of the queries
            scores.transpose(1, 2) @ q  # gradients of values and keys

    return _best(run)


@functools.cache
def _products(tokens: int, width_in: int, width_out: int, dtype: torch.dtype, weight_gradient: bool) -> float:
    """Seconds of x·Wᵀ, g·W and, for a trained weight, gᵀ·x."""
    x, weight = _some(tokens, width_in, dtype=dtype), _some(width_out, width_in, dtype=dtype)
    gradient = _some(tokens, width_out, dtype=dtype)

    def run() -> None:
        torch.nn.functional.linear(x, weight)
        gradient @ weight
        if weight_gradient:
            gradient.T @ x

    return _best(run)


def _some(*size: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*size, device=device()).to(dtype)


def _best(run: Callable[[], None]) -> float:
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best
