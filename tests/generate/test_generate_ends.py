"""One rule for the end of a completion: what training teaches, sampling stops at and the saved model says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, LlamaForCausalLM

from popmargin.config import RunConfig, from_dict
from popmargin.data import load_preferences, tokenize_preferences
from popmargin.data.ragged import Ragged
from popmargin.data.template import template_ends
from popmargin.errors import DataError, RunError
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.run import evaluate_run
from popmargin.generate.ends import end_tokens
from popmargin.generate.sample import Sampling, sample
from popmargin.models.policies import load_tokenizer
from popmargin.training.run import train
from template_kinds import KINDS, build, build_model

NO_END = {"plain", "nothing", "no_template"}


def turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def rows(count: int = 12, *, chat: bool = True) -> list[dict[str, Any]]:
    texts = [(f"What is {n} and {n}?", f"It is {2 * n}.", f"Nobody knows {n}.") for n in range(count)]
    if not chat:
        return [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in texts]
    return [
        {
            "prompt": [turn("user", prompt)],
            "chosen": [turn("assistant", chosen)],
            "rejected": [turn("assistant", rejected)],
        }
        for prompt, chosen, rejected in texts
    ]


@pytest.mark.parametrize("name", KINDS)
def test_trained_completions_end_with_a_token_that_ends_samples(name: str) -> None:
    tokenizer, chat = build(name), KINDS[name].template is not None
    tokens = tokenize_preferences(load_preferences(rows(chat=chat)), tokenizer)
    ends = end_tokens(tokenizer, GenerationConfig())
    last = {int(side[i][-1]) for side in (tokens.chosen, tokens.rejected) for i in range(len(tokens))}
    assert (last <= set(ends)) == (name not in {"plain", "nothing"})
    assert tokens.report.unterminated == (2 * len(tokens) if name in {"plain", "nothing"} else 0)
    assert set(tokens.report.ends) == (set() if name in {"plain", "nothing"} else last)
    assert tokenizer.eos_token_id is None or tokenizer.eos_token_id in ends
    assert bool(template_ends(tokenizer)) == (name not in NO_END)
    if name not in NO_END:
        assert set(template_ends(tokenizer)) == last


def test_the_start_models_own_ends_and_those_of_the_data_count_too() -> None:
    tokenizer = build("base_eos")
    both = [tokenizer.convert_tokens_to_ids(token) for token in ("<|endoftext|>", "<|im_end|>")]
    assert end_tokens(tokenizer, GenerationConfig()) == sorted(both)
    assert end_tokens(tokenizer, GenerationConfig(eos_token_id=77), [99]) == sorted([*both, 77, 99])
    assert end_tokens(tokenizer, GenerationConfig(eos_token_id=[77, 78])) == sorted([*both, 77, 78])
    assert end_tokens(tokenizer, None) == sorted(both)


def model_folder(folder: Path, name: str) -> str:
    tokenizer = build(name)
    model = build_model(tokenizer)
    model.generation_config.repetition_penalty = 1.05
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def configuration(tmp_path: Path, name: str, reward: str, **model: Any) -> RunConfig:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows(chat=KINDS[name].template is not None)))
    return from_dict(
        RunConfig,
        {
            "output": str(tmp_path / "run"),
            "model": {"path": model_folder(tmp_path / "model", name), **model},
            "data": {"train": str(file), "test_size": 4, "max_length": 96},
            "objective": {"name": "dpo"},
            "reference": {"cache": str(tmp_path / "cache")},
            "train": {"batch_size": 8, "max_steps": 1},
            "evaluation": {"max_new_tokens": 40, "samples": 20, "reward": reward},
        },
    )


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("base_eos", 0),
        ("base_eos", 2),
        pytest.param("gemma", 0, marks=pytest.mark.slow),
        pytest.param("no_eos", 0, marks=pytest.mark.slow),
    ],
)
def test_a_run_teaches_samples_and_saves_one_end(name: str, rank: int, tmp_path: Path, reward_path: str) -> None:
    tokenizer = build(name)
    run, _ = train(configuration(tmp_path, name, reward_path, lora_rank=rank))
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>" if name == "gemma" else "<|im_end|>")
    saved = json.loads((run.model / "generation_config.json").read_text())
    ends = sorted({end, tokenizer.eos_token_id} - {None})
    assert saved["eos_token_id"] == ends and saved["repetition_penalty"] == 1.05
    assert run.facts()["train_tokenization"]["ends"] == [end]
    if not rank:
        reloaded = LlamaForCausalLM.from_pretrained(run.model).generation_config
        assert (reloaded.eos_token_id, reloaded.repetition_penalty) == (ends, 1.05)
    metrics = evaluate_run(run.path)
    assert metrics["sampling"]["ends"] == ends
    assert metrics["sampling"]["drawn"] == "temperature 1 from all tokens"
    assert metrics["sampling"]["own_settings"] == {"repetition_penalty": 1.05}
    responses = Generations.load(run.evaluation / "generations.parquet").responses
    ended = zip(responses.field("tokens"), responses.field("finished"), strict=True)
    short = [finished for tokens, finished in ended if tokens < 40]
    assert short and all(short)
    assert not any(token in text for token in ("<end_of_turn>", "<|im_end|>") for text in responses.texts)


def test_samples_stop_at_the_end_of_turn_and_texts_lack_it() -> None:
    """A model that writes <|im_end|> every other time: no completion goes on after it, though it is not EOS."""
    tokenizer = build("base_eos")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model = build_model(tokenizer)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    texts = sample(model, tokenizer, Ragged.of([[30, 31]]), Sampling(samples=400, max_new_tokens=60, batch_size=400))
    stopped = [one for one in texts if end in one.tokens]
    assert len(stopped) > 20
    for one in stopped:
        assert one.finished and one.tokens.tolist().index(end) == len(one.tokens) - 1
        assert one.text == tokenizer.decode(one.tokens[:-1], skip_special_tokens=True).strip()


def test_a_tokenizer_without_padding_gets_one_and_without_any_a_sentence(tmp_path: Path) -> None:
    for name, expected in (("no_template", "<|endoftext|>"), ("alternating", "</s>"), ("no_eos", "<|endoftext|>")):
        build(name).save_pretrained(tmp_path / name)
        assert load_tokenizer(str(tmp_path / name)).pad_token == expected
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}))).save_pretrained(tmp_path / "bare")
    with pytest.raises(RunError, match=r"bare' has no padding token, no EOS .* In its tok"):
        load_tokenizer(str(tmp_path / "bare"))


def test_text_without_eos_is_a_sentence_before_training(tmp_path: Path, reward_path: str) -> None:
    with pytest.raises(DataError, match=r"has no EOS token, .* Remedy: set eos_token in tokenizer_config.json"):
        tokenize_preferences(load_preferences(rows(chat=False)), build("no_eos"))
    config = configuration(tmp_path, "no_template", reward_path)
    run, _ = train(config)
    assert run.facts()["train_tokenization"]["ends"] == [build("no_template").eos_token_id]


def test_nothing_ends_a_completion(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = build("plain")
    model = build_model(tokenizer)
    completions = sample(model, tokenizer, Ragged.of([[30]]), Sampling(samples=5, max_new_tokens=4), ends=[])
    assert all(len(one.tokens) == 4 and not one.finished for one in completions)
    assert "No token ends a completion" in caplog.text
    assert np.unique([one.tokens.tolist() for one in completions], axis=0).shape[0] > 1
