"""Loading start models and finished policies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from popmargin.config import ModelConfig
from popmargin.errors import ConfigError, RunError
from popmargin.models import policies
from popmargin.models.policies import base_dtype, load_model, load_policy, load_tokenizer, make_policy


def test_only_frozen_weights_are_kept_in_bf16() -> None:
    assert base_dtype(ModelConfig(precision="bf16", lora_rank=4)) == torch.bfloat16
    assert base_dtype(ModelConfig(precision="bf16")) == torch.float32
    assert base_dtype(ModelConfig(lora_rank=4)) == torch.float32


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    for load in (load_tokenizer, lambda path: load_model(path, torch.float32)):
        with pytest.raises(RunError, match=r"No such folder or model: .*nowhere") as info:
            load(str(tmp_path / "nowhere"))
        assert "\n" not in str(info.value)


@pytest.mark.parametrize("tied", [False, True])
def test_a_reward_model_is_no_policy(tmp_path: Path, tied: bool) -> None:
    """Its head of words would be random, or that of a model that has unlearned to write; a tied head lacks nothing."""
    config = LlamaConfig(vocab_size=300, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                         num_attention_heads=2, num_labels=1, tie_word_embeddings=tied)  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "reward")
    LlamaForCausalLM(config).save_pretrained(tmp_path / "policy")
    lacks = "" if tied else r" \(lm_head\.weight would be random\)"
    with pytest.raises(
        RunError, match=rf"reward' is not a trained.*is a classifier, such as a reward model{lacks}\. Choose"
    ):
        load_model(str(tmp_path / "reward"), torch.float32)
    assert load_model(str(tmp_path / "policy"), torch.float32).config.tie_word_embeddings is tied


def test_weights_that_were_not_saved(tmp_path: Path, tiny_model: Any) -> None:
    weights = {name: value for name, value in tiny_model.state_dict().items() if "layers.1.mlp" not in name}
    tiny_model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(RunError, match=r"missing weights \(model\.layers\.1\.mlp\..* would be random\)"):
        load_model(str(tmp_path), torch.float32)


def test_an_adapter_on_gpt_2(tmp_path: Path) -> None:
    """Its linear layers are transformers' own Conv1D, whose weights lie the other way round."""
    torch.manual_seed(0)
    start = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=16,
                                       bos_token_id=0, eos_token_id=0)).eval()  # fmt: skip
    policy = make_policy(start.requires_grad_(False), ModelConfig(lora_rank=2, lora_last_layers=1)).eval()
    trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    assert len(trained) == 8 and all(".h.1." in name for name in trained)
    tokens = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        for parameter in trained.values():
            parameter += 0.05 * torch.randn_like(parameter)
        expected = policy(input_ids=tokens).logits
        policy.save_pretrained(tmp_path)
        torch.testing.assert_close(load_policy(tmp_path, start).eval()(input_ids=tokens).logits, expected)
        assert (expected - start(input_ids=tokens).logits).abs().max() > 1e-4
        torch.testing.assert_close(policy.merge_and_unload()(input_ids=tokens).logits, expected)


def test_the_start_model_is_not_trained(tiny_model: Any) -> None:
    policy = make_policy(tiny_model.requires_grad_(False), ModelConfig())
    assert all(p.requires_grad for p in policy.parameters())
    assert not any(p.requires_grad for p in tiny_model.parameters())
    adapted = make_policy(tiny_model, ModelConfig(lora_rank=2, lora_alpha=3.0))
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name and "lm_head" not in name for name in trained)
    assert adapted.peft_config["default"].lora_alpha == 3.0
    assert make_policy(tiny_model, ModelConfig(lora_rank=2)).peft_config["default"].lora_alpha == 4


def test_layers_that_the_model_does_not_have(tiny_model: Any) -> None:
    with pytest.raises(ConfigError, match="lora_last_layers is 3, but the model has 2 layers"):
        make_policy(tiny_model, ModelConfig(lora_rank=2, lora_last_layers=3))


@pytest.mark.parametrize("rank", [0, 2])
def test_policies_come_back_as_they_were(
    tmp_path: Path, tiny_model: Any, make_model: Callable[..., Any], rank: int
) -> None:
    policy = make_policy(tiny_model, ModelConfig(lora_rank=rank)).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
        expected = policy(input_ids=torch.tensor([[5, 6, 7]])).logits
        policy.save_pretrained(tmp_path)
        loaded = load_policy(tmp_path, make_model()).eval()
        torch.testing.assert_close(loaded(input_ids=torch.tensor([[5, 6, 7]])).logits, expected)


def test_an_unfinished_run(tmp_path: Path, tiny_model: Any) -> None:
    with pytest.raises(RunError, match="has no trained model: has the run finished"):
        load_policy(tmp_path, tiny_model)


@pytest.mark.parametrize(("fast", "slower"), [(torch.float32, True), (torch.bfloat16, False)])
def test_bf16_is_measured(fast: torch.dtype, slower: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first matmuls of a process can take a time slice each, while threads wait for each other."""
    assert policies._matmul_seconds(torch.bfloat16) > 0  # pyright: ignore[reportPrivateUsage]
    waits = iter([8.0] * 10 + [0.0] * 1000)
    monkeypatch.setattr(policies, "_matmul_seconds", lambda dtype: next(waits) + (1.0 if dtype == fast else 2.0))
    monkeypatch.setattr(policies, "device", lambda: torch.device("cpu"))
    assert policies.bf16_is_slower.__wrapped__() is slower
    waits = iter([8.0, 0.0] * 5 + [0.0] * 1000)  # those of bf16 alone
    assert policies.bf16_is_slower.__wrapped__() is slower
    monkeypatch.setattr(policies, "device", lambda: torch.device("meta"))
    assert not policies.bf16_is_slower.__wrapped__()
