"""Log-probs of completion tokens under a causal language model: the one forward pass of policy, reference and target.

Axis suffixes: S responses, T length, N completion tokens of all responses one after the other, V vocabulary,
H hidden size.
"""

import contextlib
import logging
import weakref
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from popmargin.engine.attention import allow_packing
from popmargin.engine.head import HeadSettings, TokenScores, fused_token_scores
from popmargin.engine.sequences import Layout, Sequences, make_sequences, sequences_to

_CHUNK = 256  # rows of logits handled at once where a head cannot be fused: keeps the fp32 intermediate small
_TOLERANCE = {torch.float64: 2e-4, torch.float32: 2e-4}  # nats, of a trial
_ROUGH_TOLERANCE = 1.0  # of other dtypes: SmolLM2 in bf16 rounds by 0.24 nats; a wrong context changes it by 7
_LOG = logging.getLogger(__name__)


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


@runtime_checkable
class LowerLayers(Protocol):
    """Layers whose outputs are known before the forward pass."""

    def skipped(self, model: nn.Module, sequences: Sequences) -> contextlib.AbstractContextManager[None]:
        """A context in which the model's forward pass of these sequences starts above them."""
        ...


@dataclass(frozen=True)
class ForwardPlan:
    """How a model's completion log-probs are computed.

    Attributes:
        layout: packed rows, or padded ones where the model cannot take them.
        head: the LM head, which sees completion positions only; None where the model does not tell.
        fused: what follows the head, where it can be fused with the log-softmax; None where it cannot.
        lower: frozen layers that the forward pass need not run; see `frozen.FrozenOutputs`.
    """

    layout: Layout
    head: nn.Module | None
    fused: HeadSettings | None
    lower: LowerLayers | None = None


_PLANS: "weakref.WeakKeyDictionary[nn.Module, ForwardPlan]" = weakref.WeakKeyDictionary()


def forward_plan(model: Any) -> ForwardPlan:
    """The fastest way that gives this model's own log-probs: found by a trial on a few tokens, once for each model.

    Why a model cannot take the fast way is said in the log.
    """
    inner = unwrapped(model)
    if inner not in _PLANS:
        _PLANS[inner] = _find_plan(inner)
    return _PLANS[inner]


def unwrapped(model: Any) -> Any:
    """The model inside the wrapper of data-parallel training."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def adopt_plan(model: Any, plan: ForwardPlan, what: str) -> bool:
    """Use another plan for a model from now on, if a trial gives the same log-probs; else the log says why not.

    Args:
        model: not wrapped for distributed training.
        plan: the other plan.
        what: it brings, for the log.
    """
    own = forward_plan(model)
    with evaluating(model):
        _PLANS[model] = _take(model, plan, own, _trial(model, own), what)
    return _PLANS[model] is plan


def _find_plan(model: Any) -> ForwardPlan:
    head = model.get_output_embeddings()
    plain = ForwardPlan("padded", head, None)
    base = without_adapter(model)
    if base is None:
        return plain
    settings = _head_settings(base.config.get_text_config()) if type(head) is nn.Linear else None
    with evaluating(model):
        expected = _trial(model, plain)
        plan = plain
        if settings is not None:
            plan = _take(model, replace(plain, fused=settings), plain, expected, "a fused LM head")
        reason = allow_packing(base)
        if reason is None:
            return _take(model, replace(plan, layout="packed"), plan, expected, "packed rows that share prompts")
    _LOG.warning("%s runs without packed rows that share prompts: %s.", type(base).__name__, reason)
    return plan


def without_adapter(model: Any) -> PreTrainedModel | None:
    """The transformers model inside an adapter; None where there is none."""
    base = model if isinstance(model, PreTrainedModel) else getattr(model, "base_model", model)
    base = base if isinstance(base, PreTrainedModel) else getattr(base, "model", base)
    return base if isinstance(base, PreTrainedModel) else None


def _head_settings(config: Any) -> HeadSettings:
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    return HeadSettings(softcap=getattr(config, "final_logit_softcapping", None), scale=scale)


def _take(model: Any, plan: ForwardPlan, otherwise: ForwardPlan, expected: Tensor, what: str) -> ForwardPlan:
    allowed = _TOLERANCE.get(next(model.parameters()).dtype, _ROUGH_TOLERANCE)
    reason = refused(lambda: _trial(model, plan), expected, allowed)
    if reason is None:
        return plan
    _LOG.warning("%s runs without %s (%s).", type(model).__name__, what, reason)
    return otherwise


def refused(trial: Callable[[], Tensor], expected: Tensor, allowed: float) -> str | None:
    """Why a faster way of scoring must not be taken: it fails, or changes scores by more; None where it may."""
    try:
        difference = float((trial() - expected).abs().max())
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None if difference <= allowed else f"scores would change by {difference:.2g}"


@torch.no_grad()
def _trial(model: Any, plan: ForwardPlan) -> Tensor:
    """Log-probs of a few responses of unequal lengths, two of them to one prompt."""
    return token_scores(model, trial_sequences(model, plan.layout), plan=plan).logps.double()


def trial_sequences(model: Any, layout: Layout, *, whole_to: int | None = None) -> Sequences:
    """A few responses of unequal lengths, two of them to one prompt, on the model's device; `whole_to` a padding id."""
    vocabulary = int(model.config.get_text_config().vocab_size)
    random = np.random.default_rng(0)
    short, long = (random.integers(vocabulary, size=size) for size in (3, 9))
    completions = [random.integers(vocabulary, size=size) for size in (5, 2, 7)]
    sequences = make_sequences([long, short, long], completions, whole_to or 0, layout, whole=whole_to is not None)
    return sequences_to(sequences, next(model.parameters()).device)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """In evaluation mode, each module back in its own one afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """bf16 matmuls when the precision is bf16, else nothing."""
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
) -> TokenScores:
    """Log-probs of all completion tokens, and what else a forward pass can tell about them.

    Only completion positions go through the LM head. Numbers do not depend on the layout or on what else is in the
    batch, up to floating-point rounding.

    Args:
        model: a causal language model, wrapped for distributed training or not.
        sequences: responses in either layout; see `sequences.Sequences`.
        precision: `fp32` (the model's own dtype) or `bf16` (autocast).
        plan: of the model before it was wrapped; found when not given.
        statistics: also entropy and top-1 of every token.

    Returns:
        log π(y_t | x, y_<t) of every completion token (N,), in the order of `labels`.
    """
    plan = plan or forward_plan(model)
    positions_N, labels_N = sequences["label_positions"], sequences["labels"]
    inputs = model_inputs(sequences)
    with contextlib.ExitStack() as stack:
        stack.enter_context(autocast(positions_N.device, precision))
        if plan.lower is not None:
            stack.enter_context(plan.lower.skipped(model, sequences))
        if plan.head is not None and plan.fused is not None:
            with _fused(plan.head, plan.fused, positions_N, labels_N, statistics) as results:
                output = model(**inputs)
            # The sum ties the result to the model's output, which sharded training needs to see a gradient of.
            return replace(results[0], logps=results[0].logps + 0.0 * output.logits.sum())
        with contextlib.nullcontext() if plan.head is None else _head_sees_only(plan.head, positions_N):
            output = model(**inputs)
    logits_NV = output.logits
    if plan.head is None:
        logits_NV = logits_NV.flatten(0, 1).index_select(0, positions_N)
    logps_N: Any = SelectedLogSoftmax.apply(logits_NV, labels_N)
    return _with_statistics(logps_N, logits_NV, labels_N) if statistics else TokenScores(logps_N)


def model_inputs(sequences: Sequences) -> dict[str, Any]:
    """What a model's forward pass is called with, for sequences in either layout."""
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
        log_softmax = _widen(logits).log_softmax(-1)
        entropies.append(-(log_softmax.exp() * log_softmax).sum(-1))
    return TokenScores(logps_N, torch.cat(entropies), logits_NV.argmax(-1) == labels_N)


@contextlib.contextmanager
def _fused(
    head: nn.Module, settings: HeadSettings, positions_N: Tensor, labels_N: Tensor, statistics: bool
) -> Generator[list[TokenScores]]:
    """Let the head give log-probs of the labels: inside the module, where a sharded weight is whole."""
    results: list[TokenScores] = []

    def forward(hidden: Tensor) -> Tensor:
        hidden_NH = hidden.flatten(0, -2).index_select(0, positions_N)
        weight_VH: Any = head.weight
        bias_V: Any = head.bias
        scores = fused_token_scores(
            hidden_NH, weight_VH, labels_N, bias_V=bias_V, settings=settings, statistics=statistics
        )
        results.append(scores)
        return scores.logps[:, None]

    head.forward = forward
    try:
        yield results
    finally:
        del head.forward  # the class's own is back


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


def response_sums(
    values_N: Float[Tensor, "N"], lengths_S: Int[Tensor, "S"], weights_N: Float[Tensor, "N"] | None = None
) -> Float[Tensor, "S"]:
    """Sum of (weighted) token values per response (S,)."""
    values_N = values_N if weights_N is None else values_N * weights_N
    responses_S = torch.arange(len(lengths_S), device=values_N.device)
    response_N = torch.repeat_interleave(responses_S, lengths_S, output_size=len(values_N))  # the size saves a sync
    return torch.zeros(len(lengths_S), dtype=values_N.dtype, device=values_N.device).index_add(0, response_N, values_N)
