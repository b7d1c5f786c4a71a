"""popmargin label rank: the cost is known before it is paid, and everything that was asked is written."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from popmargin.cli.main import main
from popmargin.data.load import load_preferences

CODE = """
calls = []
def longer(prompts, first, second):
    with open("calls", "a") as file:
        file.write("x\\n" * len(first))
    return ["first" if len(a) > len(b) else "second" for a, b in zip(first, second)]
def place(prompts, first, second):
    return ["first"] * len(first)
def length(prompts, completions):
    return [len(text) for text in completions]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three prompts with 4, 2 and 1 different responses, and judges."""
    (tmp_path / "judges.py").write_text(CODE)
    sizes = [(3, 1, 4, 2), (5, 6), (7, 7)]
    rows = [{"prompt": f"q{n}", "responses": ["a" * size for size in of]} for n, of in enumerate(sizes)]
    (tmp_path / "responses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rank(*words: str) -> int:
    return main(["label", "rank", "responses.jsonl", "--judge", "judges.py:longer", "--out", "pairs.parquet", *words])


def test_calls_and_cost_are_told_before_the_first_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """champion: 4·4 − 6 + 2 calls, and 2 for best against worst of the first prompt."""
    assert rank("--dry-run", "--price", "0.01") == 0
    out = capsys.readouterr().out
    assert "3 in = 2 ranked + 1 left out (fewer than two different responses: 1)" in out
    assert "6 responses, 6 comparisons, 12 calls; with best against worst at most 14, which cost 0.14" in out
    assert not (folder / "calls").exists() and not (folder / "pairs.parquet").exists()
    assert rank() == 0
    out = capsys.readouterr().out
    assert out.index("at most 14") < out.index("ties:")
    assert (folder / "calls").read_text().count("x") <= 14
    preferences = load_preferences("pairs.parquet")
    assert [(len(preferences[n]["chosen"]), len(preferences[n]["rejected"])) for n in range(2)] == [(4, 1), (6, 5)]
    assert preferences.column("calls").sum() == (folder / "calls").read_text().count("x")
    assert "the longer response is chosen in 100.0%" in out and "named in 50.0%" in out
    rows = pq.read_table(folder / "pairs.comparisons.parquet").to_pylist()
    assert {row["prompt"] for row in rows} == {"q0", "q1"} and all(row["fate"] == "kept" for row in rows)


def test_a_limit_leaves_prompts_out_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rank("--limit", "13", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["pairs"] == 1 and report["prompts"]["left_out"]["beyond the limit of calls"] == 1
    assert (folder / "calls").read_text().count("x") == report["calls"] <= 12
    words = ["label", "rank", "responses.jsonl", "--judge", "judges.py:length", "--out", "other.jsonl"]
    assert main([*words, "--limit", "5"]) == 2
    assert "is a reward" in capsys.readouterr().err
    assert main([*words, "--comparisons", "all.jsonl"]) == 0
    assert "6 responses, 6 comparisons, 6 calls" in capsys.readouterr().out
    assert len((folder / "all.jsonl").read_text().splitlines()) >= 6


def test_where_nothing_would_be_ranked_nothing_is_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rank("--limit", "3") == 2
    assert "--limit 3 is too low for the calls of any prompt: 3 in = 0 ranked" in capsys.readouterr().err
    (folder / "responses.jsonl").write_text(json.dumps({"prompt": "q", "responses": ["a", "a"]}) + "\n")
    assert rank() == 2
    assert "responses.jsonl: there is nothing to rank: 1 in = 0 ranked + 1 left out" in capsys.readouterr().err
    assert not (folder / "calls").exists() and not list(folder.glob("pairs*"))


def test_where_nothing_is_kept_the_comparisons_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["label", "rank", "responses.jsonl", "--judge", "judges.py:place", "--out", "pairs.jsonl"]
    assert main(words) == 2
    streams = capsys.readouterr()
    assert "best and worst won the same share: 2" in streams.err and "ties: 100.0%" in streams.out
    assert not (folder / "pairs.jsonl").exists() and (folder / "pairs.comparisons.jsonl").exists()
    assert rank("--comparisons", "pairs.parquet") == 2
    assert "Name two files" in capsys.readouterr().err
