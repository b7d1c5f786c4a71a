"""De-coupled log-probs against a plain computation with the full logits of both models, in fp64."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, MambaConfig, MambaForCausalLM

from popmargin.config import ModelConfig
from popmargin.data.tokenize import TokenizedPreferences
from popmargin.engine import contrast, head
from popmargin.engine.batch import preference_sequences
from popmargin.engine.contrast import Contrast
from popmargin.engine.decoupled import LiveReference, taken_by_both
from popmargin.engine.frozen import FrozenLayers, FrozenOutputs
from popmargin.engine.head import HeadSettings, fused_token_scores, head_logits
from popmargin.engine.logps import ForwardPlan, forward_plan, token_scores
from popmargin.models.policies import make_policy

EXACT: Any = {"rtol": 0.0, "atol": 1e-10}


NOTE = {0.5: [-0.0899551832, -2.8399551832, -3.5899551832], 0.0: [-0.1698460196, -2.1698460196, -3.1698460196]}
"""Of the tokens by λ; those of λ = 0 are the policy's own."""


@pytest.mark.parametrize("weight", list(NOTE))
def test_golden_values_of_the_note(weight: float) -> None:
    """The note's are right to 8 digits: for λ = ½ the mixed logits are 2.5, −0.25 and −1."""
    own, other = (torch.tensor([values] * 3, dtype=torch.float64) for values in ([2.0, 0, -1], [1.0, 0.5, -1]))
    found = Contrast(weight, lambda tokens: other[tokens])
    logps = found.label_logps(lambda tokens: own[tokens].clone(), torch.arange(3), 3)
    assert logps.tolist() == pytest.approx(NOTE[weight], abs=3e-9)
    drop = (2.75, 3.5) if weight else (2.0, 3.0)
    first = -math.log1p(sum(math.exp(-value) for value in drop))
    assert logps.tolist() == pytest.approx([first, *(first - value for value in drop)], abs=1e-14)


def mixed(own: torch.Tensor, other: torch.Tensor, weight: float) -> torch.Tensor:
    """log p̃ as the note spells it, from log-probs and with the sum over the vocabulary."""
    own, other = own.log_softmax(-1), other.log_softmax(-1)
    total = (own.exp() ** (1 + weight) * other.exp() ** -weight).sum(-1, keepdim=True).log()
    return (1 + weight) * own - weight * other - total


@settings(max_examples=60)
@given(
    count=st.integers(1, 9),
    chunk=st.integers(1, 40),
    block=st.integers(1, 40),
    after=st.builds(HeadSettings, softcap=st.sampled_from([None, 2.0]), scale=st.sampled_from([1.0, 0.25])),
    weight=st.sampled_from([0.0, 0.125, 0.5, 3.0]),
    trained=st.booleans(),
    seed=st.integers(0, 99),
)
def test_chunks_and_blocks_do_not_matter(
    count: int, chunk: int, block: int, after: HeadSettings, weight: float, trained: bool, seed: int
) -> None:
    """And the policy's own log-probs and gradient are those without it, to the last bit."""
    random = torch.Generator().manual_seed(seed)
    shapes = {"hidden": (count, 3), "weight": (7, 3), "bias": (7,)}
    own, other = (
        {name: torch.randn(*shape, generator=random, dtype=torch.float64) for name, shape in shapes.items()}
        for _ in range(2)
    )
    labels = torch.randint(0, 7, (count,), generator=random)
    own["hidden"].requires_grad_()
    own["weight"].requires_grad_(trained)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "_CHUNK_ELEMENTS", chunk)
        patch.setattr(contrast, "_BLOCK_ELEMENTS", block)
        others = Contrast(weight, head_logits(other["hidden"], other["weight"], other["bias"], after))
        runs = [
            fused_token_scores(own["hidden"], own["weight"], labels, bias_V=own["bias"], settings=after, contrast=made)
            for made in (None, others)
        ]
        slopes = [torch.autograd.grad(run.logps.square().sum(), own["hidden"])[0] for run in runs]
    ours, theirs = (after.logits(side["hidden"] @ side["weight"].T + side["bias"]).detach() for side in (own, other))
    expected = mixed(ours, theirs, weight).gather(1, labels[:, None]).squeeze(1)
    assert runs[0].decoupled is None and runs[1].decoupled is not None and not runs[1].decoupled.requires_grad
    torch.testing.assert_close(runs[1].decoupled, expected, rtol=0, atol=1e-12)
    assert torch.equal(runs[0].logps, runs[1].logps) and torch.equal(*slopes)


def test_extreme_logits_stay_finite() -> None:
    own, other = torch.tensor([[1e4, -1e4, 0.0]]), torch.tensor([[-1e4, 1e4, 0.0]])
    found = Contrast(0.5, lambda tokens: other[tokens]).label_logps(lambda t: own[t].clone(), torch.tensor([1]), 3)
    assert found.tolist() == [-40000.0]


# -- models ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def plain(policy: Any, reference: Any, tokenized: TokenizedPreferences, places: list[int], weight: float) -> Any:
    """One unpadded sequence at a time, all logits of both models."""
    found: list[torch.Tensor] = []
    for side in (tokenized.chosen, tokenized.rejected):
        for place in places:
            prompt, completion = tokenized.prompt[place], side[place]
            ids = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))
            own, other = (model(input_ids=ids[None]).logits[0].double() for model in (policy, reference))
            logps = mixed(own, other, weight)[:-1].gather(1, ids[1:, None]).squeeze(1)
            found.append(logps[len(prompt) - 1 :])
    return torch.cat(found)


def moved(model: Any) -> Any:
    """As after some training."""
    torch.manual_seed(5)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval()


def policies(make_model: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    start = make_model(dtype=torch.float64)
    return {
        "full": (moved(make_policy(start, ModelConfig())), start),
        "LoRA": (moved(make_policy(start, ModelConfig(lora_rank=2))), start),
    }


def unfused(plan: ForwardPlan) -> ForwardPlan:
    return replace(plan, fused=None)


@pytest.mark.parametrize("weights", ["full", "LoRA"])
def test_every_way_of_scoring_is_the_plain_one(
    make_model: Callable[..., Any], tokenized: TokenizedPreferences, weights: str
) -> None:
    """Packed, padded and single rows, fused heads and full logits of either model, whole and split into parts."""
    policy, reference = policies(make_model)[weights]
    own, other = forward_plan(policy), forward_plan(reference)
    assert own.layout == other.layout == "packed" and own.fused is not None and other.fused is not None
    places = [0, 5, 7]
    expected = plain(policy, reference, tokenized, places, 0.5)
    without = plain(policy, reference, tokenized, places, 0.0)
    assert (expected - without).abs().max() > 0.1
    for layout in ("packed", "padded", "alone"):
        sequences = preference_sequences(tokenized, places, pad_id=0, layout=layout)
        for mine, theirs in itertools.product((own, unfused(own)), (other, unfused(other))):
            live = LiveReference(0.5, reference, replace(theirs, layout=layout))
            scores = token_scores(policy, sequences, plan=replace(mine, layout=layout), other=live)
            assert scores.decoupled is not None and not scores.decoupled.requires_grad
            torch.testing.assert_close(scores.decoupled, expected, **EXACT)
            torch.testing.assert_close(scores.logps.detach(), without, **EXACT)


def test_the_policys_numbers_and_gradient_are_those_without_it(
    make_model: Callable[..., Any], tokenized: TokenizedPreferences
) -> None:
    policy, reference = policies(make_model)["full"]
    plan = forward_plan(policy)
    sequences = preference_sequences(tokenized, [0, 1], pad_id=0, layout=plan.layout)
    live = LiveReference(0.5, reference, forward_plan(reference))
    found: list[tuple[Any, ...]] = []
    for other in (None, live):
        logps = token_scores(policy, sequences, plan=plan, other=other).logps
        found.append((logps, *torch.autograd.grad(logps.square().sum(), list(policy.parameters()))))
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
    assert all(parameter.grad is None for parameter in reference.parameters())
    assert reference(input_ids=torch.tensor([[3, 4]])).logits.shape[:2] == (1, 2)  # its head is its own again


def test_bf16_is_near_fp64(make_model: Callable[..., Any], tokenized: TokenizedPreferences) -> None:
    """Logits of 20 nats in 8 bits; summed in fp32."""
    policy, reference = policies(make_model)["LoRA"]
    expected = plain(policy, reference, tokenized, [0, 1], 0.5)
    policy, reference = policy.float(), reference.float()
    plan = forward_plan(policy)
    sequences = preference_sequences(tokenized, [0, 1], pad_id=0, layout=plan.layout)
    live = LiveReference(0.5, reference, forward_plan(reference))
    rough = token_scores(policy, sequences, plan=plan, other=live, precision="bf16").decoupled
    assert rough is not None and rough.dtype == torch.float32
    assert 0 < (rough.double() - expected).abs().max() < 0.5


@pytest.mark.parametrize("kind", ["learned positions", "recurrent"])
def test_a_reference_of_another_kind_decides_the_layout(
    make_model: Callable[..., Any], tokenized: TokenizedPreferences, kind: str
) -> None:
    policy = moved(make_model(dtype=torch.float64, seed=3))
    size: dict[str, Any] = {"vocab_size": policy.config.vocab_size, "initializer_range": 0.2}
    torch.manual_seed(1)
    reference: nn.Module = (
        GPT2LMHeadModel(GPT2Config(**size, n_embd=16, n_layer=1, n_head=2, n_positions=64))
        if kind == "learned positions"
        else MambaForCausalLM(MambaConfig(**size, hidden_size=16, num_hidden_layers=1, state_size=4))
    )
    reference = reference.double().eval()
    theirs = forward_plan(reference)
    plan = taken_by_both(forward_plan(policy), theirs)
    assert plan.layout == theirs.layout == ("packed" if kind == "learned positions" else "padded")
    sequences = preference_sequences(tokenized, [2, 4], pad_id=0, layout=plan.layout)
    found = token_scores(policy, sequences, plan=plan, other=LiveReference(0.5, reference, theirs)).decoupled
    expected = plain(policy, reference, tokenized, [2, 4], 0.5)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # Mamba's states are in fp32


def test_the_layout_is_one_that_both_take() -> None:
    packed = ForwardPlan("packed", None, None, lower=FrozenLayers(FrozenOutputs(1.0), 1))
    padded, alone = (ForwardPlan(layout, None, None) for layout in ("padded", "alone"))
    assert taken_by_both(packed, packed) == packed
    assert taken_by_both(packed, padded).layout == "padded" and taken_by_both(packed, padded).lower is None
    assert taken_by_both(padded, packed).layout == "padded"
    assert taken_by_both(padded, alone).layout == taken_by_both(alone, packed).layout == "alone"
