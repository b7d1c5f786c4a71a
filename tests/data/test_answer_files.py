"""Responses as other tools' files of answers."""

import json
from pathlib import Path

import pytest

from popmargin.cli.main import main
from popmargin.data.answer_files import ANSWER_FILES, answer_rows
from popmargin.data.responses import Responses
from popmargin.errors import DataError


def test_alpaca_eval_reads_them_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Responses(
        [[{"role": "user", "content": "2+2?"}], [{"role": "user", "content": "Say “hi”."}]],
        [["4", "5"], ["hi", "no"]],
        {"reward": [[1.0, 0.0], [0.0, 3.0]]},
        columns={"dataset": ["koala", "vicuna"]},
    )
    source.save(tmp_path / "responses.parquet")
    words = ["data", "export", str(tmp_path / "responses.parquet"), "--as", "alpaca_eval", "--name", "mine"]
    assert main([*words, "--out", str(tmp_path / "out.json")]) == 2
    assert "With several responses: 2 prompts" in capsys.readouterr().err
    assert main([*words, "--best", "reward", "--out", str(tmp_path / "out.json")]) == 0
    assert "4 responses in = 2 written + 2 left out (not the best by reward: 2)" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text()) == [
        {"dataset": "koala", "instruction": "2+2?", "output": "4", "generator": "mine"},
        {"dataset": "vicuna", "instruction": "Say “hi”.", "output": "no", "generator": "mine"},
    ]
    again = Responses.load(str(tmp_path / "out.json"))
    assert (again.prompts, again.texts) == (["2+2?", "Say “hi”."], ["4", "no"])


def test_answers_have_their_questions_and_all_choices() -> None:
    responses = Responses(["a", "b"], [["x", "y"], ["z"]], tokens=[[3, 4], [5]], columns={"question_id": [81, 82]})
    arena = answer_rows(responses, "arena_hard", "m")
    assert [row["question_id"] for row in arena] == [81, 82]
    assert arena[0]["choices"] == [
        {"index": 0, "turns": [{"content": "x"}]},
        {"index": 1, "turns": [{"content": "y"}]},
    ]
    assert arena[1]["conv_metadata"] == {"token_len": 5}
    bench = answer_rows(responses, "mt_bench", "m")
    assert bench[1]["choices"] == [{"index": 0, "turns": ["z"]}] and bench[1]["model_id"] == "m"
    assert len({row["answer_id"] for row in bench}) == 2
    two = [
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "and?"},
        {"role": "assistant", "content": "2"},
    ]
    talk = Responses([[{"role": "user", "content": "a"}]], [[two]], columns={"question_id": [1]})
    assert answer_rows(talk, "mt_bench", "m")[0]["choices"][0]["turns"] == ["1", "2"]


def test_what_a_layout_cannot_hold_is_refused() -> None:
    with pytest.raises(DataError, match="no column question_id"):
        answer_rows(Responses(["a"], [["x"]]), "mt_bench", "m")
    with pytest.raises(DataError, match=r"1 prompt.* row 1"):
        answer_rows(Responses(["a", "b"], [["x"], []]), "alpaca_eval", "m")
    talk = [{"role": role, "content": "a"} for role in ("user", "assistant", "user")]
    with pytest.raises(DataError, match="conversation of 3 turns"):
        answer_rows(Responses([talk], [["x"]]), "alpaca_eval", "m")
    assert set(ANSWER_FILES) == {"alpaca_eval", "arena_hard", "mt_bench"}
