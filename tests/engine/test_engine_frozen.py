"""Outputs kept of frozen layers against the full forward pass: value, gradient, and how often the layers run."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from test_engine_packed import EDGE_CASES, FAMILIES, Responses, gradient, make, responses

from popmargin.config import ModelConfig
from popmargin.engine.frozen import FrozenLayers, FrozenOutputs
from popmargin.engine.logps import ForwardPlan, forward_plan, token_logps
from popmargin.engine.sequences import make_sequences
from popmargin.models.policies import make_policy

ADAPTER = ModelConfig(path="-", lora_rank=4, lora_last_layers=1)
PACKABLE = [name if name in ("llama", "gemma2") else pytest.param(name, marks=pytest.mark.slow)
            for name in FAMILIES if name != "gpt2"]  # fmt: skip


def adapted(start: Any) -> Any:
    policy = make_policy(start, ADAPTER).to(next(start.parameters()).dtype)
    torch.manual_seed(1)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return policy


def shared(outputs: FrozenOutputs, policy: Any) -> ForwardPlan:
    """The plan by which a policy takes kept outputs of its two lower layers."""
    plan = outputs.share(policy, forward_plan(policy))
    assert isinstance(plan.lower, FrozenLayers) and plan.lower.depth == 2
    return plan


@pytest.fixture(scope="module")
def pairs() -> Callable[[str], tuple[Any, Any, ForwardPlan]]:
    """A policy that takes kept outputs, its twin that does not, and the first one's plan; made once for each family."""
    made: dict[str, tuple[Any, Any, ForwardPlan]] = {}

    def pair(family: str) -> tuple[Any, Any, ForwardPlan]:
        if family not in made:
            plain = adapted(make(family))
            policy = copy.deepcopy(plain)
            made[family] = policy, plain, shared(FrozenOutputs(1.0), policy)
        return made[family]

    return pair


def assert_equal(policy: Any, plain: Any, plan: ForwardPlan, data: Responses) -> None:
    sequences = make_sequences(*data, 0, "packed")
    expected = token_logps(plain, sequences)
    tolerance: dict[str, Any] = {"rtol": 0, "atol": 1e-9 if expected.dtype == torch.float64 else 1e-4}
    for _ in range(2):  # computed, then kept
        found = token_logps(policy, sequences, plan=plan)
        torch.testing.assert_close(found, expected, **tolerance)
        torch.testing.assert_close(gradient(policy, found), gradient(plain, token_logps(plain, sequences)), **tolerance)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=responses())
def test_random_responses_equal_the_full_pass(pairs: Any, data: Responses) -> None:
    policy, plain, plan = pairs("llama_tied")
    assert_equal(policy, plain, plan, data)


@pytest.mark.parametrize("family", PACKABLE)
@pytest.mark.parametrize("case", EDGE_CASES)
def test_edge_cases_in_every_family(pairs: Any, family: str, case: str) -> None:
    policy, plain, plan = pairs(family)
    assert_equal(policy, plain, plan, EDGE_CASES[case])


def runs_of(layer: torch.nn.Module) -> list[int]:
    """Rows that go through a layer's attention."""
    runs: list[int] = []

    def note(*_: Any) -> None:
        runs.append(1)

    attention: Any = layer.self_attn
    attention.register_forward_pre_hook(note)
    return runs


def test_lower_layers_run_once_for_all_policies_and_batches() -> None:
    start, outputs = make("llama"), FrozenOutputs(1.0)
    first, second = adapted(start), adapted(start)
    plans = {policy: shared(outputs, policy) for policy in (first, second)}
    lower = [runs_of(policy.base_model.model.model.layers[0]) for policy in (first, second)]
    upper = [runs_of(policy.base_model.model.model.layers[2]) for policy in (first, second)]
    prompts, completions = EDGE_CASES["longer than a window"]
    for policy in (first, second):
        for order in ([0, 1], [1, 0], [0], [1]):  # the shared prefix is another one, the responses are not
            rows = [prompts[i] for i in order], [completions[i] for i in order]
            token_logps(policy, make_sequences(*rows, 0, "packed"), plan=plans[policy])
    assert [len(runs) for runs in lower] == [1, 0]
    assert [len(runs) for runs in upper] == [4, 4]


def test_gradient_checkpointing_changes_nothing(pairs: Any) -> None:
    policy, plain, plan = pairs("llama")
    checkpointed = copy.deepcopy(plain)
    own = shared(FrozenOutputs(1.0), checkpointed)
    # Renamed in transformers 5.
    enable = getattr(checkpointed, "activation_checkpointing_enable", None)
    (enable or checkpointed.gradient_checkpointing_enable)({"use_reentrant": False})
    assert checkpointed.is_gradient_checkpointing
    checkpointed.train()
    sequences = make_sequences(*EDGE_CASES["completions of one token"], 0, "packed")
    expected = token_logps(policy, sequences, plan=plan)
    found = token_logps(checkpointed, sequences, plan=own)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(gradient(checkpointed, found), gradient(policy, expected), rtol=0, atol=1e-9)


def test_a_full_memory_is_said_once_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    plain = adapted(make("llama"))
    policy, outputs = copy.deepcopy(plain), FrozenOutputs(1e-6)
    assert_equal(policy, plain, shared(outputs, policy), EDGE_CASES["longer than a window"])
    assert caplog.text.count("train.frozen_cache_gb is full") == 1


@pytest.mark.parametrize(
    ("case", "reason"),
    [("all layers", "is trained"), ("a trained embedding", "is trained"), ("no packed rows", "cannot be packed")],
)
def test_what_cannot_be_kept_is_computed_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture, case: str, reason: str
) -> None:
    if case == "no packed rows":
        config = transformers.BloomConfig(vocab_size=90, hidden_size=32, n_layer=2, n_head=4)
        policy: Any = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
        policy.transformer.h[-1].requires_grad_(True)
    else:
        start = make("llama")
        policy = make_policy(start, ModelConfig(path="-", lora_rank=4)) if case == "all layers" else adapted(start)
    if case == "a trained embedding":
        policy.get_input_embeddings().requires_grad_(True)
    plan = forward_plan(policy)
    assert FrozenOutputs(1.0).share(policy, plan) is plan and plan.lower is None
    assert "train.frozen_cache_gb has no effect" in caplog.text and reason in caplog.text


def test_outputs_of_another_depth_are_others() -> None:
    outputs = FrozenOutputs(1.0)
    one, two = torch.zeros(2, 3), torch.ones(2, 3)
    response = [np.array([4, 5])]
    assert outputs.of(1, response, lambda _: [one])[0] is one
    assert outputs.of(2, response, lambda _: [two])[0] is two
    assert torch.equal(outputs.of(1, response, lambda _: pytest.fail("kept"))[0], one)
