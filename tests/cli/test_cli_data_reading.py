"""What `data check` shows, and how the verbs read splits, ties and several files."""

import json
from pathlib import Path

import pytest

from popmargin.cli.main import main
from popmargin.label.store.label_store import LabelStore


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_check_shows_three_rows_as_they_are_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, object]] = [
        {"system": "Be kind.", "prompt": f"q{i}\n", "chosen": " yes", "rejected": "no", "margin": i} for i in range(5)
    ]
    data = str(write(tmp_path / "x.jsonl", rows))
    assert main(["data", "check", data]) == 0
    out = capsys.readouterr().out
    assert out.count("  example ") == 3
    assert '    prompt    system: "Be kind."\n              user: "q0\\n"\n    chosen    assistant: " yes"\n' in out
    assert "(strength 4)" in out
    assert main(["data", "check", data, "--json"]) == 0
    examples = json.loads(capsys.readouterr().out)["examples"]
    assert [row["strength"] for row in examples] == [0, 2, 4] and examples[0]["prompt"][0]["role"] == "system"


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
def test_a_file_without_rows_is_said_to_have_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).write_text("prompt,chosen,rejected\n" if name == "x.csv" else "\n")
    assert main(["data", "check", str(tmp_path / name)]) == 1
    assert f"{name} has no rows\n" in capsys.readouterr().out


def test_check_against_another_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = write(tmp_path / "a.jsonl", [{"prompt": "Why?", "chosen": "yes", "rejected": "no"}])
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "why?"}]
    test = write(tmp_path / "b.jsonl", [{"turns": turns, "chosen": "yes", "rejected": "no"}])
    assert main(["data", "check", str(test), "--column", "prompt=turns", "--against", str(train)]) == 1
    assert "In 1 of 1 test row, the prompt is also in the training data" in capsys.readouterr().out


def test_ties_are_kept_for_labelling_and_left_out_of_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, object]] = [
        {"prompt": f"p{i}", "response_a": "a", "response_b": "b", "votes_a": i, "votes_b": 2} for i in range(5)
    ]
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "train-0.jsonl", rows)
    write(folder / "test-0.jsonl", rows[:1])
    db, source = tmp_path / "labels.db", f"{folder}:train"
    assert main(["label", "import", source, "--db", str(db), "--kind", "preference"]) == 0
    assert "ties are kept, with the first response as chosen (rows: 1)" in capsys.readouterr().err
    with LabelStore.open(str(db)) as store:
        assert store.project(None).preferences == 5
    assert main(["pop", "sample", str(folder), "--split", "train", "--out", str(tmp_path / "edges.parquet")]) == 0
    assert "4 of 5 rows used" in capsys.readouterr().err


def test_a_rating_project_asks_about_every_response(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of four rated responses a prompt, two of them alike, and also when the same command is repeated."""
    rows = [
        {"prompt": f"p{i}", "responses": [{"text": f"{n}", "rating": min(n, 2)} for n in range(4)]} for i in range(3)
    ]
    file, db = tmp_path / "stories.jsonl", str(tmp_path / "labels.db")
    write(file, rows)
    for words in (["--kind", "rating"], []):
        assert main(["label", "import", str(file), "--db", db, *words]) == 0
    assert "12 items of kind 'rating'" in capsys.readouterr().out
    assert main(["label", "import", str(file), "--db", db, "--project", "few", "--kind", "rating",
                 "--pairs", "best_vs_worst"]) == 0  # fmt: skip
    assert "6 items of kind 'rating'" in capsys.readouterr().out
    assert main(["label", "import", str(file), "--db", db, "--project", "pairs", "--kind", "preference"]) == 0
    assert "3 items of kind 'preference'" in capsys.readouterr().out


def test_a_bad_row_is_told_and_does_not_end_an_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, object]] = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(5)]
    rows[2] = {"prompt": "p2", "chosen": "a", "rejected": "a"}
    file, db = tmp_path / "data.jsonl", tmp_path / "labels.db"
    write(file, rows)
    command = ["label", "import", str(file), "--db", str(db)]
    assert main(command) == 2 and not db.exists()
    assert "bad_rows='drop' (--bad-rows drop" in capsys.readouterr().err
    assert main([*command, "--bad-rows", "drop"]) == 0
    said = capsys.readouterr().err
    assert "4 of 5 rows used" in said and "data.jsonl:3, column 'rejected': chosen and rejected are the same" in said
