"""Responses from a file: matched by content, of several models, and what is not there."""

import json
from pathlib import Path
from typing import Any

import pytest

from popmargin.cli.main import main
from popmargin.data.read_prompts import load_prompts
from popmargin.data.responses import Responses
from popmargin.errors import DataError
from popmargin.generate.from_file import file_responses

PROMPTS = load_prompts([{"prompt": "p", "topic": 1}, {"prompt": "q", "topic": 2}])


def outputs(model: str, prompts: str = "pq", **more: Any) -> list[dict[str, Any]]:
    return [{"instruction": prompt, "output": f"{model} {prompt}", "generator": model, **more} for prompt in prompts]


def test_the_outputs_of_several_models_are_responses_to_each_prompt(tmp_path: Path) -> None:
    for model in ("one", "two"):
        (tmp_path / f"{model}.json").write_text(json.dumps(outputs(model, dataset="set")))
    made = file_responses(PROMPTS, f"{tmp_path}/one.json,{tmp_path}/two.json", round=1).responses
    assert made.texts == ["one p", "two p", "one q", "two q"] and made.field("round") == [1] * 4
    assert made.field("source") == ["one", "two"] * 2 and made.column("topic") == [1, 2]
    assert made.column("dataset") == ["set"] * 2
    first = file_responses(PROMPTS.first(1), f"{tmp_path}/one.json,{tmp_path}/two.json", samples=1, source="me")
    assert first.responses.texts == ["one p"] and first.responses.field("source") == ["me"]
    out = "3 left out (to prompts that were not asked for: 2, beyond 1 to a prompt: 1)"
    assert first.notes == (
        f"the responses of the file: 4 in = 1 taken + {out}",
        "prompts of the file that were not asked for: 1",
    )


def test_a_text_and_a_users_message_are_one_prompt() -> None:
    chat = PROMPTS.as_chat()
    made = file_responses(chat, outputs("m")).responses
    assert made.prompts == chat.prompts and made.texts == ["m p", "m q"]
    rows = [{"prompt": prompt, "responses": [{"text": "a", "token_ids": [1, 2]}]} for prompt in chat.prompts]
    assert file_responses(PROMPTS, rows).responses.field("token_ids") == [[1, 2]] * 2


def test_prompts_without_responses_are_told() -> None:
    with pytest.raises(DataError, match=r"the answers: 1 of 2 prompts have fewer than 1 responses there \('q'\)"):
        file_responses(PROMPTS, outputs("m", "p"))
    with pytest.raises(DataError, match="2 of 2 prompts have fewer than 2"):
        file_responses(PROMPTS, outputs("m"), samples=2)
    made = file_responses(PROMPTS, outputs("m", "p"), missing="keep")
    assert made.responses.counts.tolist() == [1, 0]
    assert "missing responses (prompts with fewer than 1 responses in the file): 1" in made.lines()


def test_the_command_refuses_flags_of_other_producers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("outputs.json").write_text(json.dumps(outputs("m")))
    words = ["generate", "outputs.json", "--out", "r.parquet"]
    for more, said in (
        ([], "Say where the responses come from"),
        (["--model", "demo", "--answers", "outputs.json"], "one of them"),
        (["--answers", "outputs.json", "--temperature", "0.5"], "--temperature has no effect: --answers takes"),
        (["--model", "demo", "--workers", "3"], "--workers has no effect: without --server"),
        (["--model", "m", "--server", "http://x", "--batch-size", "3"], "--batch-size has no effect: --server samples"),
        (["--model", "demo", "--generation-config", "model", "--top-p", "0.5"], "--top-p has no effect"),
        (["--server", "http://x"], "--server URL with --model NAME"),
    ):
        assert main([*words, *more]) == 2
        assert said in capsys.readouterr().err and not Path("r.parquet").exists()
    assert main([*words, "--answers", "outputs.json"]) == 0
    assert Responses.load("r.parquet").texts == ["m p", "m q"]
