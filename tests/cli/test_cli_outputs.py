"""No verb writes over a file unasked, onto what it reads, or another format than the name says."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from popmargin.cli.main import main
from popmargin.pop.edges import PopEdges

Words = Callable[[Path], list[str]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    texts = [{"prompt": f"Question {i}?", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(12)]
    rows = [{"id": f"q{i}", "strength": i % 5, **row} for i, row in enumerate(texts)]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def verbs(tmp_path: Path, data: Path) -> dict[str, tuple[str, Words]]:
    """Verb -> a suffix that it may write, and its words for a file to write."""
    edges, db, rewards = tmp_path / "some-edges.parquet", tmp_path / "labels.db", tmp_path / "rewards.py"
    PopEdges.from_columns(["q1", "q2", "q3"], ["q0", "q1", "q2"]).save(edges)
    scored = tmp_path / "scored.jsonl"
    scored.write_text('{"prompt": "p", "responses": [{"text": "a", "reward": 1.0}, {"text": "b", "reward": 2.0}]}\n')
    rewards.write_text("def score(prompts, completions):\n    return [float(c[0] == 'g') for c in completions]\n")
    assert main(["label", "import", str(data), "--db", str(db)]) == 0
    ranked = tmp_path / "responses.jsonl"
    ranked.write_text("".join(json.dumps({"prompt": f"q{i}", "responses": ["good", "bad"]}) + "\n" for i in range(3)))
    rated = str(tmp_path / "rated.jsonl")
    row = {"prompt": "q", "chosen": "good", "rejected": "bad", "chosen_rating": 9, "rejected_rating": 2}
    Path(rated).write_text(json.dumps(row) + "\n")
    given, reward = str(data), f"{rewards}:score"
    return {
        "convert": (".jsonl", lambda out: ["data", "convert", given, str(out)]),
        "split train": (
            ".parquet",
            lambda out: ["data", "split", given, "--train", str(out), "--test", f"{tmp_path}/b.jsonl"],
        ),
        "split test": (
            ".jsonl.gz",
            lambda out: ["data", "split", given, "--train", f"{tmp_path}/a.jsonl", "--test", str(out)],
        ),
        "rate": (".jsonl", lambda out: ["data", "rate", given, "--reward", reward, "--out", str(out)]),
        "augment": (".parquet", lambda out: ["data", "augment", rated, "--out", str(out)]),
        "rate responses": (
            ".parquet",
            lambda out: ["data", "rate", str(scored), "--reward", reward, "--out", str(out)],
        ),
        "pairs": (".jsonl", lambda out: ["data", "pairs", str(scored), "--out", str(out)]),
        "generate": (".parquet", lambda out: ["generate", str(scored), "--answers", str(scored), "--out", str(out)]),
        "sample": (".parquet", lambda out: ["pop", "sample", given, "--out", str(out)]),
        "scale": (".parquet", lambda out: ["pop", "scale", str(edges), "--data", given, "--out", str(out)]),
        "scaled": (
            ".jsonl",
            lambda out: ["pop", "scale", str(edges), "--data", given, "--out", f"{tmp_path}/s.parquet",
                         "--preferences-out", str(out)],
        ),
        "ask": (".parquet", lambda out: ["pop", "ask", "--data", given, "--n", "3", "--out", str(out)]),
        "labels": (".jsonl", lambda out: ["label", "export", "--db", str(db), "--as", "labels", "--out", str(out)]),
        "preferences": (
            ".parquet",
            lambda out: ["label", "export", "--db", str(db), "--as", "preferences", "--out", str(out)],
        ),
        "rank": (".jsonl", lambda out: ["label", "rank", str(ranked), "--judge", reward, "--out", str(out)]),
        "label report": (".html", lambda out: ["label", "report", "--db", str(db), "--out", str(out)]),
        "report": (".html", lambda out: ["report", str(tmp_path / "no-run"), "--out", str(out)]),
    }  # fmt: skip


def said(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    capsys.readouterr()
    assert main(words) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_every_verb_that_writes_asks_before(
    tmp_path: Path, data: Path, verbs: dict[str, tuple[str, Words]], capsys: pytest.CaptureFixture[str]
) -> None:
    for verb, (suffix, words) in verbs.items():
        out = tmp_path / f"thesis{suffix}"
        out.write_bytes(b"mine")
        assert f"{out} already exists" in said(capsys, words(out)), verb
        assert out.read_bytes() == b"mine", verb
        wrong = tmp_path / "thesis.txt"
        assert "this is written as" in said(capsys, words(wrong)) and not wrong.exists(), verb
        assert "this is written as" in said(capsys, words(tmp_path / "thesis")), verb
        if verb != "report":  # there is no run
            assert main([*words(out), "--overwrite"]) == 0, verb
            assert out.read_bytes() != b"mine", verb
        out.unlink()
        for other in ("b.jsonl", "a.jsonl", "s.parquet"):
            (tmp_path / other).unlink(missing_ok=True)


@pytest.mark.parametrize("link", [False, True])
def test_what_is_read_is_never_written_over(
    tmp_path: Path, data: Path, verbs: dict[str, tuple[str, Words]], capsys: pytest.CaptureFixture[str], link: bool
) -> None:
    """By whatever name, and with --overwrite too."""
    place = data
    if link:
        place = tmp_path / "alias.jsonl"
        place.symlink_to(data)
    before = data.read_bytes()
    for verb in ("convert", "rate", "scaled"):
        assert "is also the input" in said(capsys, [*verbs[verb][1](place), "--overwrite"]), verb
    assert data.read_bytes() == before
    edges = tmp_path / "some-edges.parquet"
    assert "is also the input" in said(capsys, [*verbs["scale"][1](edges), "--overwrite"])
    assert len(PopEdges.load(edges)) == 3


def test_two_outputs_are_two_files(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "x.jsonl")
    assert "--train and --test are both" in said(capsys, ["data", "split", str(data), "--train", out, "--test", out])
    assert not Path(out).exists()


def test_objects_are_saved_in_the_format_of_the_name(tmp_path: Path) -> None:
    edges = PopEdges.from_columns(["a"], ["b"])
    with pytest.raises(ValueError, match=r"edges\.csv: this is written as \.parquet"):
        edges.save(tmp_path / "edges.csv")
    edges.save(tmp_path / "edges.parquet")
    edges.save(tmp_path / "edges.parquet")  # a program knows what it does
