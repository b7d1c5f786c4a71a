"""Attention over a packed row on CUDA: one call of the variable-length flash kernel for all segments.

A segment's keys are gathered behind those of its prefix, so every segment is a sequence of its own whose last
tokens are the queries. The gather's backward adds the gradients of a prefix in a fixed order and in fp32.

Axis suffixes: A attention heads, K key/value heads, T tokens of the row, G gathered keys, D head size.
"""

import functools
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Segments = tuple[tuple[int, ...], ...]
"""Token counts (prefix, tail, …) of each group of a packed row."""

_LOG = logging.getLogger(__name__)
_DTYPES = (torch.bfloat16, torch.float16)
_TOLERANCE = 0.05  # relative, of a trial: bf16 rounds by 0.003; a wrong mask changes results by their own size


def flash_fits(query: Float[Tensor, "1 A T D"]) -> bool:
    """Whether the kernel supports this query: CUDA, half precision (or autocast to it), and a supported head size."""
    size = query.shape[-1]
    if query.device.type != "cuda" or size % 8 or size > 256:
        return False
    return _dtype(query) in _DTYPES and _works(query.device, size)


def flash_attention(
    query_AT: Float[Tensor, "1 A T D"],
    key_KT: Float[Tensor, "1 K T D"],
    value_KT: Float[Tensor, "1 K T D"],
    segments: Segments,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    window: int | None = None,
) -> Float[Tensor, "1 T A D"]:
    """Attention of every segment to its prefix and itself; arguments as for `attention.packed_attention`.

    Args:
        query_AT: (1, A, T, D).
        key_KT: (1, K, T, D), A a multiple of K.
        value_KT: (1, K, T, D).
        segments: token counts (prefix, tail, …) of each group.
        scaling: factor of the scores; None for 1/√D.
        dropout: share of attention weights to drop.
        window: maximum positions that a token attends to, itself included.
    """
    plan, dtype = _plan(segments, query_AT.device), _dtype(query_AT)
    query, key, value = (tensor[0].transpose(0, 1).to(dtype) for tensor in (query_AT, key_KT, value_KT))
    gathered: list[Any] = [key, value]
    if plan.index is not None:
        gathered = [_Gather.apply(tensor, plan) for tensor in (key, value)]
    output, *_ = torch.ops.aten._flash_attention_forward(
        query,
        *gathered,
        plan.query_starts,
        plan.key_starts,
        plan.longest_query,
        plan.longest_key,
        dropout,
        window is None,
        False,  # no debug mask
        scale=scaling,
        window_size_left=None if window is None else window - 1,
        window_size_right=None if window is None else 0,
    )
    return output[None]


def _dtype(tensor: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else tensor.dtype


@dataclass(frozen=True)
class _Plan:
    """Where the kernel finds a row's segments.

    Attributes:
        query_starts: first token of each of S segments, and the end (S+1,).
        key_starts: first gathered key of each segment, and the end (S+1,).
        longest_query: tokens of the longest segment.
        longest_key: the same with its prefix.
        index: row position of every gathered key (G,); None if no segment has a prefix, so keys stay where they
            are.
        places: places of the gathered keys in the order of their row positions (G,).
        firsts: for every row position, where its own begin in `places` (T,).
    """

    query_starts: Tensor
    key_starts: Tensor
    longest_query: int
    longest_key: int
    index: Tensor | None
    places: Tensor | None
    firsts: Tensor | None


@functools.lru_cache(maxsize=8)  # a model's layers all use the same one, forward and backward
def _plan(segments: Segments, device: torch.device) -> _Plan:
    keys: list[np.ndarray] = []
    queries: list[int] = []
    start = 0
    for prefix, *tails in segments:
        shared, end = np.arange(start, start + prefix), start + prefix
        if prefix:
            keys.append(shared)
            queries.append(prefix)
        for tail in tails:
            keys.append(np.concatenate([shared, np.arange(end, end + tail)]))
            queries.append(tail)
            end += tail
        start = end
    lengths = [len(key) for key in keys]

    def put(values: np.ndarray, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(values).to(dtype).pin_memory().to(device, non_blocking=True)

    def starts(counts: list[int]) -> Tensor:
        return put(np.concatenate([[0], np.cumsum(counts)]), torch.int32)

    index = np.concatenate(keys)
    shares = len(index) > start
    order = np.argsort(index, kind="stable")
    firsts = np.searchsorted(index[order], np.arange(start))
    return _Plan(
        query_starts=starts(queries),
        key_starts=starts(lengths),
        longest_query=max(queries),
        longest_key=max(lengths),
        index=put(index, torch.int64) if shares else None,
        places=put(order, torch.int64) if shares else None,
        firsts=put(firsts, torch.int64) if shares else None,
    )


class _Gather(torch.autograd.Function):
    """Rows of a tensor by index, (T, K, D) to (G, K, D)."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, plan: _Plan) -> Tensor:
        ctx.plan = plan
        assert plan.index is not None
        return source.index_select(0, plan.index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        flat = grads[0].flatten(1)
        # A bag is a sum of rows: here, the gradients of all copies of a key.
        sums, *_ = torch.embedding_bag(flat, ctx.plan.places, ctx.plan.firsts, False, 0)
        return sums.view(-1, *grads[0].shape[1:]), None


@functools.cache
def _works(device: torch.device, size: int) -> bool:
    """A trial against plain attention, once per device and head size: some GPUs' kernels do not support them all.

    Nor is the kernel a public function of torch.
    """
    segments, heads = ((3, 2, 4), (5,), (0, 1, 2)), 2
    random = torch.Generator().manual_seed(0)
    tokens = sum(map(sum, segments))
    query, key, value = (torch.randn(1, heads, tokens, size, generator=random) for _ in range(3))
    try:
        with torch.enable_grad():
            halves = [tensor.to(device, torch.bfloat16).requires_grad_() for tensor in (query, key, value)]
            found = flash_attention(halves[0], halves[1], halves[2], segments)
            found.float().square().sum().backward()
            full = [tensor.requires_grad_() for tensor in (query, key, value)]
            expected = _plain(full[0], full[1], full[2], segments)
            expected.square().sum().backward()
    except (RuntimeError, TypeError) as error:
        _LOG.warning("Packed rows run without the flash kernel (%s: %s).", type(error).__name__, error)
        return False
    pairs = [(found, expected), *((half.grad, whole.grad) for half, whole in zip(halves, full, strict=True))]
    worst = max(float((a.detach().float().cpu() - b.detach()).norm() / b.detach().norm()) for a, b in pairs)  # pyright: ignore[reportOptionalMemberAccess]
    if worst > _TOLERANCE:
        _LOG.warning("Packed rows run without the flash kernel (a trial differs by %.2g).", worst)
    return worst <= _TOLERANCE


def _plain(query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
    """The same attention with a mask over the whole row."""
    seen = torch.zeros(query.shape[2], query.shape[2], dtype=torch.bool)
    start = 0
    for prefix, *tails in segments:
        end = start + prefix
        seen[start:end, start:end] = torch.ones(prefix, prefix).tril() > 0
        for tail in tails:
            seen[end : end + tail, start : start + prefix] = True
            seen[end : end + tail, end : end + tail] = torch.ones(tail, tail).tril() > 0
            end += tail
        start = end
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2)
