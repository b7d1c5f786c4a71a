"""Log-probs of completion tokens under a causal language model: the one forward pass of policy, reference and target.

Axis suffixes: S responses, T length, N completion tokens of all responses one after the other, V vocabulary,
H hidden size.
"""

import contextlib
import logging
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from popmargin.engine.attention import forbid_packing
from popmargin.engine.contrast import Contrast, widened
from popmargin.engine.head import HeadSettings, TokenScores, fused_token_scores
from popmargin.engine.limits import Limit, context_limit
from popmargin.engine.sequences import Layout, Sequences, longest_sequence, one_by_one
from popmargin.engine.trial import (
    ERRORS,
    LAST,
    evaluating,
    head_refused,
    packing_refused,
    refused,
    row_thresholds_lowered,
    trial_sequences,
    unwrapped,
    without_adapter,
)
from popmargin.errors import RunError

_CHUNK = 256  # rows of logits handled at once where a head cannot be fused: keeps the fp32 intermediate small
_TOLERANCE = {torch.float64: 2e-4, torch.float32: 2e-4}  # nats, of a trial
_ROUGH_TOLERANCE = 1.0  # of other dtypes: SmolLM2 in bf16 rounds by 0.24 nats; a wrong context changes it by 7
_LOST = {"padded": "packed rows that share prompts", "alone": "batches, one response at a time"}
_LOG = logging.getLogger(__name__)


class SelectedLogSoftmax(torch.autograd.Function):
    """log_softmax(logits)[label], in fp32 or better and in chunks, keeping only the logits for the backward pass."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, labels_N: Tensor) -> Tensor:
        pieces: list[Tensor] = []
        for logits, labels in zip(logits_NV.split(_CHUNK), labels_N.split(_CHUNK), strict=True):
            wide = widened(logits)
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
            piece = widened(logits).softmax(-1).mul_(-grad[:, None])
            piece.scatter_add_(-1, labels[:, None], grad[:, None])
            result_NV[start : start + len(piece)] = piece
            start += len(piece)
        return result_NV, None


@runtime_checkable
class LowerLayers(Protocol):
    """Layers whose outputs are known before the forward pass."""

    def skipped(self, model: nn.Module, sequences: Sequences) -> contextlib.AbstractContextManager[None]:
        """A context in which the model's forward pass of these sequences starts above them."""
        ...


@runtime_checkable
class OtherLogits(Protocol):
    """Another model, which tells its logits of the same tokens."""

    def contrast(self, sequences: Sequences, precision: str) -> Contrast:
        """Its logits of the completion tokens, and how far a model's own are moved away from them."""
        ...


@dataclass(frozen=True)
class ForwardPlan:
    """How a model's completion log-probs are computed.

    Attributes:
        layout: packed rows, padded ones if the model cannot take those, or each response alone if necessary.
        head: the LM head, which sees completion positions only; None if it cannot be found.
        fused: what follows the head, if it can be fused with the log-softmax; else None.
        lower: frozen layers that the forward pass can skip; see `frozen.FrozenOutputs`.
        limit: the longest sequence whose numbers do not depend on what else is in a batch; None for any.
    """

    layout: Layout
    head: nn.Module | None
    fused: HeadSettings | None
    lower: LowerLayers | None = None
    limit: Limit | None = None


def forward_plan(model: Any) -> ForwardPlan:
    """The fastest way that gives this model's own log-probs, found by a trial on a few tokens: keep the result.

    Its own log-probs are those of a response alone, in a forward pass of one row. Windows and chunks, which show only
    in rows longer than the trial's, are read from the rules of the model's masks (`sight.py`). The log says why a model
    cannot use the fast way.

    Raises:
        RunError: the model cannot score a response, gives numbers that are not finite, or is not causal.
    """
    return _find_plan(unwrapped(model))


def better_plan(model: Any, own: ForwardPlan, plan: ForwardPlan, what: str) -> ForwardPlan:
    """Another plan for a model, if a trial gives the same log-probs; otherwise its own, and the log says why.

    Args:
        model: not wrapped for distributed training.
        own: its plan.
        plan: the other plan.
        what: what it offers, for the log.
    """
    with evaluating(model):
        return _take(model, plan, own, _trial(model, own), what)


def _find_plan(model: Any) -> ForwardPlan:
    head = model.get_output_embeddings()
    base = without_adapter(model)
    if base is None:
        return ForwardPlan("padded", head, None)
    alone = ForwardPlan("alone", head, None, limit=context_limit(base))
    settings = _head_settings(base.config.get_text_config()) if type(head) is nn.Linear else None
    with evaluating(model), row_thresholds_lowered(model):
        try:
            own = _trial(model, alone)
        except ERRORS as error:
            adapter = (
                "" if base is model else " with its adapter"
            )  # peft may adapt something other than a plain linear layer
            raise RunError(f"{type(base).__name__}{adapter} cannot score a response: {error}") from error
        if not own.isfinite().all():
            raise RunError(f"{type(base).__name__} gives non-finite log-probs: are its weights intact?")
        plan = _row_plan(model, alone, settings, own)
        allowed, earlier = _allowed(model), own[-LAST:-1]

        def other_end() -> Tensor:
            return _trial(model, alone, other_end=True)[:-1]

        packed = replace(plan, layout="packed")
        reason, masks_change = packing_refused(base, other_end, earlier, allowed)
        reason = reason or refused(lambda: _trial(model, packed), own, allowed)
        if reason is None:
            return packed
        plan = replace(plan, layout="alone") if masks_change else plan
        forbid_packing(base)
        foresight = refused(other_end, earlier, allowed)
    if foresight is not None:
        raise RunError(
            f"{type(base).__name__} is not causal as configured: later tokens change the predictions for earlier "
            f"ones ({foresight}). Use a decoder, or make it one (is_decoder) in its config."
        )
    lost = _LOST["alone" if masks_change else "padded"]
    _LOG.warning("%s runs without %s (%s).", type(base).__name__, lost, reason)
    return plan


def _row_plan(model: Any, alone: ForwardPlan, settings: HeadSettings | None, own: Tensor) -> ForwardPlan:
    """The fastest way of scoring with one row per response."""
    if settings is not None and alone.head is not None:
        reason = head_refused(model, alone.head, settings)
        if reason is not None and head_refused(model, alone.head, HeadSettings()) is None:
            settings = HeadSettings()  # MiniCPM3 scales before its head
        elif reason is not None:
            _LOG.warning("%s runs without a fused LM head (%s).", type(model).__name__, reason)
            settings = None
    padded = replace(alone, layout="padded", fused=settings)
    if refused(lambda: _trial(model, padded), own, _allowed(model)) is None:
        return padded
    plan = alone
    if settings is not None:
        plan = _take(model, replace(alone, fused=settings), alone, own, "a fused LM head")
    return _take(model, replace(plan, layout="padded"), plan, own, _LOST["alone"])


def _head_settings(config: Any) -> HeadSettings:
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    caps = [getattr(config, name, None) for name in ("final_logit_softcapping", "logits_soft_cap")]
    return HeadSettings(softcap=next((float(cap) for cap in caps if cap), None), scale=scale)


def _take(model: Any, plan: ForwardPlan, otherwise: ForwardPlan, expected: Tensor, what: str) -> ForwardPlan:
    reason = refused(lambda: _trial(model, plan), expected, _allowed(model))
    if reason is None:
        return plan
    _LOG.warning("%s runs without %s (%s).", type(model).__name__, what, reason)
    return otherwise


def _allowed(model: Any) -> float:
    return _TOLERANCE.get(next(model.parameters()).dtype, _ROUGH_TOLERANCE)


@torch.no_grad()
def _trial(model: Any, plan: ForwardPlan, *, other_end: bool = False) -> Tensor:
    """Log-probs of a few responses of different lengths, two of them to one prompt."""
    return token_scores(model, trial_sequences(model, plan.layout, other_end=other_end), plan=plan).logps.double()


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """bf16 matmuls if the precision is bf16; otherwise nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def token_logps(
    model: nn.Module, sequences: Sequences, *, precision: str = "fp32", plan: ForwardPlan | None = None
) -> Float[Tensor, "N"]:
    """Log-probs of all completion tokens (N,), nats; see `token_scores`."""
    return token_scores(model, sequences, precision=precision, plan=plan).logps


def token_scores(
    model: nn.Module,
    sequences: Sequences,
    *,
    precision: str = "fp32",
    plan: ForwardPlan | None = None,
    statistics: bool = False,
    other: OtherLogits | None = None,
) -> TokenScores:
    """Log-probs of all completion tokens, and other statistics of the same forward pass.

    Only completion positions go through the LM head. Numbers do not depend on the layout or on what else is in the
    batch, up to floating-point rounding.

    Args:
        model: a causal language model, wrapped for distributed training or not.
        sequences: responses in either layout; see `sequences.Sequences`.
        precision: `fp32` (the model's own dtype) or `bf16` (autocast).
        plan: of the model before it was wrapped; None finds one.
        statistics: also entropy and top-1 of every token.
        other: a model from whose logits the model's own are moved away, for de-coupled log-probs.

    Returns:
        log π(y_t | x, y_<t) of every completion token (N,), in the order of `labels`.

    Raises:
        RunError: a sequence is longer than the plan's limit.
    """
    plan = plan or forward_plan(model)
    if plan.limit is not None:
        plan.limit.check(longest_sequence(sequences))
    if plan.layout == "alone":
        ones = [_scores(model, one, precision, plan, statistics, other) for one in one_by_one(sequences)]
        names = (field.name for field in fields(TokenScores))
        return TokenScores(*(_joined([getattr(one, name) for one in ones]) for name in names))
    return _scores(model, sequences, precision, plan, statistics, other)


def _joined(parts: list[Any]) -> Any:
    return None if parts[0] is None else torch.cat(parts)


def _scores(
    model: nn.Module,
    sequences: Sequences,
    precision: str,
    plan: ForwardPlan,
    statistics: bool,
    other: OtherLogits | None,
) -> TokenScores:
    """Scores from one forward pass."""
    positions_N, labels_N = sequences["label_positions"], sequences["labels"]
    contrast = None if other is None else other.contrast(sequences, precision)
    inputs = model_inputs(sequences)
    with contextlib.ExitStack() as stack:
        stack.enter_context(autocast(positions_N.device, precision))
        if plan.lower is not None:
            stack.enter_context(plan.lower.skipped(model, sequences))
        if plan.head is not None and plan.fused is not None:
            with _fused(plan.head, plan.fused, positions_N, labels_N, statistics, contrast) as results:
                output = model(**inputs)
            # The sum ties the result to the model's output: sharded training needs a gradient through it.
            return replace(results[0], logps=results[0].logps + 0.0 * output.logits.sum())
        logits_NV = completion_logits(model, inputs, plan.head, positions_N)
    logps_N: Any = SelectedLogSoftmax.apply(logits_NV, labels_N)
    scores = _with_statistics(logps_N, logits_NV, labels_N) if statistics else TokenScores(logps_N)
    if contrast is None:
        return scores
    wide = widened(logits_NV.detach())
    decoupled_N = contrast.label_logps(lambda rows: wide[rows].clone(), labels_N, wide.shape[-1])
    return replace(scores, decoupled=decoupled_N)


def completion_logits(
    model: nn.Module, inputs: Mapping[str, Any], head: nn.Module | None, positions_N: Int[Tensor, "N"]
) -> Float[Tensor, "N V"]:
    """All logits of completion tokens, of a model whose head is not fused."""
    with contextlib.nullcontext() if head is None else _head_sees_only(head, positions_N):
        output = model(**inputs)
    return output.logits if head is not None else output.logits.flatten(0, 1).index_select(0, positions_N)


def model_inputs(sequences: Sequences) -> dict[str, Any]:
    """Arguments of a model's forward pass, for sequences in either layout."""
    inputs: dict[str, Any] = {"input_ids": sequences["input_ids"], "use_cache": False}
    if "segments" not in sequences:
        return inputs | {"attention_mask": sequences["attention_mask"]}
    # Any four-dimensional mask keeps the model from building one over the whole row; the attention ignores it.
    mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=sequences["input_ids"].device)
    packed = {"position_ids": sequences["position_ids"], "segments": sequences["segments"]}
    return inputs | {"attention_mask": mask} | packed


@torch.no_grad()
def _with_statistics(logps_N: Tensor, logits_NV: Tensor, labels_N: Tensor) -> TokenScores:
    entropies: list[Tensor] = []
    for logits in logits_NV.split(_CHUNK):
        log_softmax = widened(logits).log_softmax(-1)
        entropies.append(-(log_softmax.exp() * log_softmax).sum(-1))
    return TokenScores(logps_N, torch.cat(entropies), logits_NV.argmax(-1) == labels_N)


@contextlib.contextmanager
def _fused(
    head: nn.Module,
    settings: HeadSettings,
    positions_N: Tensor,
    labels_N: Tensor,
    statistics: bool,
    contrast: Contrast | None,
) -> Generator[list[TokenScores]]:
    """Make the head return log-probs of the labels, inside the module, where a sharded weight is gathered."""
    results: list[TokenScores] = []

    def scores(hidden_NH: Tensor) -> Tensor:
        weight_VH: Any = head.weight
        bias_V: Any = head.bias
        results.append(
            fused_token_scores(
                hidden_NH,
                weight_VH,
                labels_N,
                bias_V=bias_V,
                settings=settings,
                statistics=statistics,
                contrast=contrast,
            )
        )
        return results[0].logps[:, None]

    with head_replaced(head, positions_N, scores):
        yield results


@contextlib.contextmanager
def head_replaced(
    head: nn.Module, positions_N: Int[Tensor, "N"], function: Callable[[Tensor], Tensor]
) -> Generator[None]:
    """Let a function of the hidden states at some positions (N, H) take the place of a head's forward pass."""

    def forward(hidden: Tensor) -> Tensor:
        return function(hidden.flatten(0, -2).index_select(0, positions_N))

    head.forward = forward
    try:
        yield
    finally:
        del head.forward  # restores the class's own


@contextlib.contextmanager
def _head_sees_only(head: nn.Module, positions_N: Tensor) -> Generator[None]:
    """Make the LM head see only some positions; everything the model does around its head stays the same."""

    def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].flatten(0, -2).index_select(0, positions_N), *inputs[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def response_sums(
    values_N: Float[Tensor, "N"], lengths_S: Int[Tensor, "S"], weights_N: Float[Tensor, "N"] | None = None
) -> Float[Tensor, "S"]:
    """Sum of (weighted) token values per response (S,)."""
    values_N = values_N if weights_N is None else values_N * weights_N
    responses_S = torch.arange(len(lengths_S), device=values_N.device)
    response_N = torch.repeat_interleave(
        responses_S, lengths_S, output_size=len(values_N)
    )  # giving the size saves a sync
    return torch.zeros(len(lengths_S), dtype=values_N.dtype, device=values_N.device).index_add(0, response_N, values_N)
