"""Windows and chunks beyond a trial's tokens, masks that only the model can make, and positions that batches change."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from architectures import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine_architectures import COMPLETIONS, PROMPTS, gradient, separate
from transformers import masking_utils

from popmargin.data.ragged import Ragged
from popmargin.engine.logps import forward_plan, response_sums, token_logps
from popmargin.engine.rewards import response_rewards, reward_plan
from popmargin.engine.sequences import make_sequences
from popmargin.engine.sight import Sight, sight_of
from popmargin.errors import RunError
from popmargin.generate.sample import Sampling, completion_logps, sample

SIZES: dict[str, Any] = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 20,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "num_labels": 1,
}
SHORT = slice(3, 4)  # the one response within 20 tokens


def alone(model: Any) -> torch.Tensor:
    return torch.cat([separate(model, *one) for one in zip(PROMPTS, COMPLETIONS, strict=True)])


# Windows and chunks that only the mask knows, others that the attention is told of too, and one behind every layer.
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llama4_text", {"attn_temperature_tuning": False}),
        ("qwen2_moe", {}),
        ("phimoe", {}),
        ("afmoe", {}),  # gives its attention the mask by name
        ("mistral", {}),
        ("gemma2", {}),
        ("cohere2", {}),
    ],
)
def test_packed_rows_obey_the_models_own_masks(name: str, changes: dict[str, Any]) -> None:
    model = tiny(name, **changes)
    plan = forward_plan(model)
    assert plan.layout == "packed"
    expected, found = alone(model), token_logps(model, make_sequences(PROMPTS, COMPLETIONS, 0, "packed"), plan=plan)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    mine, plain = gradient(model, found), gradient(model, expected)
    assert float((mine - plain).norm()) <= 1e-4 * float(plain.norm())
    sums = completion_logps(model, PROMPTS, COMPLETIONS, tokens_per_batch=200, precision="fp32", pad_id=0)
    lengths = torch.tensor([len(completion) for completion in COMPLETIONS])
    np.testing.assert_allclose(sums, response_sums(expected.detach().double(), lengths), rtol=0, atol=1e-3)


def test_a_window_changes_numbers_in_these_rows() -> None:
    """Else the test above could not fail."""
    wide, narrow = tiny("qwen2_moe", sliding_window=200), tiny("qwen2_moe")
    assert float((alone(wide) - alone(narrow)).detach().abs().max()) > 0.1


@pytest.mark.parametrize("kind", ["Qwen2Moe", "Phimoe", "Mistral"])
def test_rewards_obey_the_models_own_masks(kind: str) -> None:
    torch.manual_seed(0)
    window = {"sliding_window": 17, "use_sliding_window": True, "max_window_layers": 2}
    experts = {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "num_experts": 4,
               "num_local_experts": 4, "num_experts_per_tok": 2}  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(**SIZES | {"max_position_embeddings": 256} | window | experts)
    model: Any = getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()
    assert reward_plan(model).layout == "packed"
    rows = [torch.from_numpy(np.concatenate(pair))[None] for pair in zip(PROMPTS, COMPLETIONS, strict=True)]
    expected = torch.cat([model(input_ids=row).logits[:, 0] for row in rows])
    found = response_rewards(model, make_sequences(PROMPTS, COMPLETIONS, 0, "packed", whole=True))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "layout", "reason"),
    [
        ("llama4_text", "padded", "scores would change"),  # counts positions along the row, from 8,192 on in life
        ("gpt_oss", "padded", "its attention gets the argument 's_aux'"),
        ("doge", "alone", "its masks depend on the token values, as in DogeAttention"),
        ("deepseek_v32", "alone", "its masks depend on the token values, as in DeepseekV32Attention"),
        ("hrm_text", "alone", "scores would change"),
    ],
)
def test_models_that_cannot_be_packed_fall_back_and_the_log_says_why(
    name: str, layout: str, reason: str, caplog: Any
) -> None:
    changes = {"floor_scale": 8192} if name == "llama4_text" else {}
    model = tiny(name, **changes)
    with caplog.at_level(logging.WARNING):
        plan = forward_plan(model)
    assert plan.layout == layout and reason in caplog.text
    assert not model.config._attn_implementation.startswith("popmargin"), "it has its own attention again"
    assert all(module.floor_scale == 8192 for module in model.modules() if hasattr(module, "floor_scale"))
    found = token_logps(model, make_sequences(PROMPTS, COMPLETIONS, 0, layout), plan=plan)  # pyright: ignore
    torch.testing.assert_close(found, alone(model), rtol=0, atol=1e-4)


def test_rewards_of_models_that_need_each_response_alone() -> None:
    torch.manual_seed(0)
    config = transformers.DogeConfig(**SIZES | {"max_position_embeddings": 256, "keep_window_size": 17})
    model: Any = transformers.DogeForSequenceClassification(config).eval()
    assert reward_plan(model).layout == "alone"
    rows = [torch.from_numpy(np.concatenate(pair))[None] for pair in zip(PROMPTS, COMPLETIONS, strict=True)]
    found = response_rewards(model, make_sequences(PROMPTS, COMPLETIONS, 0, "alone", whole=True))
    torch.testing.assert_close(found, torch.cat([model(input_ids=row).logits[:, 0] for row in rows]), rtol=0, atol=1e-5)


class Capped(transformers.LlamaForCausalLM):
    """Caps its logits without saying so: small ones hardly change."""

    def forward(self, **inputs: Any) -> Any:
        output: Any = super().forward(**inputs)
        output.logits = 30 * (output.logits / 30).tanh()
        return output


def test_what_follows_the_head_is_seen_though_the_logits_of_a_trial_are_small(caplog: Any) -> None:
    torch.manual_seed(0)
    model = Capped(transformers.LlamaConfig(**SIZES | {"initializer_range": 0.02})).eval()
    with caplog.at_level(logging.WARNING):
        assert forward_plan(model).fused is None
    assert "without a fused LM head (logits of up to 60 would change by" in caplog.text


def test_models_that_see_later_tokens_are_refused() -> None:
    torch.manual_seed(0)
    model = transformers.BertLMHeadModel(transformers.BertConfig(**SIZES, is_decoder=False)).eval()
    with pytest.raises(RunError, match="BertLMHeadModel is not causal as configured"):
        forward_plan(model)


ROPE = {
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    "longrope": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 20,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
    },
}


@pytest.mark.parametrize("kind", ROPE)
def test_positions_that_change_with_the_batch_are_refused_beyond_the_original_context(kind: str) -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES, rope_parameters=ROPE[kind])
    model: Any = transformers.LlamaForCausalLM(config).eval()
    expected = separate(model, PROMPTS[3], COMPLETIONS[3])
    plan = forward_plan(model)
    found = token_logps(model, make_sequences(PROMPTS[SHORT], COMPLETIONS[SHORT], 0, plan.layout), plan=plan)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    message = rf"A sequence has 44 tokens, but the model takes at most 20: its {kind} position scaling would depend"
    for layout in ("packed", "padded"):
        with pytest.raises(RunError, match=message):
            token_logps(model, make_sequences(PROMPTS, COMPLETIONS, 0, layout), plan=plan)
    with pytest.raises(RunError, match="has 24 tokens, but the model takes at most 20"):
        sample(model, None, Ragged.of([[3, 4, 5, 6]]), Sampling(max_new_tokens=20))


@pytest.mark.parametrize("kind", ROPE)
def test_rewards_are_refused_there_too(kind: str) -> None:
    torch.manual_seed(0)
    model: Any = transformers.LlamaForSequenceClassification(
        transformers.LlamaConfig(**SIZES, rope_parameters=ROPE[kind])
    ).eval()
    with pytest.raises(RunError, match="A sequence has 44 tokens, but the model takes at most 20"):
        response_rewards(model, make_sequences(PROMPTS, COMPLETIONS, 0, "padded", whole=True))


Rule = Callable[..., Any]


@settings(max_examples=30)
@given(size=st.integers(1, 100_000))
def test_windows_and_chunks_are_read_from_their_rules(size: int) -> None:
    window = masking_utils.sliding_window_causal_mask_function(size)
    assert sight_of(window) == Sight(window=size)
    if size > 1:  # a chunk of one token is a window of one
        chunk = masking_utils.chunked_causal_mask_function(size, torch.zeros(1, dtype=torch.long))
        assert sight_of(chunk) == Sight(chunk=size)


def _every_other(_batch: Any, _head: Any, query: Any, key: Any) -> Any:
    return (key <= query) & ((query - key) % 2 == 0)


def _dilated_far_away(_batch: Any, _head: Any, query: Any, key: Any) -> Any:
    return (key <= query) & ((query - key < 1000) | (key % 2 == 0))


def test_rules_of_other_kinds_are_not_taken_for_windows() -> None:
    causal = masking_utils.causal_mask_function
    assert sight_of(causal) == Sight()
    blocks = masking_utils.blockwise_overlay(torch.zeros(1, 16, dtype=torch.long))
    for rule in (
        masking_utils.bidirectional_mask_function,
        masking_utils.sliding_window_bidirectional_mask_function(9),
        masking_utils.or_masks(causal, blocks),  # looks tokens up
        masking_utils.or_masks(causal, masking_utils.sliding_window_bidirectional_mask_function(5)),
        _every_other,
        _dilated_far_away,
    ):
        assert sight_of(rule) is None


@given(window=st.none() | st.integers(1, 30), chunk=st.none() | st.integers(1, 30), length=st.integers(1, 40))
def test_a_sight_within_a_length_sees_the_same(window: int | None, chunk: int | None, length: int) -> None:
    sight = Sight(window, chunk)
    assert [sight.within(length).first(place) for place in range(length)] == [sight.first(p) for p in range(length)]
