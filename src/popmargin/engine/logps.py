"""Log-probs of completion tokens under a causal language model.

Axis suffixes: S responses, T padded length, N completion tokens of all responses one after the other, V vocabulary,
H hidden size.
"""

import contextlib
from collections.abc import Generator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from popmargin.engine.batch import Sequences

_CHUNK = 256  # rows of logits handled at once: keeps the fp32 intermediate small


class SelectedLogSoftmax(torch.autograd.Function):
    """log_softmax(logits)[label], in fp32 or better and in chunks, keeping only the logits for the backward pass."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, labels_N: Tensor) -> Tensor:
        pieces: list[Tensor] = []
        for logits, labels in zip(logits_NV.split(_CHUNK), labels_N.split(_CHUNK), strict=True):
            wide = _widen(logits)
            pieces.append(wide.gather(-1, labels[:, None]).squeeze(-1) - wide.logsumexp(-1))
        ctx.save_for_backward(logits_NV, labels_N)
        return torch.cat(pieces)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        logits_NV, labels_N = ctx.saved_tensors
        result_NV = torch.empty_like(logits_NV)
        start = 0
        for logits, labels, grad in zip(
            logits_NV.split(_CHUNK), labels_N.split(_CHUNK), grads[0].split(_CHUNK), strict=True
        ):
            piece = _widen(logits).softmax(-1).mul_(-grad[:, None])
            piece.scatter_add_(-1, labels[:, None], grad[:, None])
            result_NV[start : start + len(piece)] = piece
            start += len(piece)
        return result_NV, None


def _widen(logits: Tensor) -> Tensor:
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()


@contextlib.contextmanager
def _head_sees_only(head: nn.Module, positions_N: Tensor) -> Generator[None]:
    """Let the LM head see only some positions: whatever the model does around its head stays as it is."""

    def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].flatten(0, -2).index_select(0, positions_N), *inputs[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """bf16 matmuls when the precision is bf16, else nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def token_logps(
    model: nn.Module, sequences: Sequences, *, precision: str = "fp32", head: nn.Module | None = None
) -> Float[Tensor, "N"]:
    """Log-probs of all completion tokens, nats; the one forward pass of policy, reference and target.

    Only completion positions go through the LM head. Numbers do not depend on padding or on what else is in the batch,
    up to floating-point rounding.

    Args:
        model: a causal language model, wrapped for distributed training or not.
        sequences: padded responses; see `batch.Sequences`.
        precision: `fp32` (the model's own dtype) or `bf16` (autocast).
        head: the LM head, where the model is wrapped and does not tell.

    Returns:
        log π(y_t | x, y_<t) of every completion token (N,), in the order of `labels`.
    """
    positions_N, labels_N = sequences["label_positions"], sequences["labels"]
    head = head if head is not None else find_head(model)
    seen = contextlib.nullcontext() if head is None else _head_sees_only(head, positions_N)
    with seen, autocast(positions_N.device, precision):
        output = model(input_ids=sequences["input_ids"], attention_mask=sequences["attention_mask"], use_cache=False)
    logits_NV = output.logits
    if head is None:
        logits_NV = logits_NV.flatten(0, 1).index_select(0, positions_N)
    return SelectedLogSoftmax.apply(logits_NV, labels_N)  # pyright: ignore[reportReturnType]


def find_head(model: Any) -> nn.Module | None:
    """The module that maps hidden states to logits; None where the model does not tell."""
    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    return inner.get_output_embeddings()


def response_sums(
    values_N: Float[Tensor, "N"], lengths_S: Int[Tensor, "S"], weights_N: Float[Tensor, "N"] | None = None
) -> Float[Tensor, "S"]:
    """Sum of (weighted) token values per response (S,)."""
    values_N = values_N if weights_N is None else values_N * weights_N
    response_N = torch.repeat_interleave(torch.arange(len(lengths_S), device=values_N.device), lengths_S)
    return torch.zeros(len(lengths_S), dtype=values_N.dtype, device=values_N.device).index_add(0, response_N, values_N)
