"""The LM head on completion positions only: logits are computed in chunks and never stored.

Axis suffixes: N completion tokens, H hidden size, V vocabulary.
"""

import importlib
import importlib.util
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from popmargin.engine.contrast import Contrast, widened

_CHUNK_ELEMENTS = 24_000_000  # of logits at once: 96 MB in fp32
_CHUNK_ELEMENTS_ELSEWHERE = 256_000_000  # on accelerators: 512 MB in bf16, products large enough to fill them
_HAS_TRITON = importlib.util.find_spec("triton") is not None
_BLOCK_ELEMENTS = 1_000_000  # of logits that element-wise passes go through at once: they stay in the cache of a CPU


def chunk_elements(device: torch.device) -> int:
    """How many logits there are at once, at most."""
    return _CHUNK_ELEMENTS if device.type == "cpu" else _CHUNK_ELEMENTS_ELSEWHERE


@dataclass(frozen=True)
class TokenScores:
    """What a forward pass gives for completion tokens.

    Attributes:
        logps: log-probs (N,), nats.
        entropy: entropy of the prediction (N,), nats, detached; None when not requested.
        top1: whether the token was the most likely one (N,); None when not requested.
        decoupled: log-probs with the logits moved away from another model's (N,), nats, detached; see `Contrast`.
    """

    logps: Float[Tensor, "N"]
    entropy: Float[Tensor, "N"] | None = None
    top1: Bool[Tensor, "N"] | None = None
    decoupled: Float[Tensor, "N"] | None = None


@dataclass(frozen=True)
class HeadSettings:
    """What a model applies to the logits after its head: logits = softcap·tanh(scale·raw / softcap).

    Attributes:
        softcap: c; None for no cap.
        scale: factor of the raw logits.
    """

    softcap: float | None = None
    scale: float = 1.0

    def logits(self, raw: Tensor) -> Tensor:
        """The model's logits, from the head's output."""
        scaled = raw * self.scale
        return scaled if self.softcap is None else self.softcap * torch.tanh(scaled / self.softcap)


def head_logits(
    hidden_NH: Float[Tensor, "N H"],
    weight_VH: Float[Tensor, "V H"],
    bias_V: Float[Tensor, "V"] | None,
    settings: HeadSettings,
) -> Callable[[slice], Tensor]:
    """Logits of a slice of N tokens from their hidden states, made when they are asked for; see `Contrast.others`."""
    head = _Head(weight_VH, bias_V, settings, _dtype(hidden_NH))
    return lambda part: head.logits(head.raw_logits(hidden_NH[part]))


def _dtype(hidden_NH: Tensor) -> torch.dtype:
    """What a head computes in."""
    device = hidden_NH.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_NH.dtype


def fused_token_scores(
    hidden_NH: Float[Tensor, "N H"],
    weight_VH: Float[Tensor, "V H"],
    labels_N: Int[Tensor, "N"],
    *,
    bias_V: Float[Tensor, "V"] | None = None,
    settings: HeadSettings | None = None,
    statistics: bool = False,
    contrast: Contrast | None = None,
) -> TokenScores:
    """log softmax(head(hidden))[label], chunk by chunk, in fp32 or better; its backward recomputes the logits.

    With a frozen head the gradient with respect to `hidden` needs no second pass: a token's gradient is a multiple of a
    vector that the forward pass can compute while it has the logits.

    Args:
        hidden_NH: last hidden states at the positions that predict the labels (N, H).
        weight_VH: weight of the head (V, H), in any dtype that autocast would cast.
        labels_N: token ids (N,).
        bias_V: bias of the head (V,).
        settings: soft-capping and scale of the logits.
        statistics: also entropy and top-1.
        contrast: also de-coupled log-probs, from the same logits.

    Returns:
        Log-probs (N,), fp32 or fp64, and the rest.
    """
    settings = settings or HeadSettings()
    frozen = torch.is_grad_enabled() and not weight_VH.requires_grad and (bias_V is None or not bias_V.requires_grad)
    results: Any = _FusedHead.apply(
        hidden_NH, weight_VH, bias_V, labels_N, settings, _dtype(hidden_NH), frozen, statistics, contrast
    )
    logps_N, entropy_N, top1_N, decoupled_N = results
    decoupled_N = None if contrast is None else decoupled_N
    return TokenScores(logps_N, *((entropy_N, top1_N) if statistics else (None, None)), decoupled_N)


class _FusedHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        labels_N: Tensor,
        settings: HeadSettings,
        dtype: torch.dtype,
        frozen: bool,
        statistics: bool,
        contrast: Contrast | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        head = _Head(weight_VH, bias_V, settings, dtype)
        wants_units = frozen and ctx.needs_input_grad[0]
        scores: list[tuple[Tensor, ...]] = []
        units: list[Tensor] = []
        decoupled: list[Tensor] = []
        for part in head.chunks(len(hidden_NH)):
            raw_CV = head.raw_logits(hidden_NH[part])
            if contrast is not None:
                decoupled.append(head.decoupled(contrast, raw_CV, labels_N[part], part.start))
            scores.append(head.label_scores(raw_CV, labels_N[part], statistics=statistics, units=wants_units))
            if wants_units:
                units.append(raw_CV @ head.weight_VH)
        norms_N, chosen_N, entropy_N, top1_N = (torch.cat(pieces) for pieces in zip(*scores, strict=True))
        ctx.settings, ctx.dtype, ctx.units_NH = settings, dtype, torch.cat(units) if units else None
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, labels_N, norms_N)
        logps_N = chosen_N - norms_N
        decoupled_N = torch.cat(decoupled) if decoupled else norms_N[:0]
        ctx.mark_non_differentiable(entropy_N, top1_N, decoupled_N)
        return logps_N, entropy_N, top1_N, decoupled_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, bias_V, labels_N, norms_N = ctx.saved_tensors
        grad_N = grads[0]
        if ctx.units_NH is not None:
            return (grad_N[:, None] * ctx.units_NH).to(hidden_NH.dtype), *([None] * 8)
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        head = _Head(weight_VH, bias_V, ctx.settings, ctx.dtype)
        hidden_grad_NH = torch.empty_like(hidden_NH) if wants_hidden else None
        weight_grad_VH: Tensor | None = None
        bias_grad_V = torch.zeros_like(bias_V) if wants_bias else None
        for part in head.chunks(len(hidden_NH)):
            hidden = hidden_NH[part].to(ctx.dtype)
            grad = head.raw_logits(hidden)
            head.to_gradient(grad, labels_N[part], norms_N[part], grad_N[part])
            if hidden_grad_NH is not None:
                hidden_grad_NH[part] = (grad @ head.weight_VH).to(hidden_NH.dtype)
            if wants_weight and weight_grad_VH is None:
                weight_grad_VH = (grad.T @ hidden).to(weight_VH.dtype)
            elif weight_grad_VH is not None and grad.dtype == weight_grad_VH.dtype:
                weight_grad_VH.addmm_(grad.T, hidden)
            elif weight_grad_VH is not None:
                weight_grad_VH += grad.T @ hidden
            if bias_grad_V is not None:
                bias_grad_V += grad.sum(0)
        return hidden_grad_NH, weight_grad_VH, bias_grad_V, *([None] * 6)


class _Head:
    """A head in the dtype it computes in."""

    def __init__(self, weight_VH: Tensor, bias_V: Tensor | None, settings: HeadSettings, dtype: torch.dtype) -> None:
        self.weight_VH = weight_VH.detach().to(dtype)
        self._bias_V = None if bias_V is None else bias_V.detach().to(dtype)
        self._settings, self._dtype = settings, dtype

    def chunks(self, count: int) -> Generator[slice]:
        elements = chunk_elements(self.weight_VH.device)
        size = max(1, elements // len(self.weight_VH))
        pieces = max(1, -(-count // size))
        size = -(-count // pieces) if count else 1  # even pieces: no small remainder
        for start in range(0, max(count, 1), size):
            yield slice(start, start + size)

    def _blocks(self, count: int) -> Generator[slice]:
        on_cpu = self.weight_VH.device.type == "cpu"
        size = max(1, _BLOCK_ELEMENTS // len(self.weight_VH)) if on_cpu else max(1, count)
        for start in range(0, max(count, 1), size):
            yield slice(start, start + size)

    def raw_logits(self, hidden_CH: Tensor) -> Tensor:
        """The head's own output, in its dtype (C, V)."""
        return torch.nn.functional.linear(hidden_CH.to(self._dtype), self.weight_VH, self._bias_V)

    def logits(self, raw_CV: Tensor) -> Tensor:
        """A model's logits from raw ones, in fp32 or better (C, V); the raw ones are unchanged."""
        return self._settings.logits(widened(raw_CV))

    def decoupled(self, contrast: Contrast, raw_CV: Tensor, labels_C: Tensor, start: int) -> Tensor:
        """De-coupled log-probs of the labels (C,) at this position among all; see `Contrast.label_logps`."""
        return contrast.label_logps(lambda rows: self.logits(raw_CV[rows]), labels_C, len(self.weight_VH), start=start)

    def label_scores(
        self, raw_CV: Tensor, labels_C: Tensor, *, statistics: bool, units: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log-sum-exp, label's logit, entropy and top-1 agreement of every row (C,), the last two only when requested.

        Overwrites the raw logits: with `units`, the gradient of log softmax(logits)[label] takes their place.
        """
        kernels, settings = _kernels(raw_CV), self._settings
        if kernels is not None:
            found = kernels.label_scores(
                raw_CV, labels_C, softcap=settings.softcap, scale=settings.scale, statistics=statistics
            )
            if units:
                self.to_gradient(raw_CV, labels_C, found[0], torch.ones_like(found[0]))
            return found
        blocks: list[tuple[Tensor, ...]] = []
        for rows in self._blocks(len(labels_C)):
            labels = labels_C[rows]
            logits, slope = self._logits(raw_CV[rows])
            norm, chosen = logits.logsumexp(-1), logits.gather(-1, labels[:, None]).squeeze(-1)
            entropy, top1 = norm[:0], labels[:0].bool()
            if statistics:
                top1 = logits.argmax(-1) == labels
                entropy = norm - (logits - norm[:, None]).exp_().mul_(logits).sum(-1)
            blocks.append((norm, chosen, entropy, top1))
            if units:
                raw_CV[rows] = self._gradient(logits, slope, norm, labels, torch.ones_like(norm))
        norms_C, chosen_C, entropy_C, top1_C = (torch.cat(pieces) for pieces in zip(*blocks, strict=True))
        return norms_C, chosen_C, entropy_C, top1_C

    def to_gradient(self, raw_CV: Tensor, labels_C: Tensor, norm_C: Tensor, grad_C: Tensor) -> None:
        """Overwrite the raw logits with the gradient of grad · log softmax(logits)[label] with respect to them."""
        kernels, settings = _kernels(raw_CV), self._settings
        if kernels is not None:
            kernels.to_logits_gradient(
                raw_CV, labels_C, norm_C, grad_C.contiguous(), softcap=settings.softcap, scale=settings.scale
            )
            return
        for rows in self._blocks(len(labels_C)):
            logits, slope = self._logits(raw_CV[rows])
            raw_CV[rows] = self._gradient(logits, slope, norm_C[rows], labels_C[rows], grad_C[rows])

    def _logits(self, raw_CV: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits in fp32 or better (C, V), and their slope if they are soft-capped (C, V); overwrites the raw ones."""
        logits_CV = widened(raw_CV)
        if self._settings.scale != 1.0:
            logits_CV.mul_(self._settings.scale)
        cap = self._settings.softcap
        if cap is None:
            return logits_CV, None
        bent_CV = logits_CV.div_(cap).tanh_()
        return bent_CV * cap, 1 - bent_CV.square()

    def _gradient(
        self, logits_CV: Tensor, slope_CV: Tensor | None, norm_C: Tensor, labels_C: Tensor, grad_C: Tensor
    ) -> Tensor:
        """Gradient with respect to the raw logits (C, V); overwrites the logits."""
        result_CV = logits_CV.sub_(norm_C[:, None]).exp_().mul_(-grad_C[:, None])
        result_CV.scatter_add_(-1, labels_C[:, None], grad_C[:, None])
        if slope_CV is not None:
            result_CV.mul_(slope_CV)
        if self._settings.scale != 1.0:
            result_CV.mul_(self._settings.scale)
        return result_CV.to(self._dtype)


def _kernels(raw_CV: Tensor) -> Any:
    """Fused element-wise passes for these logits; None if there are none."""
    if raw_CV.device.type != "cuda" or raw_CV.dtype == torch.float64 or not _HAS_TRITON:
        return None
    return importlib.import_module("popmargin.kernels.head")
