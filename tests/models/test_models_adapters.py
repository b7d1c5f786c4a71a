"""Start models that are a LoRA folder: merged into their base, whatever they bring along."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from popmargin.config import ModelConfig
from popmargin.errors import ConfigError, RunError
from popmargin.models.policies import base_dtype, load_model, load_tokenizer
from popmargin.models.reward_models import load_reward_model
from popmargin.rewards.reward_model import ModelReward

TOKENS = torch.tensor([[5, 6, 7, 8, 9]])


def tiny(tied: bool = False, **changes: Any) -> Any:
    torch.manual_seed(0)
    settings = {"vocab_size": 48, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
                "num_attention_heads": 2, "initializer_range": 0.3, "tie_word_embeddings": tied}  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**settings | changes)).eval()


def adapted(
    folder: Path, model: Any, base: str | None = None, embeddings: bool | str = False, **settings: Any
) -> torch.Tensor:
    """Save a base and a random adapter on it, as a supervised fine-tuning does; gives the logits of both together."""
    model.save_pretrained(folder / "base")
    options = {"r": 2, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"} | settings
    policy = get_peft_model(model, LoraConfig(**options))
    policy.peft_config["default"].base_model_name_or_path = base or str(folder / "base")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn_like(parameter)
        expected = policy.eval()(input_ids=TOKENS).logits
    policy.save_pretrained(folder / "sft", save_embedding_layers=embeddings)
    return expected


KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "bias": {"bias": "all"},
    "head": {"modules_to_save": ["lm_head"]},
    "embeddings": {"modules_to_save": ["embed_tokens"]},
    "both": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "on-embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "on-head": {"target_modules": ["lm_head"]},
    "tokens": {"trainable_token_indices": {"embed_tokens": [5, 6]}},
}


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*", "ignore:.*tied.*")
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", list(KINDS))
def test_the_merged_model_is_the_adapted_one(tmp_path: Path, kind: str, tied: bool) -> None:
    """And stays it when it is saved and read by transformers alone: no weight of the adapter is left behind."""
    expected = adapted(tmp_path, tiny(tied), **KINDS[kind])
    model = load_model(str(tmp_path / "sft"), torch.float32).eval()
    assert not isinstance(model, PeftModel) and all(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        assert (model(input_ids=TOKENS).logits - tiny(tied)(input_ids=TOKENS).logits).abs().max() > 0.1
        torch.testing.assert_close(model(input_ids=TOKENS).logits, expected, rtol=1e-4, atol=1e-4)
        model.save_pretrained(tmp_path / "again")
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "again").eval()
        torch.testing.assert_close(again(input_ids=TOKENS).logits, expected, rtol=1e-4, atol=1e-4)


def test_an_adapter_on_an_adapter(tmp_path: Path) -> None:
    """Each goes onto what it names."""
    adapted(tmp_path / "first", tiny())
    first = load_model(str(tmp_path / "first" / "sft"), torch.float32)
    expected = adapted(tmp_path / "second", first, base=str(tmp_path / "first" / "sft"), r=3)
    model = load_model(str(tmp_path / "second" / "sft"), torch.float32).eval()
    torch.testing.assert_close(model(input_ids=TOKENS).logits, expected, rtol=1e-4, atol=1e-4)


def test_a_vocabulary_that_grew_with_the_adapter(tmp_path: Path) -> None:
    base = tiny()
    base.save_pretrained(tmp_path / "small")
    base.resize_token_embeddings(52, mean_resizing=False)
    with pytest.warns(UserWarning, match="embedding layer has been resized"):
        expected = adapted(tmp_path, base, base=str(tmp_path / "small"), embeddings="auto")
    model = load_model(str(tmp_path / "sft"), torch.float32).eval()
    assert model.config.vocab_size == 52
    torch.testing.assert_close(model(input_ids=TOKENS).logits, expected, rtol=1e-4, atol=1e-4)


def test_merged_in_fp32_then_rounded_once(tmp_path: Path) -> None:
    """And the frozen base of a new adapter stays in fp32, where bf16 would round the first adapter away."""
    adapted(tmp_path, tiny().bfloat16())
    path = str(tmp_path / "sft")
    whole, rounded = load_model(path, torch.float32), load_model(path, torch.bfloat16)
    for (name, value), other in zip(whole.named_parameters(), rounded.parameters(), strict=True):
        assert torch.equal(value.bfloat16(), other), name
    assert rounded.model.rotary_emb.inv_freq.dtype == torch.float32
    assert base_dtype(ModelConfig(path=path, precision="bf16", lora_rank=2)) == torch.float32
    assert base_dtype(ModelConfig(path=str(tmp_path / "base"), precision="bf16", lora_rank=2)) == torch.bfloat16


def test_a_reward_model_from_adapters(tmp_path: Path) -> None:
    """An adapter of a language model changes the decoder; one of a classifier brings its head."""
    adapted(tmp_path, tiny(), target_modules=["q_proj", "lm_head"])
    policy = load_model(str(tmp_path / "sft"), torch.float32)
    model = load_reward_model(str(tmp_path / "sft"), torch.float32, 0)
    assert not model.score.weight.any()
    torch.testing.assert_close(model.model(TOKENS)[0], policy.model(TOKENS)[0])
    config = LlamaConfig(**tiny().config.to_dict() | {"num_labels": 1, "pad_token_id": 0})
    expected = adapted(tmp_path / "reward", LlamaForSequenceClassification(config).eval(), task_type="SEQ_CLS")
    reward = load_reward_model(str(tmp_path / "reward" / "sft"), torch.float32, 0).eval()
    torch.testing.assert_close(reward(input_ids=TOKENS).logits, expected)
    with pytest.raises(RunError, match="is a classifier, such as a reward model"):
        load_model(str(tmp_path / "reward" / "sft"), torch.float32)


def change_settings(folder: Path, **values: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda sft: change_settings(sft, base_model_name_or_path=None), "names no base: write base_model_name"),
        (lambda sft: change_settings(sft, base_model_name_or_path=str(sft)), "names itself as its base"),
        (lambda sft: change_settings(sft, base_model_name_or_path="/gone/m"), "its base does not load: No such"),
        (lambda sft: change_settings(sft, r=3), r"does not fit its base.*Is '.*base' the model it was"),
        (lambda sft: change_settings(sft, target_modules=["q_proj"]), r"has weights that do not exist in its base"),
        (lambda sft: change_settings(sft, target_modules=["q_proj", "v_proj", "down_proj"]), r"lacks weights \(first"),
        (lambda sft: tiny().save_pretrained(sft), "contains both a whole model and an adapter"),
        (lambda sft: (sft / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors"),
        (lambda sft: (sft / "adapter_model.safetensors").rename(sft / "adapter_model.bin"), "are a pickle"),
    ],
)  # fmt: skip
def test_adapters_that_do_not_fit(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    adapted(tmp_path, tiny())
    damage(tmp_path / "sft")
    with pytest.raises(RunError, match=message):
        load_model(str(tmp_path / "sft"), torch.float32)


def test_the_tokenizer_of_the_base(tmp_path: Path, tiny_tokenizer: Any) -> None:
    adapted(tmp_path, tiny())
    with pytest.raises(RunError, match="Cannot load a tokenizer"):
        load_tokenizer(str(tmp_path / "sft"))
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    assert load_tokenizer(str(tmp_path / "sft")).get_vocab() == tiny_tokenizer.get_vocab()


def test_a_judge_that_is_an_adapter(tmp_path: Path, tiny_tokenizer: Any) -> None:
    """The reward `model:PATH` reads it as training does, with its base's tokenizer."""
    config = LlamaConfig(**tiny(vocab_size=300).config.to_dict() | {"num_labels": 1, "pad_token_id": 0})
    torch.manual_seed(2)
    adapted(tmp_path, LlamaForSequenceClassification(config).eval(), task_type="SEQ_CLS")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    model = load_reward_model(str(tmp_path / "sft"), torch.float32, 0).eval()
    tokens = tiny_tokenizer("the sky is blue", return_tensors="pt")["input_ids"]
    expected = float(model(input_ids=tokens).logits.detach())
    assert ModelReward(str(tmp_path / "sft")).score(["the sky"], [" is blue"]) == [pytest.approx(expected, abs=1e-5)]
    base = ModelReward(str(tmp_path / "base")).score(["the sky"], [" is blue"])[0]
    assert abs(base - expected) > 1e-3


@pytest.mark.filterwarnings("ignore:.*invalid shape.*", "ignore:.*has no bias.*")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_bias": True}, "has more"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "has more"),
        ({"init_lora_weights": "pissa"}, "changes its weights"),
        ({"init_lora_weights": "olora"}, "changes its weights"),
    ],
)
def test_what_two_stacked_matrices_cannot_say_is_not_stacked(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    """Saved as one adapter on the unchanged base, it would be lost."""
    adapted(tmp_path, tiny(), **settings)
    with pytest.raises(ConfigError, match=message):
        load_model(str(tmp_path / "sft"), torch.float32, stack=True)


@pytest.mark.filterwarnings("ignore:.*invalid shape.*", "ignore:.*has no bias.*")
def test_a_bias_without_a_place_in_the_base_cannot_be_merged(tmp_path: Path) -> None:
    adapted(tmp_path, tiny(), lora_bias=True)
    with pytest.raises(RunError, match=r"cannot be merged into its base: .*bias"):
        load_model(str(tmp_path / "sft"), torch.float32)
