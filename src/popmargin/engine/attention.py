"""Attention over a packed row: every segment sees its prefix and itself, as if it were a sequence of its own.

Registered with transformers' attention interface, so that every model that uses the interface can run packed rows
unchanged: under adapters, gradient checkpointing and any dtype. Without `segments` it is the model's own attention.
Windows and chunks are those of the model's own masks; see `sight.py`.

Axis suffixes: A attention heads, K key/value heads, T tokens of the row, D head size.
"""

import functools
import sys
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from popmargin.engine.flash import Segments, flash_attention, flash_fits
from popmargin.engine.sight import Sight, current_watch, tagged

_PREFIX = "popmargin_"
_OWN = ("sdpa", "eager")  # what a model may use otherwise; other models are left unchanged
_KNOWN = ("position_ids", "cache_position", "attention_mask")  # tensors that add nothing about a packed row
_SIGHTS: "weakref.WeakKeyDictionary[nn.Module, Sight]" = weakref.WeakKeyDictionary()


def allow_packing(model: PreTrainedModel) -> str | None:
    """Let a model take packed rows as well; generation and padded batches are unaffected.

    Returns:
        None, or the reason why it cannot.
    """
    own = _implementation(model)
    if not getattr(model, "_supports_attention_backend", False):
        return "its attention cannot be replaced"
    if own.removeprefix(_PREFIX) not in _OWN:
        return f"it was loaded with attn_implementation='{own}'"
    if own in _OWN:
        model.set_attn_implementation(_PREFIX + own)
    return None


def forbid_packing(model: PreTrainedModel) -> None:
    """Give a model its own attention back."""
    own = _implementation(model)
    if own.startswith(_PREFIX):
        model.set_attn_implementation(own.removeprefix(_PREFIX))


def take_sights(sights: Mapping[nn.Module, Sight | None]) -> str | None:
    """Make packed rows obey the masks that layers received in a plain forward pass.

    Returns:
        None, or the reason why they cannot: a mask of another kind, which only the model itself can build.
    """
    if None in sights.values():
        return "a mask of its attention is neither causal, nor a window, nor chunks"
    _SIGHTS.update({module: sight for module, sight in sights.items() if sight is not None})
    return None


def _sight(module: nn.Module) -> Sight:
    if module not in _SIGHTS:
        raise TypeError(f"a plain forward pass does not run its {type(module).__name__}")
    return _SIGHTS[module]


def _implementation(model: PreTrainedModel) -> str:
    return str(model.config._attn_implementation)  # pyright: ignore[reportPrivateUsage]


def packed_attention(
    query_AT: Tensor,
    key_KT: Tensor,
    value_KT: Tensor,
    segments: Segments,
    sight: Sight,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attention of every segment to its prefix and itself.

    Args:
        query_AT: (1, A, T, D).
        key_KT: (1, K, T, D), A a multiple of K.
        value_KT: (1, K, T, D).
        segments: token counts (prefix, tail, …) of each group; see `sequences.Sequences`.
        sight: which of these tokens a token sees.
        scaling: factor of the scores; None for 1/√D.
        dropout: share of attention weights to drop.
        softcap: c of c·tanh(score/c).
        more: the model's other arguments to its attention; tensors (sinks, biases) would change the result.

    Returns:
        (1, T, A, D), and None for the weights.

    Raises:
        TypeError: the model passes a tensor that this attention does not know.
    """
    unknown = _unknown(more)
    if unknown:
        raise TypeError(f"its attention gets the argument '{unknown[0]}'")
    sight = sight.within(max(group[0] + max(group[1:], default=0) for group in segments))
    if softcap is None and sight.chunk is None and flash_fits(query_AT):
        return flash_attention(
            query_AT, key_KT, value_KT, segments, scaling=scaling, dropout=dropout, window=sight.window
        ), None
    return _segment_by_segment(
        query_AT, key_KT, value_KT, segments, sight, scaling=scaling, dropout=dropout, softcap=softcap
    ), None


def _unknown(more: Mapping[str, Any]) -> list[str]:
    """Tensors among a model's attention arguments that might change a packed row."""
    return [name for name, value in more.items() if isinstance(value, Tensor) and name not in _KNOWN]


def _segment_by_segment(
    query_AT: Tensor,
    key_KT: Tensor,
    value_KT: Tensor,
    segments: Segments,
    sight: Sight = Sight(),  # noqa: B008 (it is frozen)
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
) -> Tensor:
    counts = [count for group in segments for count in group]
    # One split each: its backward is one concatenation, where slices would each fill a tensor of zeros.
    queries, keys, values = (tensor.split(counts, dim=2) for tensor in (query_AT, key_KT, value_KT))
    longest = max(group[0] + max(group[1:], default=0) for group in segments)
    attend = functools.partial(
        _attend, mask=_Mask(longest, sight, query_AT), scaling=scaling, dropout=dropout, softcap=softcap
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
    """Additive causal masks of one row's segments: slices of one square, built once and reused by the next layer."""

    def __init__(self, longest: int, sight: Sight, like: Tensor) -> None:
        self._longest, self._sight, self._like = -(-longest // 128) * 128, sight, like
        self.sees_all = sight == Sight()

    def square(self) -> Tensor:
        return _square(self._longest, self._sight, self._like.dtype, self._like.device)


@functools.lru_cache(maxsize=4)
def _square(size: int, sight: Sight, dtype: torch.dtype, device: torch.device) -> Tensor:
    seen = torch.ones(size, size, dtype=torch.bool, device=device).tril_()
    if sight.window is not None:
        seen = seen.triu_(1 - sight.window)
    if sight.chunk is not None:
        chunks = torch.arange(size, device=device) // sight.chunk
        seen &= chunks[:, None] == chunks
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
    causal = fresh == length and mask.sees_all
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
    # Named as in transformers, whose models give the mask by position or by name.
    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, **kwargs: Any
    ) -> Any:
        segments = kwargs.pop("segments", None)
        if segments is not None:
            return packed_attention(query, key, value, segments, _sight(module), **kwargs)
        watch = current_watch()
        if watch is not None:
            causal = kwargs.get("is_causal")
            causal = getattr(module, "is_causal", True) if causal is None else causal
            watch.note(module, attention_mask, is_causal=own == "sdpa" and bool(causal))
            if any(not isinstance(kwargs[name], nn.Parameter) for name in _unknown(kwargs)):
                watch.changed = type(module).__name__  # for example keys chosen by their content
        if own == "sdpa":
            return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        eager = sys.modules[type(module).__module__].eager_attention_forward
        return eager(module, query, key, value, attention_mask, **kwargs)

    return attention


def _masks(own: str) -> Any:
    make = ALL_MASK_ATTENTION_FUNCTIONS[own]

    def masks(*args: Any, **kwargs: Any) -> Any:
        if current_watch() is None:
            return make(*args, **kwargs)
        return tagged(make(*args, **{**kwargs, "allow_is_causal_skip": False}), kwargs.get("mask_function"))

    return masks


for _own in _OWN:
    AttentionInterface.register(_PREFIX + _own, _interface(_own))
    AttentionMaskInterface.register(_PREFIX + _own, _masks(_own))
