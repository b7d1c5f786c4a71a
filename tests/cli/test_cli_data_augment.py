"""popmargin data augment: what is written, what is said, and what is refused."""

import json
from pathlib import Path

import pytest

from popmargin.cli.main import main
from popmargin.data.goals import goal_facts
from popmargin.data.load import load_preferences


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Three pairs on a scale from 0 to 4 with scores of two attributes; one is a tie by its ratings."""
    ratings = ((4, 1), (3, 0), (2, 2))
    rows = [
        {"prompt": f"q{n}", "chosen": "good", "rejected": "bad", "chosen_rating": high, "rejected_rating": low,
         "chosen_help": 8, "rejected_help": 3, "chosen_style": 6 - n, "rejected_style": 5}
        for n, (high, low) in enumerate(ratings)
    ]  # fmt: skip
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_goals_are_written_and_what_was_done_is_said(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "goals.parquet"
    words = ["data", "augment", data, "--out", str(out), "--bad-rows", "drop"]
    assert main([*words, "--scale", "0:4"]) == 0
    said = capsys.readouterr().out
    assert "goals: 3 in = 2 augmented, in 4 rows + 1 left out (ties, both goals printed alike: 1)" in said
    assert "Overall score: goals of chosen 8 to 10, of rejected 1 to 3.5: a switch" in said
    assert "chosen 10, rejected 3: 1" in said and "scores from 0 … 4 mapped to it in steps of 0.5" in said
    assert "wrote 4 preferences" in said and "the goal stands before the prompt" in said
    rows = load_preferences(out)
    assert rows.column("goal_scores").ravel().tolist() == [10.0, 3.5, 8.0, 1.0]
    assert main([*words, "--scale", "0:4"]) == 2  # the file exists
    assert main([*words, "--overwrite", "--half", "--quantiles"]) == 0
    assert len(load_preferences(out)) == 2
    assert main(["data", "augment", str(out), "--out", str(tmp_path / "twice.jsonl")]) == 2
    assert "augmented already" in capsys.readouterr().err


def test_several_scores_and_another_place(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "goals.jsonl"
    words = ["data", "augment", data, "--out", str(out), "--bad-rows", "drop"]
    assert main([*words, "--score", "Helpfulness=help", "--score", "Style=style", "--place", "user"]) == 0
    facts = goal_facts(load_preferences(out))
    assert facts is not None and (facts.attributes, facts.place) == (("Helpfulness", "Style"), "user")
    assert facts.best == (8.0, 6.0)
    assert main([*words, "--overwrite", "--score", "helpful"]) == 2
    assert "no columns chosen_helpful and rejected_helpful" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*words, "--scale", "4"])
    assert "is not MIN:MAX" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*words, "--scale", "5:0"])
    assert "the smaller end comes first" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--score", "Style=help", "--score", "Style=style"]) == 2
    assert "--score Style is given twice" in capsys.readouterr().err


def test_the_place_is_read_from_a_model(
    data: str, tmp_path: Path, model_path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tiny model's template has a system role; of plain texts the goal stands before the prompt all the same."""
    out = str(tmp_path / "goals.jsonl")
    words = ["data", "augment", data, "--out", out, "--bad-rows", "drop", "--scale", "0:4", "--model", model_path]
    assert main(words) == 0
    facts = goal_facts(load_preferences(out))
    assert facts is not None and facts.place == "system"
