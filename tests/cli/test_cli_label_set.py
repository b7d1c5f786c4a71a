"""popmargin label set: settings and known answers that change while people label."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from popmargin.cli.main import main
from popmargin.label.store.label_store import LabelStore
from popmargin.pop.edges import PopEdges

ROWS = [{"id": f"p{i}", "prompt": f"Why {i}?", "chosen": f"because {i}", "rejected": f"no {i}"} for i in range(8)]


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def project(tmp_path: Path) -> Any:
    """Makes a project of a kind; the command line of `label set` for it."""

    def make(kind: str, *more: str) -> list[str]:
        db = str(tmp_path / "labels.db")
        data = written(tmp_path / "data.jsonl", ROWS)
        assert main(["label", "import", data, "--db", db, "--kind", kind, *more]) == 0
        return ["label", "set", "--db", db]

    return make


def test_settings_are_changed_shown_and_logged(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    command = project("preference")
    capsys.readouterr()
    assert main([*command, "--overlap", "3", "--repeat-share", "0.1", "--lease-minutes", "5"]) == 0
    said = capsys.readouterr().out
    assert "default: overlap 3, repeat_share 0.1, lease_seconds 300, training none, passing none" in said
    assert "0 of 24 labels done" in said and "overlap 1 → 3" in said
    assert main([*command, "--training", "2", "--passing", "0.5"]) == 0
    assert main([*command, "--training", "0"]) == 0  # without training there is nothing to pass
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["overlap"], found["training"], found["passing"]) == (3, None, None)
    assert [change["setting"] for change in found["changes"]][3:] == ["training", "passing", "training", "passing"]
    assert all(change["who"] for change in found["changes"])
    for wrong, message in (
        (["--overlap", "0"], "overlap=0"),
        (["--lease-minutes", "nan"], "lease_seconds=nan"),
        (["--passing", "0.5"], "there are none"),
        (["--gold", "none.jsonl"], "none.jsonl"),
    ):
        assert main([*command, *wrong]) == 2
        assert message in capsys.readouterr().err


def test_gold_of_preferences_names_the_better_response(
    project: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same side says first, swapped ones second, a tie tie; at the start, and while people label."""
    turned = {**ROWS[1], "chosen": ROWS[1]["rejected"], "rejected": ROWS[1]["chosen"]}
    gold = written(tmp_path / "gold.jsonl", [ROWS[0], turned, {**ROWS[2], "soft_label": 0.5}])
    command = project("preference", "--gold", written(tmp_path / "one.jsonl", [ROWS[0]]), "--training", "1")

    def known() -> dict[str, str]:
        with LabelStore.open(command[-1]) as store:
            rows = [row for batch in store.items(store.project().id) for row in batch.to_pylist()]
        return {row["first"]: row["gold"] for row in rows if row["gold"]}

    assert known() == {"p0": "first"}
    capsys.readouterr()
    assert main([*command, "--gold", gold]) == 0
    assert "known answers: 2 new" in capsys.readouterr().out
    assert known() == {"p0": "first", "p1": "second", "p2": "tie"}
    assert main([*command, "--no-gold", written(tmp_path / "out.jsonl", [turned])]) == 0
    assert "known answers: 1 removed" in capsys.readouterr().out and known() == {"p0": "first", "p2": "tie"}
    wrong = (({**ROWS[3], "id": "p9"}, "is not in default"), ({**ROWS[3], "chosen": "x"}, "other responses"))
    for row, message in wrong:
        assert main([*command, "--gold", written(tmp_path / "bad.jsonl", [row])]) == 2
        assert message in capsys.readouterr().err
    assert known() == {"p0": "first", "p2": "tie"}


def test_gold_of_pairs_and_of_ratings(project: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = project("pop", "--seed", "1")
    with LabelStore.open(command[-1]) as store:
        rows = [row for batch in store.items(store.project().id) for row in batch.to_pylist()]
    asked = {frozenset((row["first"], row["second"])) for row in rows}
    new = next((f"p{i}", f"p{j}") for i in range(8) for j in range(i) if frozenset((f"p{i}", f"p{j}")) not in asked)
    first = (rows[0]["second"], rows[0]["first"])
    path = tmp_path / "gold.parquet"
    edges = {
        "stronger": [first[0], new[0]], "weaker": [first[1], new[1]], "annotator": pa.array([None] * 2, pa.string()),
        "source": ["gold"] * 2, "tie": [False] * 2, "confidence": pa.array([None] * 2, pa.float64()),
    }  # fmt: skip
    PopEdges(pa.table(edges), {}).save(path)
    capsys.readouterr()
    assert main([*command, "--gold", str(path)]) == 0
    assert "known answers: 1 new, 1 added" in capsys.readouterr().out
    with LabelStore.open(command[-1]) as store:
        after = [row for batch in store.items(store.project().id) for row in batch.to_pylist()]
        assert store.project().gold_items == 2 and len(after) == len(rows) + 1
    found = {frozenset((row["first"], row["second"])): row for row in after if row["gold"]}
    for stronger, weaker in (first, new):
        row = found[frozenset((stronger, weaker))]
        assert row["first" if row["gold"] == "first" else "second"] == stronger
    rated = project("rating", "--project", "rated", "--scale", "5")
    gold = written(tmp_path / "gold.jsonl", [{**ROWS[0], "chosen_rating": 4, "rejected_rating": 2}])
    capsys.readouterr()
    assert main([*rated, "--project", "rated", "--gold", gold]) == 0
    assert "known answers: 2 new" in capsys.readouterr().out
    with LabelStore.open(command[-1]) as store:
        items = [row for batch in store.items(store.project("rated").id) for row in batch.to_pylist()]
    assert {(row["first"], row["response"], row["gold"]) for row in items if row["gold"]} == {
        ("p0", "chosen", "4"), ("p0", "rejected", "2"),
    }  # fmt: skip
