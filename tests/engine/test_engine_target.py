"""Targets: the averaged policy, the policy itself, and the margin bank."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from popmargin.config import ModelConfig
from popmargin.engine.target import EMATarget, MarginBank, PolicyTarget
from popmargin.errors import RunError
from popmargin.models.policies import make_policy


@torch.no_grad()
def move(model: Any, by: float) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += by


def test_the_average_moves_by_its_closed_form(tiny_model: Any) -> None:
    """The policy jumps once by 1: after n steps the distance per weight is τⁿ."""
    target = EMATarget(tiny_model, 0.9)
    start = {name: tensor.clone() for name, tensor in target.state().items()}
    assert target.distance() == 0
    move(tiny_model, 1.0)
    count = sum(p.numel() for p in tiny_model.parameters())
    for step in range(1, 6):
        target.step()
        assert target.distance() == pytest.approx(0.9**step * count**0.5, rel=1e-4)
    for name, tensor in target.state().items():
        torch.testing.assert_close(tensor - start[name], torch.full_like(tensor, 1 - 0.9**5), rtol=1e-4, atol=1e-5)


def test_bf16_weights_have_an_fp32_average_that_moves(make_model: Callable[..., Any]) -> None:
    """In bf16 a step of 1 % of the weights' change would be rounded away."""
    model = make_model(dtype=torch.bfloat16)
    target = EMATarget(model, 0.99)
    start = {name: tensor.clone() for name, tensor in target.state().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    for _ in range(10):
        target.step()
    for name, tensor in target.state().items():
        assert tensor.dtype == torch.float32
        assert not torch.equal(tensor, start[name]), name
    with target.scoring():
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_scoring_exchanges_weights_and_puts_them_back(tiny_model: Any) -> None:
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        before = tiny_model(input_ids=ids).logits
    target = EMATarget(tiny_model, 0.5)
    move(tiny_model, 0.1)
    own = {name: p.detach().clone() for name, p in tiny_model.named_parameters()}
    with torch.no_grad():
        moved = tiny_model(input_ids=ids).logits
        with target.scoring():
            torch.testing.assert_close(tiny_model(input_ids=ids).logits, before, rtol=0, atol=0)
        torch.testing.assert_close(tiny_model(input_ids=ids).logits, moved, rtol=0, atol=0)
    with pytest.raises(KeyError, match="inside"), target.scoring():
        raise KeyError("inside")
    assert all(torch.equal(p, own[name]) for name, p in tiny_model.named_parameters())
    assert not torch.equal(moved, before)


def test_with_lora_only_the_adapter_is_kept(tiny_model: Any) -> None:
    policy = make_policy(tiny_model, ModelConfig(lora_rank=2))
    target = EMATarget(policy, 0.5)
    assert target.state() and all("lora_" in name for name in target.state())
    move(policy, 0.1)
    target.step()
    assert target.distance() > 0


def test_state_round_trip(tiny_model: Any, make_model: Callable[..., Any]) -> None:
    target = EMATarget(tiny_model, 0.9)
    move(tiny_model, 0.5)
    target.step()
    other = EMATarget(make_model(), 0.9)
    other.load_state({name: tensor.clone() for name, tensor in target.state().items()})
    for name, tensor in target.state().items():
        assert torch.equal(other.state()[name], tensor)
    with pytest.raises(RunError, match="no averaged weights"):
        other.load_state({"bank": torch.zeros(3)})


def test_the_policy_as_target_has_no_state() -> None:
    target = PolicyTarget()
    target.step()
    target.observe(torch.tensor([0]), torch.tensor([1.0]))
    assert target.state() == {} and target.distance() == 0.0 and target.recall(torch.tensor([0])) is None
    with target.scoring():
        assert target.forward == "others"


def test_the_bank_remembers_each_preferences_own_gap() -> None:
    bank = MarginBank(torch.zeros(5), 0.25)
    bank.observe(torch.tensor([3, 1]), torch.tensor([4.0, 8.0]))
    assert bank.recall(torch.tensor([1, 3])) is not None
    assert bank.recall(torch.tensor([1, 3])).tolist() == [0.0, 0.0]  # nothing changes within a step
    bank.step()
    assert bank.recall(torch.tensor([3, 1, 0])).tolist() == [3.0, 6.0, 0.0]
    assert bank.distance() == pytest.approx(6.0)
    bank.observe(torch.tensor([3]), torch.tensor([7.0]))
    bank.step()
    assert bank.recall(torch.tensor([3, 1])).tolist() == [6.0, 6.0]


def test_a_preference_scored_twice_in_a_step_counts_once() -> None:
    once, twice = MarginBank(torch.ones(2), 0.5), MarginBank(torch.ones(2), 0.5)
    once.observe(torch.tensor([1]), torch.tensor([5.0]))
    for _ in range(2):
        twice.observe(torch.tensor([1]), torch.tensor([5.0]))
    once.step(), twice.step()
    assert once.state()["bank"].tolist() == twice.state()["bank"].tolist() == [1.0, 3.0]


def test_the_bank_is_its_own_copy_and_is_restored() -> None:
    start = torch.arange(3.0)
    bank = MarginBank(start, 0.0)
    bank.observe(torch.tensor([0]), torch.tensor([9.0]))
    bank.step()
    assert start.tolist() == [0, 1, 2]
    other = MarginBank(start, 0.0)
    other.load_state(bank.state())
    assert other.recall(torch.arange(3)).tolist() == [9.0, 1.0, 2.0]
    with pytest.raises(RunError, match="has 3 preferences, but this run has 4"):
        MarginBank(torch.zeros(4), 0.0).load_state(bank.state())
