"""Tools for finding a plan: a few short responses, and checks of whether a faster way gives the same scores."""

import contextlib
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from popmargin.engine.attention import allow_packing, take_sights
from popmargin.engine.head import HeadSettings
from popmargin.engine.processes import place_of
from popmargin.engine.sequences import Layout, Sequences, make_sequences, one_by_one, sequences_to
from popmargin.engine.sight import watching
from popmargin.errors import RunError

_PROMPTS, _COMPLETIONS = (9, 3, 9), (5, 2, 7)  # tokens; the first and last response have the same prompt
LAST = _COMPLETIONS[-1]
"""Tokens of the last completion."""

_ROW_THRESHOLDS = ("floor_scale",)
"""Attributes of modules: lengths, counted along the row whatever the position ids say, at which their numbers change.

Llama 4 scales queries by their position in the row from 8,192 on: a packed row reaches that before any response does.
"""
ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError)
"""What a model may raise when called in a way it does not support."""


def trial_sequences(model: Any, layout: Layout, *, whole_to: int | None = None, other_end: bool = False) -> Sequences:
    """A few responses of different lengths, two of them to one prompt, on the model's device.

    Args:
        model: gives vocabulary and device.
        layout: of the responses.
        whole_to: a padding id, for reward models.
        other_end: only the last response, with a different last token.
    """
    vocabulary = int(model.config.get_text_config().vocab_size)
    random = np.random.default_rng(0)
    short, long = (random.integers(vocabulary, size=size) for size in (_PROMPTS[1], _PROMPTS[0]))
    prompts, completions = [long, short, long], [random.integers(vocabulary, size=size) for size in _COMPLETIONS]
    if other_end:
        prompts, completions = prompts[-1:], completions[-1:]
        completions[0][-1] = (completions[0][-1] + 1) % vocabulary
    sequences = make_sequences(prompts, completions, whole_to or 0, layout, whole=whole_to is not None)
    return sequences_to(sequences, place_of(model))


def refused(trial: Callable[[], Tensor], expected: Tensor, allowed: float) -> str | None:
    """Why a faster way of scoring must not be used: it fails, or changes scores too much; None if it may."""
    try:
        difference = float((trial() - expected).abs().max())
    except ERRORS as error:
        return f"{type(error).__name__}: {error}"
    return None if difference <= allowed else f"scores would change by {difference:.2g}"


@torch.no_grad()
def head_refused(model: Any, head: nn.Module, settings: HeadSettings) -> str | None:
    """What a model does after its head beyond these settings; None if nothing.

    The model gets logits from −60 to 60 in place of its head's, since a soft cap or a scale hardly shows in small ones.
    """
    sequences = next(one_by_one(trial_sequences(model, "alone")))
    asked: list[Tensor] = []

    def spread(_: nn.Module, __: Any, raw: Tensor) -> Tensor:
        asked.append(torch.linspace(-60, 60, raw.numel(), device=raw.device).view_as(raw).to(raw.dtype))
        return asked[-1]

    handle = head.register_forward_hook(spread)
    try:
        found = model(input_ids=sequences["input_ids"], use_cache=False).logits.double()
        difference = float((found - settings.logits(asked[-1].double())).abs().max())
    except ERRORS as error:
        return f"{type(error).__name__}: {error}"
    finally:
        handle.remove()
    rounding = 1e-4 if asked[-1].dtype in (torch.float32, torch.float64) else 0.01
    return None if difference <= 60 * rounding else f"logits of up to 60 would change by {difference:.2g}"


def packing_refused(
    base: PreTrainedModel, plain: Callable[[], Tensor], expected: Tensor, allowed: float
) -> tuple[str | None, bool]:
    """Let a model take packed rows in which tokens see what its own masks let them see.

    Args:
        base: the model, without an adapter around it.
        plain: one of its plain forward passes, whose masks are looked at.
        expected: the numbers of that pass with the model's own attention.
        allowed: maximum difference.

    Returns:
        None, or why the model cannot; and whether it builds masks from the content of its tokens (sparse attention to
        the best keys), so that even padding may change them.
    """
    reason = allow_packing(base)
    if reason is not None:
        return reason, False
    with watching() as watch:
        reason = refused(plain, expected, allowed)
    if watch.changed:
        return f"its masks depend on the token values, as in {watch.changed}", True
    if reason is not None:
        return f"with its attention replaced, {reason}", True
    return take_sights(watch.sights), False


@contextlib.contextmanager
def row_thresholds_lowered(model: nn.Module) -> Generator[None]:
    """Bring effects that appear only far along a row within a trial's reach."""
    found = [(module, name) for module in model.modules() for name in _ROW_THRESHOLDS if name in vars(module)]
    own = [(module, name, getattr(module, name)) for module, name in found]
    try:
        for module, name in found:
            setattr(module, name, 4)
        yield
    finally:
        for module, name, value in own:
            setattr(module, name, value)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Run in evaluation mode; each module's own mode is restored afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def without_adapter(model: Any) -> PreTrainedModel | None:
    """The transformers model inside an adapter; None if there is no adapter."""
    base = model if isinstance(model, PreTrainedModel) else getattr(model, "base_model", model)
    base = base if isinstance(base, PreTrainedModel) else getattr(base, "model", base)
    return base if isinstance(base, PreTrainedModel) else None


def unwrapped(model: Any) -> Any:
    """The model inside the wrapper of data-parallel training."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


@torch.no_grad()
def refuse_noise(model: Any, scores: Callable[[], Tensor]) -> None:
    """Check before training that a model scores in training mode as it does in evaluation mode.

    Args:
        model: to be trained.
        scores: its scores of a few responses.

    Raises:
        RunError: it draws random numbers in training, so a policy does not equal its reference at the first step.
    """
    place = next(model.parameters()).device
    with evaluating(model), torch.random.fork_rng([] if place.type == "cpu" else [place], device_type=place.type):
        still = scores()
        model.train()
        difference = float((scores() - still).abs().max())
    if difference > 1e-3:  # the same kernels give the same numbers in both modes
        raise RunError(
            f"{type(model).__name__} draws random numbers in training that popmargin cannot turn off: scores change "
            f"by {difference:.2g}. To train with them, set model.dropout to true."
        )
