"""What nobody judged is not exported as a label: pairs without labels, half-finished projects, ties of the data."""

import json
from pathlib import Path
from typing import Any

import pytest

from popmargin.cli.main import main
from popmargin.data.load import load_preferences
from popmargin.errors import ConfigError
from popmargin.label.export.preferences import preferences_of
from popmargin.label.projects.open_project import open_project
from popmargin.label.store.label_store import LabelStore

UNLABELLED = ["--kind", "preference", "--column", "chosen=response_a", "--column", "rejected=response_b"]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Pairs of responses without labels, with a column of their own."""
    rows = [{"prompt": f"q{i}", "response_a": f"a{i}", "response_b": f"b{i}", "topic": f"t{i}"} for i in range(6)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def judge(store: LabelStore, verdicts: dict[str, Any]) -> None:
    """Labels of a person, by prompt."""
    who, _ = store.add_annotator(store.project().id, "ann")
    skipped = set[int]()
    while (now := store.next_assignment(who.id)) is not None and now.id not in skipped:
        if str(now.first.prompt) in verdicts:
            store.record(who.id, now.id, verdicts[str(now.first.prompt)], request=str(now.id))
        else:
            store.skip(who.id, now.id)
            skipped.add(now.id)


def test_only_judged_pairs_are_exported(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of six pairs without labels q1 is judged a, q2 b, q3 a tie, q4 unsure: three rows, each as somebody said."""
    db, out = str(tmp_path / "labels.db"), tmp_path / "out.jsonl"
    assert main(["label", "import", str(pairs), "--db", db, *UNLABELLED]) == 0
    export = ["label", "export", "--db", db, "--as", "preferences", "--out", str(out)]
    assert main(export) == 2
    assert "Nobody has judged a preference of project 'default' yet" in capsys.readouterr().err and not out.exists()
    with LabelStore.open(db) as store:
        judge(store, {"q1": "first", "q2": "second", "q3": "tie", "q4": "unsure"})
    assert main(export) == 0
    said = capsys.readouterr().out
    assert "3 of 6 preferences left out, since nobody has said which response is better" in said
    assert "1 are ties of the votes" in said and "wrote 3 preferences" in said
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    found = {row["prompt"]: (row["chosen"], row["rejected"], row["soft_label"], row["topic"]) for row in rows}
    assert found == {"q1": ("a1", "b1", 1.0, "t1"), "q2": ("b2", "a2", 1.0, "t2"), "q3": ("a3", "b3", 0.5, "t3")}
    assert main([*export, "--overwrite", "--unjudged", "keep"]) == 0
    assert "wrote 6 preferences" in capsys.readouterr().out


@pytest.mark.parametrize(
    "row",
    [
        {"response_a": "a", "response_b": "b", "votes_a": 2, "votes_b": 2},
        {"response_a": "a", "response_b": "b", "preference": 0},
        {"response_a": "a", "response_b": "b", "winner": "tie"},
        {"responses": [{"text": "a", "rating": 3}, {"text": "b", "rating": 3}]},
    ],
    ids=["votes", "signed", "winner", "ratings"],
)
@pytest.mark.parametrize("kind", ["pop", "preference"])
def test_a_tie_of_the_data_has_no_direction(store: LabelStore, row: dict[str, Any], kind: Any) -> None:
    """In every layout that can say "equal", until somebody judges it: a comparison of two preferences does not."""
    better = dict(row)
    better |= {"votes_a": 3} if "votes_a" in row else {"preference": 2} if "preference" in row else {}
    better |= {"winner": "response_a"} if "winner" in row else {}
    if "responses" in row:
        better["responses"] = [{"text": "a", "rating": 4}, {"text": "b", "rating": 3}]
    rows = [{"id": "tied", "prompt": "q0", **row}, *({"id": f"p{i}", "prompt": f"q{i}", **better} for i in (1, 2))]
    if "preference" in row:
        rows[2]["preference"] = -2
    data = load_preferences(rows, ties="keep")
    project = open_project(store, data, kind=kind, say=lambda line: None)
    assert len(preferences_of(store, project, unjudged="keep")) == 3
    judge(store, dict.fromkeys(["q0", "q1", "q2"] if kind == "pop" else ["q1", "q2"], "first"))
    found = preferences_of(store, project)
    assert found.ids == ["p1", "p2"] and found.report.rows_in == 3 == len(found) + len(found.report.problems)
    assert found.report.problems[0].kind == ("tie" if kind == "pop" else "unjudged")
    with pytest.raises(ConfigError, match="unjudged is 'ask'; choose drop, keep"):
        preferences_of(store, project, unjudged="ask")  # pyright: ignore[reportArgumentType]
