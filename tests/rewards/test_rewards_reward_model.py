"""Reward models: a tiny random classifier, saved and loaded for real."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

from popmargin.data.load import load_preferences
from popmargin.data.tokenize import tokenize_preferences
from popmargin.errors import ConfigError, RunError
from popmargin.models.reward_models import RewardFormat
from popmargin.rewards.base import notes_of
from popmargin.rewards.load import load_reward

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
    (note,) = reward.take_notes()
    assert note == f"texts over the 8 tokens of reward model {tmp_path}, which lost tokens at the start: 1 of 2"
    assert reward.take_notes() == [] and notes_of(reward) == ()
    assert cut == pytest.approx(reward.score([" the"], [" end"])[0], abs=1e-5)


def test_models_that_cannot_be_rewards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 outputs"):
        load_reward(save(tmp_path / "two", labels=2))
    with pytest.raises(ConfigError, match="not a trained reward model"):
        load_reward(save(tmp_path / "lm", kind=LlamaForCausalLM))
    with pytest.raises(ConfigError, match="does not load"):
        load_reward(f"model:{tmp_path / 'nothing'}")


@pytest.mark.parametrize("chat", [False, True])
def test_a_model_of_ours_reads_the_tokens_that_it_was_trained_on(
    tmp_path: Path, tiny_tokenizer: Any, chat: bool
) -> None:
    """The end token, and nothing that the chat template writes after it."""
    folder = Path(save(tmp_path / "model").removeprefix("model:"))
    model = LlamaForSequenceClassification(LlamaConfig.from_pretrained(folder, vocab_size=400)).eval()
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    RewardFormat(max_length=64).save(folder)
    row: dict[str, Any] = {"prompt": "the sky", "chosen": " is blue", "rejected": " sings"}
    asked: Any = "the sky"
    if chat:
        asked = [{"role": "user", "content": "the sky"}]
        row = {"prompt": asked} | {
            side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")
        }
    tokens = tokenize_preferences(load_preferences([row]), tiny_tokenizer)
    with torch.no_grad():
        expected = [
            model(torch.tensor([[*tokens.prompt[0], *side[0]]])).logits[0, 0].item()
            for side in (tokens.chosen, tokens.rejected)
        ]
    found = load_reward(f"model:{folder}").score([asked] * 2, [" is blue", " sings"])
    assert found == pytest.approx(expected, abs=1e-6) and found[0] != found[1]


@pytest.mark.parametrize("truncation", ["keep_prompt_end", "keep_prompt_start"])
@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("length", [12, 48])
def test_a_model_of_ours_cuts_as_in_training(
    tmp_path: Path, tiny_tokenizer: Any, chat: bool, truncation: Any, length: int
) -> None:
    """By the same rule: the prompt first, down to half, then the end of the completion, where 12 tokens do not do."""
    tiny_tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=400, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                         num_attention_heads=2, num_labels=1)  # fmt: skip
    model = LlamaForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    RewardFormat(max_length=length, truncation=truncation).save(tmp_path)

    def told(role: str, text: str) -> Any:
        return [{"role": role, "content": text}] if chat else text

    prompt, texts = told("user", "0123456789" * 6), ["13579 AB CD EF", "24680 CD EF AB"]
    row = {"prompt": prompt} | {
        side: told("assistant", text) for side, text in zip(("chosen", "rejected"), texts, strict=True)
    }
    data = load_preferences([row])
    tokens = tokenize_preferences(data, tiny_tokenizer, max_length=length, truncation=truncation)
    assert len(tokens.chosen[0]) == len(tokens.rejected[0]) and tokens.report.prompts_cut == 1
    assert tokens.report.completions_cut == (2 if length == 12 else 0)
    with torch.no_grad():
        expected = [
            model(torch.tensor([[*tokens.prompt[0], *side[0]]])).logits[0, 0].item()
            for side in (tokens.chosen, tokens.rejected)
        ]
    with pytest.warns(UserWarning, match=f"2 of 2 texts are longer than .* {length} tokens; they were truncated as in"):
        found = load_reward(f"model:{tmp_path}").score([prompt] * 2, texts)
    assert found == pytest.approx(expected, abs=1e-6) and found[0] != found[1]


def test_what_the_format_says(tmp_path: Path) -> None:
    """Models that were saved before the truncation was have the default."""
    (tmp_path / "popmargin_reward.json").write_text('{"max_length": 8}')
    assert RewardFormat.load(tmp_path) == RewardFormat(max_length=8, truncation="keep_prompt_end")
    RewardFormat(max_length=9, truncation="drop").save(tmp_path)
    assert RewardFormat.load(tmp_path) == RewardFormat(max_length=9, truncation="drop")
    for name in ("truncation", "prompt", "reasoning"):
        (tmp_path / "popmargin_reward.json").write_text(f'{{"max_length": 8, "{name}": "all"}}')
        with pytest.raises(RunError, match=rf"is damaged \({name} is 'all'\)"):
            RewardFormat.load(tmp_path)


def test_a_run_directory_and_a_damaged_folder_are_told(tmp_path: Path) -> None:
    save(tmp_path / "run" / "model")
    RewardFormat(max_length=8).save(tmp_path / "run" / "model")
    with pytest.raises(ConfigError, match=r"is a run directory; its reward model is model:.*run/model"):
        load_reward(f"model:{tmp_path}/run")
    (tmp_path / "run" / "model" / "popmargin_reward.json").write_text("{")
    with pytest.raises(RunError, match=r"popmargin_reward\.json is damaged"):
        load_reward(f"model:{tmp_path}/run/model")
