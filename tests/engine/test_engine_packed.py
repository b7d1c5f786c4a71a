"""Packed rows that share prompts against separate sequences and padded batches: value and gradient, over models."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popmargin.config import ModelConfig
from popmargin.engine.logps import ForwardPlan, forward_plan, token_logps, token_scores
from popmargin.engine.sequences import Layout, make_sequences, pack_sequences, packed_length, split_to_budget
from popmargin.models.policies import make_policy
from rounding import rounding

SIZES: dict[str, Any] = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,  # so that attention matters
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = {"sliding_window": 5}
FAMILIES: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "llama_tied": lambda: transformers.LlamaConfig(**SIZES, tie_word_embeddings=True),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES),
    "mistral_window": lambda: transformers.MistralConfig(**SIZES, **WINDOW),
    "gemma": lambda: transformers.GemmaConfig(**SIZES),
    "gemma2_softcap": lambda: transformers.Gemma2Config(**SIZES, **WINDOW, final_logit_softcapping=5.0),
    "gemma3": lambda: transformers.Gemma3TextConfig(**SIZES, **WINDOW),
    "smollm3": lambda: transformers.SmolLM3Config(**SIZES),
    "granite_scale": lambda: transformers.GraniteConfig(**SIZES, logits_scaling=3.0),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=90, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3),
}


def make(family: str, dtype: torch.dtype | None = None) -> Any:
    torch.manual_seed(0)
    # Gemma 2's own padded attention is NaN in fp64: its mask is cast to fp32.
    dtype = dtype or (torch.float32 if family == "gemma2_softcap" else torch.float64)
    return transformers.AutoModelForCausalLM.from_config(FAMILIES[family]()).to(dtype).eval()


Responses = tuple[list[np.ndarray], list[np.ndarray]]


@st.composite
def responses(draw: st.DrawFn) -> Responses:
    """Responses to a few prompts: equal ones, common beginnings, one a prefix of the other, single tokens."""
    tokens = st.lists(st.integers(3, 6), min_size=1, max_size=7)  # few distinct tokens: prefixes happen
    prompts = draw(st.lists(tokens, min_size=1, max_size=3))
    pairs = draw(st.lists(st.tuples(st.sampled_from(prompts), tokens), min_size=1, max_size=6))
    return [np.array(prompt) for prompt, _ in pairs], [np.array(completion) for _, completion in pairs]


EDGE_CASES: dict[str, Responses] = {
    "prompt of one token": ([np.array([3])] * 2, [np.array([4, 5, 6]), np.array([7, 8])]),
    "no common prefix": ([np.array([3, 4]), np.array([5, 6, 7])], [np.array([8, 9]), np.array([8, 9])]),
    "completions of one token": ([np.array([3, 4, 5])] * 2, [np.array([6]), np.array([7])]),
    "one completion a prefix of the other": ([np.array([3, 4])] * 2, [np.array([5, 6, 7, 8]), np.array([5, 6])]),
    "equal completions": ([np.array([3, 4])] * 2, [np.array([5, 6, 7])] * 2),
    "prompt and completion of one token": ([np.array([3])] * 2, [np.array([4]), np.array([4, 5])]),
    "longer than a window": ([np.arange(3, 40)] * 2, [np.arange(4, 25), np.arange(5, 45)]),
}


def separate(model: Any, prompt: np.ndarray, completion: np.ndarray) -> torch.Tensor:
    """All logits of one sequence, the textbook way."""
    ids = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))
    logits = model(input_ids=ids[None], use_cache=False).logits[0]
    return logits.log_softmax(-1)[:-1].gather(1, ids[1:, None]).squeeze(1)[len(prompt) - 1 :]


def gradient(model: Any, logps: torch.Tensor) -> torch.Tensor:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = torch.linspace(-1, 1, len(logps), dtype=logps.dtype)
    grads = torch.autograd.grad((logps * weights).sum(), trained, allow_unused=True)
    return torch.cat([torch.zeros(1) if grad is None else grad.flatten() for grad in grads])


def assert_equal_to_separate(model: Any, data: Responses, layout: Layout) -> None:
    """Up to fp32 rounding: the models' norms compute in fp32 whatever the weights are."""
    exact = next(model.parameters()).dtype == torch.float64
    plan = forward_plan(model)
    assert plan.layout == "packed" and plan.fused is not None
    sequences = make_sequences(*data, pad_id=0, layout=layout)
    expected = torch.cat([separate(model, *one) for one in zip(*data, strict=True)])
    found = token_logps(model, sequences, plan=plan)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 if exact else 1e-4)
    mine, plain = gradient(model, found), gradient(model, expected)
    # Terms may cancel, so that the norm of the sum says nothing about their rounding.
    assert float((mine - plain).norm()) <= (1e-6 if exact else 1e-5) * max(10.0, float(plain.norm()))


@pytest.fixture(scope="module")
def models() -> Callable[[str], Any]:
    made: dict[str, Any] = {}
    return lambda family: made.setdefault(family, make(family))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=responses(), layout=st.sampled_from(["packed", "padded"]))
def test_random_responses_equal_separate_sequences(models: Any, data: Responses, layout: Layout) -> None:
    assert_equal_to_separate(models("llama"), data, layout)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", EDGE_CASES)
def test_edge_cases_in_every_family(models: Any, family: str, case: str) -> None:
    assert_equal_to_separate(models(family), EDGE_CASES[case], "packed")


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=responses(), frozen_head=st.booleans())
def test_lora_equals_separate_sequences(models: Any, data: Responses, frozen_head: bool) -> None:
    adapted = models("llama").__dict__.get("adapted")
    if adapted is None:
        adapted = make_policy(make("llama"), ModelConfig(lora_rank=2)).double()
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        models("llama").__dict__["adapted"] = adapted
    head = adapted.get_output_embeddings()
    head.weight.requires_grad_(not frozen_head)
    assert_equal_to_separate(adapted.eval(), data, "packed")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_other_dtypes_are_near_fp64(dtype: torch.dtype, layout: Layout) -> None:
    data = EDGE_CASES["longer than a window"]
    exact = token_logps(make("llama"), make_sequences(*data, 0, layout))
    found = token_logps(make("llama", dtype), make_sequences(*data, 0, layout))
    assert found.dtype == torch.float32
    allowed = rounding(dtype, float(exact.detach().abs().max()), 30 if dtype == torch.bfloat16 else 30 * 64)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=allowed)


def test_gradient_checkpointing_changes_nothing() -> None:
    model, data = make("llama"), EDGE_CASES["one completion a prefix of the other"]
    sequences = make_sequences(*data, 0, "packed")
    plain = gradient(model, token_logps(model, sequences))
    # Renamed in transformers 5.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    assert model.is_gradient_checkpointing
    model.train()
    torch.testing.assert_close(gradient(model, token_logps(model, sequences)), plain, rtol=0, atol=1e-5)


def test_statistics_of_both_layouts_and_heads(models: Any) -> None:
    model, data = models("llama"), EDGE_CASES["one completion a prefix of the other"]
    plan = forward_plan(model)
    plain = token_scores(
        model, make_sequences(*data, 0, "padded"), plan=ForwardPlan("padded", plan.head, None), statistics=True
    )
    fused = token_scores(model, make_sequences(*data, 0, "packed"), plan=plan, statistics=True)
    torch.testing.assert_close(fused.entropy, plain.entropy, rtol=0, atol=1e-9)
    assert fused.top1 is not None and plain.top1 is not None and torch.equal(fused.top1, plain.top1)
    assert token_scores(model, make_sequences(*data, 0, "packed"), plan=plan).entropy is None


def test_models_without_replaceable_attention_are_padded_and_the_log_says_why(caplog: Any) -> None:
    config = transformers.BloomConfig(vocab_size=90, hidden_size=32, n_layer=2, n_head=4)
    model: Any = transformers.AutoModelForCausalLM.from_config(config).eval()
    with caplog.at_level(logging.WARNING):
        plan = forward_plan(model)
    assert plan.layout == "padded" and plan.fused is not None
    assert "without packed rows" in caplog.text and "cannot be replaced" in caplog.text
    assert caplog.text.count("without packed rows") == 1


def test_a_head_that_does_more_than_a_linear_layer_is_not_fused(caplog: Any) -> None:
    class Doubled(transformers.LlamaForCausalLM):
        def forward(self, **inputs: Any) -> Any:
            output: Any = super().forward(**inputs)
            output.logits = 2 * output.logits
            return output

    model = Doubled(FAMILIES["llama"]()).double().eval()
    with caplog.at_level(logging.WARNING):
        plan = forward_plan(model)
    assert plan.fused is None and plan.layout == "packed" and "without a fused LM head" in caplog.text
    data = EDGE_CASES["no common prefix"]
    expected = torch.cat([separate(model, *one) for one in zip(*data, strict=True)])
    torch.testing.assert_close(token_logps(model, make_sequences(*data, 0, plan.layout)), expected)


def test_generation_and_saving_are_as_before(tmp_path: Any) -> None:
    model, other = make("llama", torch.float32), make("llama", torch.float32)
    forward_plan(model)
    ids = torch.tensor([[3, 4, 5, 6], [0, 0, 7, 8]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    options: dict[str, Any] = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False}
    assert torch.equal(model.generate(ids, **options), other.generate(ids, **options))
    model.save_pretrained(tmp_path)
    assert "popmargin" not in (tmp_path / "config.json").read_text()
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


def test_the_row_holds_every_token_once() -> None:
    prompt, other = np.array([3, 4, 5]), np.array([9, 9])
    prompts = [prompt, prompt, other, prompt]
    completions = [np.array([6, 7, 8]), np.array([6, 9]), np.array([3]), np.array([6, 7, 8])]
    row = pack_sequences(prompts, completions)
    # prompt and the common 6; tails [7] of the first and last response (their 8 predicts nothing) and nothing of [6, 9]
    assert row["input_ids"].tolist() == [[3, 4, 5, 6, 7, 9, 9]]
    assert row["position_ids"].tolist() == [[0, 1, 2, 3, 4, 0, 1]]
    assert row["segments"] == ((4, 1), (2,))
    assert row["label_positions"].tolist() == [2, 3, 4, 2, 3, 6, 2, 3, 4]
    assert row["labels"].tolist() == [6, 7, 8, 6, 9, 3, 6, 7, 8]
    assert row["lengths"].tolist() == [3, 2, 1, 3]
    assert packed_length(prompts, completions) == 3 + 2 + 3 + 2 + 1 + 3


@settings(max_examples=200)
@given(tokens=st.lists(st.integers(1, 50), max_size=40), budget=st.integers(1, 120))
def test_parts_fill_the_budget(tokens: list[int], budget: int) -> None:
    parts = split_to_budget(tokens, budget)
    assert sorted(item for part in parts for item in part) == list(range(len(tokens)))
    for part in parts:
        assert len(part) == 1 or sum(tokens[i] for i in part) <= budget
    assert len(parts) <= 1 + 2 * sum(tokens) / budget + sum(t > budget for t in tokens)
