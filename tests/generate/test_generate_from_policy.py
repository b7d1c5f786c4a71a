"""Responses of a policy: exact samples with their ids, the same after any interruption."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from popmargin.data.read_prompts import Prompts, load_prompts
from popmargin.errors import ConfigError, RunError
from popmargin.generate import from_policy
from popmargin.generate.from_policy import model_responses
from popmargin.generate.produced import Produced
from popmargin.generate.sample import Sampler, Sampling

PROMPTS = load_prompts([{"prompt": f"the sky is {'very ' * i}", "topic": i, "source": "book"} for i in range(5)])
CHAT = PROMPTS.as_chat()


def made(model: Any, tokenizer: Any, prompts: Prompts = PROMPTS, **options: Any) -> Produced:
    more = {name: options.pop(name) for name in ("part", "round", "max_prompt_tokens") if name in options}
    sampling = Sampling(**{"samples": 2, "max_new_tokens": 9, "batch_size": 3, **options})
    return model_responses(prompts, model, tokenizer, sampling, source="mine", **more)


@pytest.mark.parametrize("prompts", [PROMPTS, CHAT])
def test_what_is_known_of_every_response(tiny_model: Any, tiny_tokenizer: Any, prompts: Prompts) -> None:
    with torch.no_grad():  # some responses end, others are cut
        tiny_model.lm_head.weight[tiny_tokenizer.eos_token_id] = tiny_model.lm_head.weight.mean(0) * 3
    produced = made(tiny_model, tiny_tokenizer, prompts, samples=8, round=2)
    responses, end = produced.responses, tiny_tokenizer.eos_token_id
    assert (len(responses), len(responses.texts), produced.new) == (5, 40, 40)
    assert set(responses.field("finished")) == {True, False}
    for text, ids, tokens, finished in zip(
        responses.texts, *(responses.field(name) for name in ("token_ids", "tokens", "finished")), strict=True
    ):
        assert len(ids) == tokens and (ids[-1] == end) == finished == (end in ids)
        assert finished or tokens == 9
        assert text == tiny_tokenizer.decode(ids, skip_special_tokens=True)  # white space included
    assert responses.field("source") == ["mine"] * 40 and responses.field("round") == [2] * 40
    assert responses.column("topic") == [0, 1, 2, 3, 4] and responses.column("prompt_source") == ["book"] * 5
    assert produced.new_tokens == sum(responses.field("tokens"))
    assert f"cut at the token limit: {responses.field('finished').count(False)} of 40" in "\n".join(produced.lines())


def test_batch_sizes_and_other_prompts_change_nothing(tiny_model: Any, tiny_tokenizer: Any) -> None:
    everything = made(tiny_model, tiny_tokenizer).responses
    assert list(made(tiny_model, tiny_tokenizer, batch_size=1).responses) == list(everything)
    fewer = made(tiny_model, tiny_tokenizer, PROMPTS.first(2), batch_size=64).responses
    assert list(fewer) == list(everything.select([0, 1]))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("batches", [0, 1, 3])
def test_what_was_finished_is_kept_and_the_rest_is_the_same(
    tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    """Killed in a batch, with a line half written: the file is that of a call that was never interrupted."""
    whole = made(tiny_model, tiny_tokenizer).responses
    whole.save(tmp_path / "whole.parquet")
    part, calls = tmp_path / "out.part", list[int]()

    class Fragile(Sampler):
        def draw(self, places: Any) -> Any:
            calls.append(len(places))
            if len(calls) > batches:
                raise Killed
            return super().draw(places)

    monkeypatch.setattr(from_policy, "Sampler", Fragile)
    with pytest.raises(Killed):
        made(tiny_model, tiny_tokenizer, part=part)
    with part.open("ab") as file:
        file.write(b'{"prompt": 4, "numb')
    monkeypatch.undo()
    assert len(part.read_text().splitlines()) == 1 + 3 * batches + 1
    produced = made(tiny_model, tiny_tokenizer, part=part)
    assert produced.new == 10 - 3 * batches
    produced.responses.save(tmp_path / "resumed.parquet")
    assert (tmp_path / "resumed.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert made(tiny_model, tiny_tokenizer, part=part).new == 0


def test_a_batch_of_which_a_part_was_kept_is_completed(tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    part = tmp_path / "out.part"
    whole = made(tiny_model, tiny_tokenizer, part=part).responses
    lines = part.read_text().splitlines(keepends=True)
    part.write_text("".join(lines[:2] + lines[5:7]))
    assert list(made(tiny_model, tiny_tokenizer, part=part).responses) == list(whole)


def test_a_part_file_of_something_else_is_refused(
    tiny_model: Any, tiny_tokenizer: Any, make_model: Any, tmp_path: Path
) -> None:
    part = tmp_path / "out.part"
    made(tiny_model, tiny_tokenizer, part=part)
    for model, prompts, options, words in (
        (tiny_model, PROMPTS, {"temperature": 0.5}, r"begun with temperature 1\.0 \(now 0\.5\)"),
        (tiny_model, PROMPTS, {"seed": 3, "top_p": 0.5}, r"begun with seed 0 \(now 3\), top_p 1\.0 \(now 0\.5\)"),
        (make_model(seed=4), PROMPTS, {}, "begun with model"),
        (tiny_model, PROMPTS.first(3), {}, "begun with prompts"),
    ):
        with pytest.raises(RunError, match=words):
            made(model, tiny_tokenizer, prompts, part=part, **options)
    assert made(tiny_model, tiny_tokenizer, part=part, batch_size=1).new == 0
    for text in ("my notes\n", "my notes", json.dumps({"prompt": 0, "number": 1}) + "\n"):
        part.write_text(text)
        with pytest.raises(RunError, match=r"holds something else|not what popmargin generate writes"):
            made(tiny_model, tiny_tokenizer, part=part)
        assert part.read_text() == text


def test_long_prompts_are_cut_where_asked_and_refused_else(tiny_model: Any, tiny_tokenizer: Any) -> None:
    long = load_prompts([{"prompt": "rain " * 300}, {"prompt": "hi"}])
    with pytest.raises(ConfigError, match=r"too long for the model: .*--max-prompt-tokens"):
        tiny_model.config.max_position_embeddings = 64
        tiny_model.model.rotary_emb.register_forward_hook(_refuse_positions)
        made(tiny_model, tiny_tokenizer, long)
    produced = made(tiny_model, tiny_tokenizer, long, max_prompt_tokens=20)
    assert produced.responses.column("prompt_tokens") == [20, len(tiny_tokenizer("hi")["input_ids"])]
    assert "prompts cut to their last 20 tokens: 1 of 2" in produced.lines()


def _refuse_positions(module: Any, inputs: Any, output: Any) -> None:
    if inputs[0].shape[1] > 64:
        raise IndexError("no such position")


def test_a_text_continues_its_prompt(tiny_tokenizer: Any) -> None:
    before = np.array(tiny_tokenizer("the sky")["input_ids"])
    tokens = np.array([*tiny_tokenizer(" is blue")["input_ids"], tiny_tokenizer.eos_token_id])
    text = from_policy.sampled_text(tiny_tokenizer, "the sky", before, tokens, [tiny_tokenizer.eos_token_id])
    assert text == " is blue"
