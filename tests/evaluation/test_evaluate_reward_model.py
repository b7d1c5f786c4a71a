"""Reward models: a tiny random classifier, saved and loaded for real."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

from popmargin.errors import ConfigError
from popmargin.evaluation.rewards import load_reward

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"


def save(
    folder: Path,
    kind: Any = LlamaForSequenceClassification,
    labels: int = 1,
    template: str | None = TEMPLATE,
    pad: str | None = "^",
) -> str:
    characters = {chr(c): c - 31 for c in range(32, 127)} | {"[UNK]": 0}
    inner = Tokenizer(models.WordLevel(characters, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", eos_token="~", pad_token=pad)
    tokenizer.chat_template = template
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        num_labels=labels,
    )
    kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return f"model:{folder}"


@pytest.mark.parametrize("pad", ["^", None])
def test_rewards_are_the_models_logits_and_do_not_depend_on_the_batch(tmp_path: Path, pad: str | None) -> None:
    """Texts that end with the end token too: a made-up padding token would read their score at another place."""
    spec = save(tmp_path, pad=pad)
    texts = ["a", "longer text", "mid", "~~", ""]
    prompts: list[Any] = ["Say: "] * 5
    one, many = (
        load_reward(spec, batch_size=1).score(prompts, texts),
        load_reward(spec, batch_size=3).score(prompts, texts),
    )
    assert many == pytest.approx(one, abs=1e-5)
    assert len(set(one)) == 5
    model = LlamaForSequenceClassification.from_pretrained(tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = model(torch.tensor([tokenizer("Say: longer text")["input_ids"]])).logits[0, 0].item()
    assert one[1] == pytest.approx(expected, abs=1e-6)


def test_conversations_go_through_the_chat_template(tmp_path: Path) -> None:
    spec = save(tmp_path)
    chat: Any = [{"role": "user", "content": "Hi"}]
    written = load_reward(spec).score([chat], ["you"])
    assert written == pytest.approx(load_reward(spec).score(["<user>Hi<assistant>"], ["you"]), abs=1e-6)
    without = load_reward(save(tmp_path / "plain", template=None))
    with pytest.raises(ConfigError, match="no chat template"):
        without.score([chat], ["you"])


def test_long_texts_are_cut_at_the_start_and_counted(tmp_path: Path) -> None:
    reward: Any = load_reward(save(tmp_path), max_length=8)
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than the reward model's 8 tokens"):
        cut, _ = reward.score(["a long prompt ", "x"], ["the end", "y"])
    assert reward.truncated == 1
    assert cut == pytest.approx(reward.score([" the"], [" end"])[0], abs=1e-5)


def test_models_that_cannot_be_rewards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 outputs"):
        load_reward(save(tmp_path / "two", labels=2))
    with pytest.raises(ConfigError, match="not a trained reward model"):
        load_reward(save(tmp_path / "lm", kind=LlamaForCausalLM))
    with pytest.raises(ConfigError, match="does not load"):
        load_reward(f"model:{tmp_path / 'nothing'}")
