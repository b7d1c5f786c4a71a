"""popmargin label, from preferences to a store and out again."""

import json
from pathlib import Path

import pytest

from popmargin.cli.main import main
from popmargin.data.load import load_preferences
from popmargin.label.store.label_store import LabelStore
from popmargin.pop.edges import PopEdges


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {"id": f"q{i}", "prompt": f"Question {i}?", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(12)
    ]  # fmt: skip
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def db(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> str:
    url = str(tmp_path / "labels.db")
    assert main(["label", "import", str(data), "--db", url, "--k", "2", "--overlap", "2"]) == 0
    assert "12 preferences, 24 items of kind 'pop'" in capsys.readouterr().out
    return url


def test_people_are_added_named_and_sent_away(db: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["label", "annotators", "add", "Ann", "Bob", "--db", db]) == 0
    tokens = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert main(["label", "annotators", "token", "Bob", "--db", db]) == 0
    fresh = capsys.readouterr().out.split()[1]
    assert main(["label", "annotators", "deactivate", "Ann", "--db", db]) == 0
    assert main(["label", "annotators", "list", "--db", db]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["Ann\tperson\tnot active", "Bob\tperson\tactive"]
    with LabelStore.open(db) as store:
        assert [store.annotator_of(token) is None for token in (tokens["Ann"], tokens["Bob"], fresh)] == [1, 1, 0]
    assert main(["label", "annotators", "token", "Ann", "--db", db]) == 0
    assert "Ann is not active, so the link opens nothing before: popmargin label" in capsys.readouterr().err
    assert main(["label", "annotators", "activate", "Ann", "--db", db]) == 0
    assert capsys.readouterr().out == "Ann is active\n"
    assert main(["label", "annotators", "token", "Rob", "--db", db]) == 2
    assert "Did you mean 'Bob'" in capsys.readouterr().err


def test_labels_are_exported_in_every_form(
    db: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LabelStore.open(db) as store:
        who, _ = store.add_annotator(store.project("default").id, "Ann")
        for verdict in ("first", "tie", "unsure"):
            now = store.next_assignment(who.id)
            assert now is not None
            store.record(who.id, now.id, verdict, request=verdict)  # pyright: ignore[reportArgumentType]
    assert main(["label", "status", "--db", db]) == 0
    assert "default: 3 of 48 labels (6%), 24 items" in capsys.readouterr().out
    assert main(["label", "status", "--db", db, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["annotators"][0]["own_done"] == 3

    def export(name: str, *words: str) -> str:
        assert main(["label", "export", "--db", db, "--out", str(tmp_path / name), *words]) == 0
        return capsys.readouterr().out

    assert "3 labels = 2 used + 1 left out" in export("edges.parquet")
    edges = PopEdges.load(tmp_path / "edges.parquet")
    edges.resolve([f"q{i}" for i in range(12)])
    assert edges.table["tie"].to_pylist() == [False, True]
    assert "2 edges" in export("majority.parquet", "--aggregate", "majority")
    export("preferences.jsonl", "--as", "preferences")
    export("folder")
    for name in ("preferences.jsonl", "folder"):
        assert load_preferences(str(tmp_path / name)).fingerprint() == load_preferences(str(data)).fingerprint()
    assert "3 labels" in export("labels.jsonl")
    assert "3 revisions" in export("history.jsonl", "--as", "history")
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 3


def test_importing_again_uses_the_project(db: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--k", "2", "--overlap", "2", "--kind", "pop", "--seed", "0", "--lease-minutes", "30"]):
        assert main(["label", "import", str(data), "--db", db, *words]) == 0
        said = capsys.readouterr().out
        assert "already exists and is unchanged: 24 items of kind 'pop' from 12 preferences, overlap 2" in said
        assert f"annotators add NAME --db {db} --project default" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--kind", "rating", "--scale", "7"],
            "has items of kind 'pop'; put items of kind 'rating' in a separate project",
        ),
        (["--overlap", "3"], "overlap 2, not 3. A project keeps its original settings"),
        (["--scale", "7"], "scale None, not 7"),
        (["--seed", "1", "--lease-minutes", "5"], "lease_seconds 1800, not 300"),
        (["--repeat-share", "0.5"], "repeat_share 0.0, not 0.5"),
        (["--guidelines", "guide.md"], "has other guidelines"),
        (["--k", "3"], "has different items than these pairs, k, edges and gold would give"),
        (["--pairs-of-pairs", "iterative"], "has different items"),
    ],
)
def test_an_existing_project_refuses_other_settings(
    db: str,
    data: Path,
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("guide.md").write_text("Look twice.", encoding="utf-8")
    assert main(["label", "import", str(data), "--db", db, *words]) == 2
    assert message in capsys.readouterr().err
    assert main(["label", "import", str(data), "--db", db, *words, "--project", "two"]) == (
        2 if "--scale" in words[:1] else 0
    )


def test_what_does_not_go_together_is_refused(
    db: str, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "x.parquet")
    for words, message in (
        (["--db", str(tmp_path / "none.db"), "--out", out], "no such label store"),
        (["--db", db, "--out", str(tmp_path / "x.txt")], "Choose --as"),
        (["--db", db, "--out", out, "--project", "defaults"], "Did you mean 'default'"),
        (["--db", db, "--out", out, "--strengths", out], "is only for preferences"),
        (
            ["--db", db, "--out", out, "--as", "preferences", "--votes", "whole"],
            "of kind 'preference', of which project",
        ),
        (["--db", db, "--out", out, "--as", "preferences", "--unrated", "drop"], "of kind 'rating', of which project"),
        (["--db", db, "--out", out, "--votes", "whole"], "--votes is only for preferences, not edges"),
        (["--db", db, "--out", out, "--as", "preferences", "--strengths", "none"], "no such file. Fit strengths with"),
        (["--db", db, "--out", out, "--as", "labels", "--wrong", "keep"], "which are exported unchanged"),
        (["--db", db, "--out", out, "--as", "labels", "--aggregate", "majority"], "is only for edges"),
        (["--db", db, "--out", str(tmp_path / "x.txt"), "--as", "labels"], "The name must end"),
    ):
        assert main(["label", "export", *words]) == 2
        assert message in capsys.readouterr().err
    missing = ["--guidelines", str(tmp_path / "none.md")]
    assert main(["label", "import", str(data), "--db", db, *missing]) == 2
    assert "guidelines cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "none.db").exists()


def test_the_next_round_is_chosen_from_the_labels_and_added(db: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["label", "ask", "--db", db, "--n", "7"]) == 0
    assert "added 7 comparisons to project 'default', chosen from 0 labels" in capsys.readouterr().out
    with LabelStore.open(db) as store:
        project = store.project("default")
        who, _ = store.add_annotator(project.id, "Ann")
        for number in range(10):
            task = store.next_assignment(who.id)
            assert task is not None
            store.record(who.id, task.id, "first", request=f"r{number}")
    assert main(["label", "ask", "--db", db, "--n", "99"]) == 0
    said = capsys.readouterr().out
    assert "added 35 comparisons" in said and "chosen from 10 labels" in said  # 12·11/2 − 24 − 7
    assert "every other pair is already in the project" in said
    with LabelStore.open(db) as store:
        rows = [row for batch in store.items(store.project("default").id) for row in batch.to_pylist()]
    assert len({frozenset((row["first"], row["second"])) for row in rows}) == len(rows) == 66


def test_other_data_are_not_taken_for_the_projects_own(
    db: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"id": "z", "prompt": "Q?", "chosen": "a", "rejected": "b"}) + "\n")
    assert main(["label", "import", str(other), "--db", db]) == 2
    assert "was made from different preferences than" in capsys.readouterr().err


def test_other_texts_under_the_same_ids_are_refused(
    db: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    other = tmp_path / "other.jsonl"
    turned = {"chosen": rows[3]["rejected"], "rejected": rows[3]["chosen"]}
    for change, message in (
        (turned, "2 texts differ, such as 'chosen' of 'q3'"),
        ({"prompt": "Another?"}, "1 text differs, such as 'prompt' of 'q3'"),
    ):
        changed = [{**row, **(change if row["id"] == "q3" else {})} for row in rows]
        other.write_text("".join(json.dumps(row) + "\n" for row in changed))
        assert main(["label", "import", str(other), "--db", db]) == 2
        assert message in capsys.readouterr().err
    other.write_text("".join(json.dumps({**row, "chosen_rating": 4.0}) + "\n" for row in reversed(rows)))
    assert main(["label", "import", str(other), "--db", db, "--k", "2"]) == 0
    assert "clusters of 12 preferences differ in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "--out", "full", "--as", "dataset"], "full is a folder that is not empty"),
        (["export", "--out", "full/file", "--as", "dataset"], "full/file is a file, but a dataset is a folder"),
        (["export", "--out", "new.jsonl", "--as", "dataset"], "Use --as preferences, or omit the suffix"),
        (["export", "--out", "new.jsonl.gz", "--as", "dataset"], "Use --as preferences, or omit the suffix"),
        (
            ["export", "--out", "/proc/x", "--as", "dataset"],
            "error: /proc/x: cannot be written (No such file or directory)",
        ),
        (["export", "--out", "/proc/x.jsonl"], "/proc/x.jsonl: cannot be written"),
        (["export", "--out", "/proc/x.parquet", "--as", "labels"], "/proc/x.parquet: cannot be written"),
        (["export", "--out", "full/file/x.parquet"], "full/file/x.parquet: cannot be written"),
        (["report", "--out", "/proc/x.html"], "/proc/x.html: cannot be written"),
        (["judge", "--judge", "local:x", "--name", " "], "is empty. Give one, or omit it"),
        (["judge", "--judge", "ratings", "--orders", "one"], "'ratings' compares numbers, so it has no prompt"),
        (["judge", "--judge", "ratings", "--prompt", "full/file"], "it has no prompt and no orders"),
        (["judge", "--judge", "reward:math:sqrt", "--preference-prompt", "full/file"], "'reward:math:sqrt' compares"),
        (["judge", "--judge", "reward:math:sqrt"], "Reward 'math:sqrt' cannot be called with prompts= and completions"),
        (
            ["judge", "--judge", "openai:m@http://localhost:1/v1", "--cache", "full"],
            "full: cannot be used as a cache (Is a",
        ),
        (["export", "--out", "edges.jsonl", "--as", "edges"], "edges.jsonl: this is written as .parquet"),
        (["annotators", "add", "Zoe", "Zoe"], "nobody was added"),
        (["report", "--out", "full"], "full: this is written as .html or .htm"),
        (["ask", "--n", "0"], "at least 1 comparison"),
    ],
)
def test_mistakes_are_named(
    db: str,
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert main(["label", *words, "--db", db]) == 2
    assert message in capsys.readouterr().err
    with LabelStore.open(db) as store:
        assert store.annotators(store.project("default").id) == []


def test_a_seed_is_not_negative(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["label", "import", str(data), "--db", str(tmp_path / "x.db"), "--seed", "-1"])
    assert "'-1' is not a seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--lease-minutes", "nan", "lease_seconds=nan: give a number from 1 to 31536000"),
        ("--lease-minutes", "inf", "lease_seconds=inf"),
        ("--lease-minutes", "1e30", "lease_seconds=5999"),
        ("--lease-minutes", "0", "lease_seconds=0"),
        ("--overlap", "99999999999999999999", "overlap=99999999999999999999: give a number from 1 to 1000000"),
        ("--seed", "99999999999999999999", "seed=99999999999999999999: give a number from 0 to 9223372036854775807"),
        ("--repeat-share", "nan", "repeat_share=nan: give a number ≥ 0 and below 1"),
    ],
)
def test_numbers_out_of_range_leave_no_store_behind(
    flag: str, value: str, message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db = tmp_path / "new.db"
    assert main(["label", "import", str(data), "--db", str(db), flag, value]) == 2
    assert message in capsys.readouterr().err
    assert not db.exists()


def test_the_largest_numbers_are_stored(data: Path, tmp_path: Path) -> None:
    db = str(tmp_path / "labels.db")
    words = ["--overlap", "1000000", "--lease-minutes", "525600", "--seed", str(2**63 - 1)]
    assert main(["label", "import", str(data), "--db", db, *words]) == 0
    with LabelStore.open(db) as store:
        who, _ = store.add_annotator(store.project().id, "Ann")
        assert store.next_assignment(who.id) is not None


def test_a_failed_labeller_leaves_no_annotator(db: str, tmp_path: Path) -> None:
    assert main(["label", "judge", "--db", db, "--judge", f"reward:{tmp_path / 'none.py'}:score"]) == 2
    words = ["--judge", "openai:foo@http://127.0.0.1:9/v1", "--retries", "0"]
    assert main(["label", "judge", "--db", db, *words]) == 2
    with LabelStore.open(db) as store:
        assert store.annotators(store.project("default").id) == []


def test_the_scale_reads_the_store(db: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LabelStore.open(db) as store:
        who, _ = store.add_annotator(store.project("default").id, "Ann")
        task = store.next_assignment(who.id)
        assert task is not None
        store.record(who.id, task.id, "first", request="r")
    out = str(tmp_path / "scale.parquet")
    assert main(["pop", "scale", db, "--data", str(data), "--out", out]) == 0
    assert "1 of 1 edge" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["report", "--out", "x.html"], ["judge", "--judge", "ratings"], ["ask"], ["status"]])
def test_a_mistyped_store_is_not_made(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["label", *words, "--db", "typo.db"]) == 2
    assert "typo.db: no such label store. Create one with" in capsys.readouterr().err
    (tmp_path / "bad.jsonl").write_text("{")
    assert main(["label", "import", "bad.jsonl", "--db", "new.db"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


def test_the_nearest_flag_is_named(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["label", "import", str(data), "--overlapp", "2"]) == 2
    said = capsys.readouterr().err
    assert "Unknown argument '--overlapp'. Did you mean '--overlap'?" in said and said.count("--help") == 1


def test_one_project_needs_no_name_and_two_do(db: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LabelStore.open(db) as store:
        assert store.project().name == "default"
    assert main(["label", "import", str(data), "--db", db, "--project", "second"]) == 0
    assert main(["label", "export", "--db", db, "--out", "x.parquet"]) == 2
    assert "(default, second): choose one with --project NAME, or as" in capsys.readouterr().err
