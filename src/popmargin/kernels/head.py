"""The element-wise passes of the fused head on CUDA: logits are read once forward, and once and written once backward.

Triton comes with torch's CUDA builds. Each program goes through one row of logits in blocks, in fp32.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportMissingImports=false
# pyright: reportUntypedFunctionDecorator=false, reportIndexIssue=false, reportMissingTypeStubs=false
import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096
_WARPS = 8


@triton.jit
def _bent(raw, scale, cap, CAPPED: tl.constexpr):
    """Logits from the head's output: scaled, then soft-capped."""
    logits = raw.to(tl.float32) * scale
    if CAPPED:
        logits = cap * (2 / (1 + tl.exp(-2 * logits / cap)) - 1)
    return logits


@triton.jit
def _scores_kernel(
    raw_ptr, labels_ptr, norm_ptr, chosen_ptr, entropy_ptr, top_ptr, vocabulary, stride, scale, cap,
    CAPPED: tl.constexpr, STATISTICS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    row_ptr = raw_ptr + row * stride
    best = float("-inf")
    best_place = 0
    total = 0.0  # Σ exp(logit − best)
    moment = 0.0  # Σ exp(logit − best) · logit
    for start in range(0, vocabulary, BLOCK):
        places = start + tl.arange(0, BLOCK)
        inside = places < vocabulary
        raw = tl.load(row_ptr + places, mask=inside, other=0.0)
        logits = tl.where(inside, _bent(raw, scale, cap, CAPPED), float("-inf"))
        highest = tl.max(logits, 0)
        if STATISTICS:
            place = tl.min(tl.where(logits == highest, places, vocabulary), 0)
            best_place = tl.where(highest > best, place, best_place)
        higher = tl.maximum(best, highest)
        shrink = tl.exp(best - higher)
        weights = tl.exp(logits - higher)
        total = total * shrink + tl.sum(weights, 0)
        if STATISTICS:
            moment = moment * shrink + tl.sum(tl.where(inside, weights * logits, 0.0), 0)
        best = higher
    norm = best + tl.log(total)
    label = tl.load(labels_ptr + row)
    tl.store(norm_ptr + row, norm)
    tl.store(chosen_ptr + row, _bent(tl.load(row_ptr + label), scale, cap, CAPPED))
    if STATISTICS:
        tl.store(entropy_ptr + row, norm - moment / total)
        tl.store(top_ptr + row, (best_place == label).to(tl.int8))


@triton.jit
def _gradient_kernel(
    raw_ptr, labels_ptr, norm_ptr, grad_ptr, vocabulary, stride, scale, cap,
    CAPPED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    places = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = places < vocabulary
    raw_ptrs = raw_ptr + row * stride + places
    raw = tl.load(raw_ptrs, mask=inside, other=0.0)
    logits = _bent(raw, scale, cap, CAPPED)
    shares = tl.exp(logits - tl.load(norm_ptr + row))
    grad = tl.load(grad_ptr + row) * (tl.where(places == tl.load(labels_ptr + row), 1.0, 0.0) - shares)
    if CAPPED:
        bent = logits / cap
        grad = grad * (1 - bent * bent)
    tl.store(raw_ptrs, (grad * scale).to(raw.dtype), mask=inside)


def label_scores(
    raw_CV: Tensor, labels_C: Tensor, *, softcap: float | None, scale: float, statistics: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-sum-exp and label's logit of every row (C,), fp32; with `statistics` its entropy and top-1 agreement too.

    Args:
        raw_CV: the head's output (C, V), rows contiguous.
        labels_C: token ids (C,).
        softcap: c of c·tanh(logit/c); None for no cap.
        scale: factor before it.
        statistics: whether to compute the last two; they are empty otherwise.
    """
    count, vocabulary = raw_CV.shape
    norm_C, chosen_C = (torch.empty(count, dtype=torch.float32, device=raw_CV.device) for _ in range(2))
    rows = count if statistics else 0
    entropy_C = torch.empty(rows, dtype=torch.float32, device=raw_CV.device)
    top_C = torch.empty(rows, dtype=torch.bool, device=raw_CV.device)
    if count:
        _scores_kernel[(count,)](
            raw_CV, labels_C, norm_C, chosen_C, entropy_C, top_C.view(torch.int8), vocabulary, raw_CV.stride(0), scale,
            softcap or 1.0, CAPPED=softcap is not None, STATISTICS=statistics, BLOCK=_BLOCK, num_warps=_WARPS,
        )  # fmt: skip
    return norm_C, chosen_C, entropy_C, top_C


def to_logits_gradient(
    raw_CV: Tensor, labels_C: Tensor, norm_C: Tensor, grad_C: Tensor, *, softcap: float | None, scale: float
) -> None:
    """Overwrite the raw logits (C, V) with the gradient of grad · log softmax(logits)[label] with respect to them.

    Args:
        raw_CV: the head's output (C, V), rows contiguous.
        labels_C: token ids (C,).
        norm_C: log-sum-exp of every row (C,).
        grad_C: gradient with respect to each label's log-prob (C,), contiguous.
        softcap: c of c·tanh(logit/c); None for no cap.
        scale: factor before it.
    """
    count, vocabulary = raw_CV.shape
    if count:
        _gradient_kernel[(count, triton.cdiv(vocabulary, _BLOCK))](
            raw_CV, labels_C, norm_C, grad_C, vocabulary, raw_CV.stride(0), scale, softcap or 1.0,
            CAPPED=softcap is not None, BLOCK=_BLOCK, num_warps=_WARPS,
        )  # fmt: skip
