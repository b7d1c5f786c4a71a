"""Attention over a packed row: every segment sees its prefix and itself, as if it were a sequence of its own.

Registered with transformers' attention interface, so that every model that uses the interface can run packed rows
unchanged: under adapters, gradient checkpointing and any dtype. Without `segments` it is the model's own attention.

Axis suffixes: A attention heads, K key/value heads, T tokens of the row, D head size.
"""

import functools
import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from popmargin.engine.flash import Segments, flash_attention, flash_fits

_PREFIX = "popmargin_"
_OWN = ("sdpa", "eager")  # what a model may use besides; others keep what they have


def allow_packing(model: PreTrainedModel) -> str | None:
    """Let a model take packed rows too; generation and padded batches go on as before.

    Returns:
        None, or why it cannot be done.
    """
    own = str(model.config._attn_implementation)  # pyright: ignore[reportPrivateUsage]
    if own.startswith(_PREFIX):
        return None
    if not getattr(model, "_supports_attention_backend", False):
        return "its attention cannot be replaced"
    if own not in _OWN:
        return f"it was loaded with attn_implementation='{own}'"
    model.set_attn_implementation(_PREFIX + own)
    return None


def packed_attention(
    module: nn.Module,
    query_AT: Tensor,
    key_KT: Tensor,
    value_KT: Tensor,
    segments: Segments,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of every segment to its prefix and itself.

    Args:
        module: the attention layer (not used).
        query_AT: (1, A, T, D).
        key_KT: (1, K, T, D), A a multiple of K.
        value_KT: (1, K, T, D).
        segments: token counts (prefix, tail, …) of each group; see `sequences.Sequences`.
        scaling: factor of the scores; None for 1/√D.
        dropout: share of attention weights to drop.
        softcap: c of c·tanh(score/c).
        sliding_window: most positions that a token looks back, itself included.

    Returns:
        (1, T, A, D), and None for the weights.
    """
    if softcap is None and flash_fits(query_AT):
        return flash_attention(
            query_AT, key_KT, value_KT, segments, scaling=scaling, dropout=dropout, window=sliding_window
        ), None
    return _segment_by_segment(
        query_AT, key_KT, value_KT, segments, scaling=scaling, dropout=dropout, softcap=softcap, window=sliding_window
    ), None


def _segment_by_segment(
    query_AT: Tensor,
    key_KT: Tensor,
    value_KT: Tensor,
    segments: Segments,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    window: int | None = None,
) -> Tensor:
    counts = [count for group in segments for count in group]
    # One split each: its backward is one concatenation, where slices would each fill a tensor of zeros.
    queries, keys, values = (tensor.split(counts, dim=2) for tensor in (query_AT, key_KT, value_KT))
    longest = max(group[0] + max(group[1:], default=0) for group in segments)
    window = window if window is not None and window < longest else None
    attend = functools.partial(
        _attend, mask=_Mask(longest, window, query_AT), scaling=scaling, dropout=dropout, softcap=softcap
    )
    results: list[Tensor] = []
    place = 0
    for group in segments:
        prefix = place
        results.append(attend(queries[prefix], keys[prefix], values[prefix]))
        for place in range(prefix + 1, prefix + len(group)):
            both_keys = torch.cat([keys[prefix], keys[place]], dim=2)
            both_values = torch.cat([values[prefix], values[place]], dim=2)
            results.append(attend(queries[place], both_keys, both_values))
        place = prefix + len(group)
    return torch.cat(results, dim=2).transpose(1, 2).contiguous()


class _Mask:
    """Additive causal masks of one row's segments: slices of one square, made once and kept for the next layer."""

    def __init__(self, longest: int, window: int | None, like: Tensor) -> None:
        self._longest, self.window, self._like = -(-longest // 128) * 128, window, like

    def square(self) -> Tensor:
        return _square(self._longest, self.window, self._like.dtype, self._like.device)


@functools.lru_cache(maxsize=4)
def _square(size: int, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    seen = torch.ones(size, size, dtype=torch.bool, device=device).tril_()
    if window is not None:
        seen = seen.triu_(1 - window)
    return torch.zeros(size, size, dtype=dtype, device=device).masked_fill_(~seen, float("-inf"))


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: _Mask,
    scaling: float | None,
    dropout: float,
    softcap: float | None,
) -> Tensor:
    """Attention of the last tokens of a sequence to all of it; query (1, A, t, D), key and value (1, K, l, D)."""
    fresh, length = query.shape[2], key.shape[2]
    groups = query.shape[1] // key.shape[1]
    causal = fresh == length and mask.window is None
    if softcap is not None:
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        scores = softcap * torch.tanh(query @ key.transpose(2, 3) * (scale / softcap))
        weights = (scores + mask.square()[length - fresh : length, :length]).softmax(-1, dtype=torch.float32)
        return nn.functional.dropout(weights.to(query.dtype), dropout) @ value
    grouped = groups > 1 and query.device.type == "cpu"
    if groups > 1 and not grouped:  # fused kernels on other devices take no mask with grouped heads
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=None if causal else mask.square()[length - fresh : length, :length],
        dropout_p=dropout,
        is_causal=causal,
        scale=scaling,
        enable_gqa=grouped,
    )


def _interface(own: str) -> Any:
    def attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any) -> Any:
        segments = kwargs.pop("segments", None)
        if segments is not None:
            return packed_attention(module, query, key, value, segments, **kwargs)
        if own == "sdpa":
            return sdpa_attention_forward(module, query, key, value, mask, **kwargs)
        return sys.modules[type(module).__module__].eager_attention_forward(module, query, key, value, mask, **kwargs)

    return attention


for _own in _OWN:
    AttentionInterface.register(_PREFIX + _own, _interface(_own))
    AttentionMaskInterface.register(_PREFIX + _own, ALL_MASK_ATTENTION_FUNCTIONS[_own])
