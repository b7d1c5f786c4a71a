"""`popmargin eval --model MODEL --data FILE`."""

import json
from pathlib import Path

import pytest

from popmargin.cli.eval_benchmark import LAYOUT_NAMES
from popmargin.cli.main import main
from popmargin.evaluation.benchmarks.layouts import LAYOUTS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "length_reward.py").write_text(
        "def longer(prompts, completions):\n    return [float(len(text)) for text in completions]\n"
        "def shorter(prompts, completions):\n    return [-float(len(text)) for text in completions]\n"
    )
    rows = [{"prompt": f"p{n}", "chosen": "x" * (2 + n % 3), "rejected": "xxx", "id": n} for n in range(9)]
    rows[0]["chosen"] = "xxx"
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_result_page_and_difference(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--data", "pairs.jsonl", "--model"]
    assert main([*words, "length_reward.py:longer", "--out", "longer.json", "--report", "page.html"]) == 0
    told = capsys.readouterr().out
    assert "9 rows in = 5 asked + 4 left out (identical: 4)" in told and "wrote page.html" in told
    stored = json.loads((folder / "longer.json").read_text())
    assert stored["rows"] == {"in": 9, "questions": 5, "left_out": {"identical": 4}}
    assert [row["scores"] for row in stored["questions"]][:2] == [[4.0, 3.0], [2.0, 3.0]]
    assert "length_reward.py:longer on pairs.jsonl" in (folder / "page.html").read_text()
    assert main([*words, "length_reward.py:shorter", "--against", "longer.json", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    accuracy = found["results"]["accuracy"]["estimate"]
    assert found["against"]["model"] == "length_reward.py:longer"
    assert found["against"]["differences"]["accuracy"]["estimate"] == pytest.approx(2 * accuracy - 1)


def test_the_help_names_every_layout() -> None:
    assert list(LAYOUT_NAMES) == list(LAYOUTS)


def test_a_broken_line_of_preferences_is_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "pairs.jsonl").open("a") as file:
        file.write("{broken\n")
    assert main(["eval", "--data", "pairs.jsonl", "--model", "length_reward.py:longer"]) == 0
    assert "10 rows in = 5 asked + 5 left out (identical: 4; bad_json: 1)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "Give RUN, a run directory; or --model MODEL and --data FILE"),
        (["--model", "m.py:f"], "Give RUN"),
        (["runs/x", "--data", "pairs.jsonl"], "--data is for a model without a run"),
        (["runs/x", "--per-token"], "--per-token is for a model without a run"),
        (["runs/x", "--as", "policy"], "--as is for a model without a run"),
        (["--model", "length_reward.py:longer", "--data", "pairs.jsonl", "--goals", "1"], "--goals and fields"),
        (["--model", "length_reward.py:longer", "--data", "pairs.jsonl", "--per-token"], "--per-token is for policies"),
        (["--model", "length_reward.py:longer", "--data", "pairs.jsonl", "--out", "x.txt"], "--out|x.txt"),
        (["--model", "length_reward.py:longer", "--data", "pairs.jsonl", "--out", "pairs.jsonl"], "pairs.jsonl"),
        (["--model", "length_reward.py:longer", "--data", "missing.jsonl"], "missing.jsonl: no such file"),
        (["--model", "length_reward.py:longer", "--data", "pairs.jsonl", "--options", "[1"], "--options is not YAML"),
        (["--model", "length_reward.py:longer", "--data", "pairs.jsonl", "--against", "pairs.jsonl"], "pairs.jsonl"),
        (["--model", "length_reward.py:longer", "--data", "pairs.jsonl", "--layout", "rmbench"], "mean 'rm_bench'"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_a_sentence(
    words: list[str], told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *words]) != 0
    error = capsys.readouterr().err
    assert any(part in error for part in told.split("|")) and "Traceback" not in error
    assert not (folder / "x.txt").exists()
