"""Rewards of whole responses under a reward model, in place of log-probs: in packed or padded rows.

A reward model is a causal language model with a head of one output, read at the last token of a response that is not
the padding token: what transformers' sequence classifiers do with the same text.

Axis suffixes: P preferences, S responses, B rows of a batch, T length, H hidden size.
"""

import contextlib
import logging
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from popmargin.engine.attention import forbid_packing
from popmargin.engine.limits import Limit, context_limit
from popmargin.engine.logps import autocast, model_inputs
from popmargin.engine.scores import PairScores
from popmargin.engine.sequences import Layout, Sequences, longest_sequence, one_by_one
from popmargin.engine.trial import (
    evaluating,
    packing_refused,
    refused,
    row_thresholds_lowered,
    trial_sequences,
    unwrapped,
    without_adapter,
)
from popmargin.errors import RunError

HEAD = "score"
"""The name of the head in transformers' decoder classifiers."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RewardPlan:
    """How a model's rewards are computed.

    Attributes:
        layout: packed rows, padded ones if the model cannot take those, or each response alone if necessary.
        head: gives a reward from a hidden state; under an adapter, the module with its trained copy.
        limit: the longest sequence whose reward does not depend on what else is in a batch; None for any.
    """

    layout: Layout
    head: nn.Module
    limit: Limit | None = None


def reward_plan(model: Any) -> RewardPlan:
    """The fastest way that gives this model's own rewards. It is found by a trial on a few tokens, so keep the result.

    Raises:
        RunError: the model has no head that is read at the last token.
    """
    return _find_plan(unwrapped(model))


@torch.no_grad()
def _find_plan(model: Any) -> RewardPlan:
    base = without_adapter(model)
    head = None if base is None else dict(base.named_children()).get(HEAD)
    if base is None or head is None:
        raise RunError(
            f"{type(model).__name__} has no head '{HEAD}': start from a decoder with a sequence classifier in "
            "transformers, e.g. Llama, Qwen, Mistral or Gemma."
        )
    alone = RewardPlan("alone", head, context_limit(base))
    dtype = next(model.parameters()).dtype
    precision = "bf16" if dtype == torch.bfloat16 else "fp32"
    allowed = 0.1 if dtype in (torch.bfloat16, torch.float16) else 2e-4  # of the largest reward
    pad_id = int(base.config.get_text_config().pad_token_id)

    with evaluating(model), row_thresholds_lowered(model):

        def own_rewards() -> Tensor:
            rows = list(one_by_one(trial_sequences(model, "alone", whole_to=pad_id)))
            with autocast(rows[0]["input_ids"].device, precision):
                return torch.cat([model(**model_inputs(row)).logits[:, 0] for row in rows]).double()

        own = own_rewards()
        scale = own.abs().max().clamp(min=1)  # rewards have no unit in which to measure rounding

        def without(plan: RewardPlan) -> str | None:
            sequences = trial_sequences(model, plan.layout, whole_to=pad_id)
            return refused(
                lambda: response_rewards(model, sequences, precision=precision, plan=plan).double() / scale,
                own / scale,
                allowed,
            )

        reason = without(alone)
        if reason is not None:
            raise RunError(f"{type(base).__name__} does not apply its head to the last token of a response ({reason}).")
        padded, packed = replace(alone, layout="padded"), replace(alone, layout="packed")
        reason, masks_change = packing_refused(base, lambda: own_rewards() / scale, own / scale, allowed)
        reason = reason or without(packed)
        if reason is None:
            return packed
        forbid_packing(base)
        _LOG.warning("%s runs without packed rows that share prompts (%s).", type(base).__name__, reason)
        reason = "its masks depend on all tokens in a batch" if masks_change else without(padded)
    if reason is None:
        return padded
    _LOG.warning("%s runs without batches, one response at a time (%s).", type(base).__name__, reason)
    return alone


def response_rewards(
    model: nn.Module, sequences: Sequences, *, precision: str = "fp32", plan: RewardPlan | None = None
) -> Float[Tensor, "S"]:
    """Rewards of all responses (S,), reward units; the head computes in its own dtype, even under autocast.

    Numbers do not depend on the layout or on what else is in the batch, up to floating-point rounding.

    Args:
        model: a reward model, wrapped for distributed training or not.
        sequences: whole responses in either layout; see `sequences.Sequences`.
        precision: `fp32` (the model's own dtype) or `bf16` (autocast).
        plan: of the model before it was wrapped; None finds one.

    Raises:
        RunError: a sequence is longer than the plan's limit.
    """
    plan = plan or reward_plan(model)
    if plan.limit is not None:
        plan.limit.check(longest_sequence(sequences))
    if plan.layout == "alone":
        return torch.cat([_rewards(model, one, precision, plan) for one in one_by_one(sequences)])
    return _rewards(model, sequences, precision, plan)


def _rewards(model: nn.Module, sequences: Sequences, precision: str, plan: RewardPlan) -> Float[Tensor, "S"]:
    """Rewards from one forward pass."""
    positions_S: Tensor = sequences["last_positions"]
    with autocast(positions_S.device, precision), _head_reads(plan.head, positions_S) as rewards:
        output: Any = model(**model_inputs(sequences))
    # The sum ties the result to the model's output: sharded training needs a gradient through it.
    return rewards[0] + 0.0 * output.logits.sum()


def pair_rewards(rewards_S: Float[Tensor, "S"]) -> PairScores:
    """Rewards of the responses of P = S/2 preferences, chosen ones first, as their scores."""
    half = len(rewards_S) // 2
    return PairScores(rewards_S[:half], rewards_S[half:])


@contextlib.contextmanager
def _head_reads(head: nn.Module, positions_S: Tensor) -> Generator[list[Tensor]]:
    """Make the head see only the last tokens, inside the module, where a sharded weight is gathered."""
    results: list[Tensor] = []
    own = head.forward

    def forward(hidden_BTH: Tensor) -> Tensor:
        hidden_SH = hidden_BTH.flatten(0, -2).index_select(0, positions_S)
        with torch.autocast(hidden_SH.device.type, enabled=False):
            results.append(own(hidden_SH.to(next(head.parameters()).dtype)).squeeze(-1))
        return hidden_BTH[..., :1]  # of the shape that the model expects next

    head.forward = forward
    try:
        yield results
    finally:
        del head.forward  # restores the class's own
