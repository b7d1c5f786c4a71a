"""Rewards in packed and padded rows against transformers' own classifier, one sequence at a time."""

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
from popmargin.engine.rewards import pair_rewards, response_rewards, reward_plan
from popmargin.engine.sequences import make_sequences, pack_sequences
from popmargin.errors import RunError
from popmargin.models.reward_models import make_reward_model
from rounding import rounding

SIZES: dict[str, Any] = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "num_labels": 1,
}
FAMILIES: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES),
    "mistral_window": lambda: transformers.MistralConfig(**SIZES, sliding_window=5),
    "gemma2": lambda: transformers.Gemma2Config(**SIZES, sliding_window=5),
    "bloom": lambda: transformers.BloomConfig(
        vocab_size=90, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3, num_labels=1, pad_token_id=0
    ),
}
Responses = tuple[list[np.ndarray], list[np.ndarray]]
EDGE_CASES: dict[str, Responses] = {
    "two completions": ([np.array([3, 4, 5])] * 2, [np.array([6, 7, 2]), np.array([8, 2])]),
    "no common prefix": ([np.array([3, 4]), np.array([5, 6, 7])], [np.array([8, 9]), np.array([8, 9])]),
    "one completion a prefix of the other": ([np.array([3, 4])] * 2, [np.array([5, 6, 7, 8]), np.array([5, 6])]),
    "equal completions": ([np.array([3, 4])] * 2, [np.array([5, 6, 7])] * 2),
    "single tokens": ([np.array([3])] * 2, [np.array([4]), np.array([4, 5])]),
    "padding tokens at the end": ([np.array([3, 4])] * 3, [np.array([5, 0]), np.array([0]), np.array([0, 0, 6, 0])]),
    "longer than a window": ([np.arange(3, 40)] * 2, [np.arange(4, 25), np.arange(5, 45)]),
}


def make(family: str) -> Any:
    torch.manual_seed(0)
    dtype = torch.float32 if family == "gemma2" else torch.float64  # whose own mask is fp32
    return transformers.AutoModelForSequenceClassification.from_config(FAMILIES[family]()).to(dtype).eval()


@pytest.fixture(scope="module")
def models() -> Callable[[str], Any]:
    made: dict[str, Any] = {}
    return lambda family: made.setdefault(family, make(family))


def separate(model: Any, data: Responses) -> torch.Tensor:
    """The model's own logit of one sequence after the other."""
    rows = [torch.from_numpy(np.concatenate(pair).astype(np.int64))[None] for pair in zip(*data, strict=True)]
    return torch.cat([model(input_ids=row, use_cache=False).logits[:, 0] for row in rows])


def gradient(model: Any, rewards: torch.Tensor) -> torch.Tensor:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = torch.linspace(-1, 1, len(rewards), dtype=rewards.dtype)
    grads = torch.autograd.grad((rewards * weights).sum(), trained, allow_unused=True)
    return torch.cat([torch.zeros(1) if grad is None else grad.flatten() for grad in grads])


def assert_equal_to_separate(model: Any, data: Responses) -> None:
    exact = next(model.parameters()).dtype == torch.float64
    expected = separate(model, data)
    for layout in ("packed", "padded"):
        if reward_plan(model).layout == layout or layout == "padded":
            found = response_rewards(model, make_sequences(*data, 0, layout, whole=True))
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 if exact else 1e-4)
            mine, plain = gradient(model, found), gradient(model, separate(model, data))
            assert float((mine - plain).norm()) <= (1e-5 if exact else 1e-4) * max(10.0, float(plain.norm()))


@pytest.mark.parametrize(
    "family",
    [name if name in ("llama", "bloom") else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
@pytest.mark.parametrize("case", EDGE_CASES)
def test_edge_cases_in_every_family(models: Any, family: str, case: str) -> None:
    assert reward_plan(models(family)).layout == ("padded" if family == "bloom" else "packed")
    assert_equal_to_separate(models(family), EDGE_CASES[case])


@st.composite
def responses(draw: st.DrawFn) -> Responses:
    tokens = st.lists(st.sampled_from([0, 2, 3, 4]), min_size=1, max_size=7)  # 0 is the padding token
    prompts = draw(st.lists(tokens, min_size=1, max_size=3))
    pairs = draw(st.lists(st.tuples(st.sampled_from(prompts), tokens), min_size=1, max_size=6))
    return [np.array(prompt) for prompt, _ in pairs], [np.array(completion) for _, completion in pairs]


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=responses())
def test_random_responses(models: Any, data: Responses) -> None:
    assert_equal_to_separate(models("llama"), data)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_lora(models: Any) -> None:
    adapted = make_reward_model(make("llama"), ModelConfig(lora_rank=2)).double()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name or ("score" in name and parameter.requires_grad):
            torch.nn.init.normal_(parameter, std=0.3)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert [name for name in trained if "score" in name] == ["base_model.model.score.modules_to_save.default.weight"]
    assert reward_plan(adapted.eval()).layout == "packed"
    for data in EDGE_CASES.values():
        assert_equal_to_separate(adapted, data)


def test_the_head_stays_in_fp32_under_autocast() -> None:
    """A reward of 100 would otherwise be rounded to a multiple of a half."""
    model = make("llama").float()
    sequences = make_sequences(*EDGE_CASES["two completions"], 0, "packed", whole=True)
    with torch.no_grad():
        model.score.weight.mul_(50)
        found = response_rewards(model, sequences, precision="bf16")
    assert found.dtype == torch.float32 and not torch.equal(found, found.bfloat16().float())
    exact = response_rewards(model, sequences).detach()
    allowed = rounding(torch.bfloat16, float(exact.abs().max()), 10 * model.config.num_hidden_layers)
    torch.testing.assert_close(found.detach(), exact, rtol=0, atol=allowed)


def test_the_model_is_as_before(models: Any) -> None:
    model = models("llama")
    before = separate(model, EDGE_CASES["two completions"])
    response_rewards(model, make_sequences(*EDGE_CASES["two completions"], 0, "packed", whole=True))
    assert "forward" not in vars(model.score)
    assert torch.equal(separate(model, EDGE_CASES["two completions"]), before)


def test_whole_rows_hold_the_last_tokens() -> None:
    prompt = np.array([3, 4])
    row = pack_sequences([prompt] * 3, [np.array([5, 6]), np.array([5]), np.array([5, 7, 0])], whole_to=0)
    assert row["input_ids"].tolist() == [[3, 4, 5, 6, 7, 0]]
    assert row["segments"] == ((3, 1, 2),)
    assert row["last_positions"].tolist() == [3, 2, 4]
    assert row["label_positions"].tolist() == [1, 2, 1, 1, 2, 4]


def test_pairs() -> None:
    scores = pair_rewards(torch.tensor([1.0, 2.0, 0.5, 4.0]))
    assert scores.gap.tolist() == [0.5, -2.0] and scores.logps is None


def test_models_that_are_no_reward_models(caplog: Any) -> None:
    with pytest.raises(RunError, match="LlamaForCausalLM has no head 'score'"):
        reward_plan(transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)))

    class First(transformers.LlamaForSequenceClassification):
        def forward(self, **inputs: Any) -> Any:
            output: Any = super().forward(**inputs)
            output.logits = output.logits + 1
            return output

    with pytest.raises(RunError, match="First does not apply its head to the last token"):
        reward_plan(First(transformers.LlamaConfig(**SIZES)).eval())
    with caplog.at_level(logging.WARNING):
        reward_plan(make("bloom"))
    assert "BloomForSequenceClassification runs without packed rows" in caplog.text
