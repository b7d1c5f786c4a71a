"""Votes of people and models pooled: people's decisions stay, models are weighed by how they do beside them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from label_stores import preferences
from test_label_quality import table

from popmargin.cli.main import main
from popmargin.errors import ConfigError, DataError
from popmargin.label.export.pooled_votes import pool_votes, soft_label
from popmargin.label.export.preferences import preferences_of
from popmargin.label.quality.judge_calibration import judge_calibrations
from popmargin.label.store.label_store import LabelStore
from popmargin.statistics.dawid_skene import dawid_skene


def vote(item: int, verdict: str, who: str) -> dict[str, Any]:
    kind = "person" if who.istitle() else "judge"
    return {"item": item, "annotator": who, "annotator_kind": kind, "verdict": verdict, "repeat_of": None}


def crowd(items: int = 300, labelled: int = 100, seed: int = 0) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Two people on the first items; a judge that is right in 85% and one that is right in 30%, on all."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(items) < 0.5, "first", "second")
    other = np.where(truth == "first", "second", "first")
    rows = [
        vote(item, str(truth[item] if rng.random() < right else other[item]), who)
        for item in range(items)
        for who, right, upto in (
            ("Ada", 0.9, labelled),
            ("Ben", 0.8, labelled),
            ("good", 0.85, items),
            ("bad", 0.3, items),
        )
        if item < upto
    ]
    return rows, truth


def test_people_decide_and_judges_fill_by_how_often_they_are_right() -> None:
    rows, truth = crowd()
    found = pool_votes(rows)
    assert (found.held, found.filled, found.equal) == (100, 200, False)
    people = pool_votes([row for row in rows if row["annotator_kind"] == "person"])
    assert all(found.chances[item] == people.chances[item] for item in range(100))  # no judge overrides a person
    assert found.right["good"] == pytest.approx(0.85, abs=0.1) and found.right["bad"] == pytest.approx(0.3, abs=0.1)
    filled = [max(found.chances[item], key=found.chances[item].__getitem__) == truth[item] for item in range(100, 300)]
    assert np.mean(filled) > 0.82
    assert "people decide 100 items" in found.notes()[0] and "models alone decide 200" in found.notes()[0]


def test_equal_votes_are_one_model_of_all() -> None:
    rows, _ = crowd(60, 30)
    found = pool_votes(rows, "equal")
    names, classes = ["Ada", "Ben", "bad", "good"], ["first", "second"]
    columns = [[row["item"] for row in rows], [names.index(row["annotator"]) for row in rows],
               [classes.index(row["verdict"]) for row in rows]]  # fmt: skip
    expected = dawid_skene(*(np.array(column) for column in columns), classes=2)
    assert [found.chances[item]["first"] for item in range(60)] == pytest.approx(expected.shares[:, 0].tolist())
    assert "count alike on 60 items" in found.notes()[0]


def test_ties_count_half_and_what_a_person_calls_wrong_no_judge_decides() -> None:
    rows = [vote(0, "tie", "Ada"), vote(1, "first", "Ada"), vote(2, "wrong", "Ada"), vote(3, "unsure", "Ada")]
    rows += [vote(item, "second", "good") for item in range(4)]
    found = pool_votes(rows)
    assert set(found.chances) == {0, 1, 3} and found.held == 2
    tied = found.chances[0]
    assert tied["tie"] > max(tied["first"], tied["second"])
    assert soft_label(tied) == pytest.approx(tied["first"] + tied["tie"] / 2)
    with pytest.raises(DataError, match="no decided votes"):
        pool_votes([vote(0, "unsure", "Ada")])


def fill(path: str, kind: Any) -> None:
    with LabelStore.open(path) as store:
        project = store.create_project("demo")
        store.import_preferences(project.id, preferences(13))
        ids = [f"p{n}" for n in range(12)]
        store.add_items(project.id, kind, ids, [f"p{n + 1}" for n in range(12)] if kind == "pop" else None)
        rows = store.items(project.id)
        items = [row["item"] for batch in rows for row in batch.to_pylist()]
        ada = store.add_annotator(project.id, "Ada")[0].id
        for number in range(6):
            given = store.next_assignment(ada)
            assert given is not None
            store.record(ada, given.id, "second" if number % 2 else "first", request=f"r{number}")
        for name, verdicts in (("j1", ["first", "second", "first"] * 4), ("j2", ["second"] * 12)):
            store.record_many(
                store.add_annotator(project.id, name, kind="judge")[0].id, labels_of(items, verdicts, name)
            )


def labels_of(items: list[int], verdicts: list[str], name: str) -> Any:
    count = len(items)
    return pa.table(
        {"item": pa.array(items, pa.int64()), "verdict": verdicts, "confidence": pa.nulls(count, pa.float64()),
         "seconds": pa.nulls(count, pa.float64()), "note": [""] * count,
         "request": [f"{name} {item}" for item in items], "swap_pairs": [False] * count, "swap_first": [False] * count,
         "swap_second": [False] * count}
    )  # fmt: skip


def test_preferences_get_the_probabilities_and_the_export_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db, out = str(tmp_path / "labels.db"), tmp_path / "out.parquet"
    fill(db, "preference")
    assert main(["label", "export", "--db", db, "--as", "preferences", "--pool", "dawid-skene", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "pooled by Dawid–Skene" in said and "people decide 6 items" in said and "models alone decide 6" in said
    assert "expected right: " in said and "j1 " in said
    with LabelStore.open(db) as store:
        project = store.project("demo")
        rows = store.labels(project.id).to_pylist()
        pooled = preferences_of(store, project, pool="dawid-skene", wrong="keep")
        plain = preferences_of(store, project, wrong="keep")
        equal = preferences_of(store, project, pool="dawid-skene", models="equal", wrong="keep")
        with pytest.raises(ConfigError, match="pool excludes weights and votes"):
            preferences_of(store, project, pool="dawid-skene", weights={"Ada": 0.5})
    chances = pool_votes([row for row in rows if row["kind"] == "preference"]).chances
    expected = {row["first"]: soft_label(chances[row["item"]]) for row in rows}
    got = dict(zip(pooled.ids, pooled.dataset["soft_label"], strict=True))
    assert {key: got[key] for key in expected} == pytest.approx(expected)
    ada = {row["first"]: row["verdict"] == "first" for row in rows if row["annotator"] == "Ada"}
    soft = dict(zip(plain.ids, plain.dataset["soft_label"], strict=True))
    assert len(ada) == 6 and all(soft[key] == first and (got[key] > 0.5) == first for key, first in ada.items())
    assert equal.dataset["soft_label"] != pooled.dataset["soft_label"]


def test_edges_are_one_for_each_item_with_its_probability(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db, out = str(tmp_path / "labels.db"), tmp_path / "edges.parquet"
    fill(db, "pop")
    assert main(["label", "export", "--db", db, "--pool", "dawid-skene", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "30 labels = 30 used + 0 left out" in said and "pooled by Dawid–Skene" in said
    edges = pq.read_table(out).to_pylist()
    assert len(edges) == 12 and {edge["source"] for edge in edges} == {"dawid-skene"}
    with LabelStore.open(db) as store:
        rows = store.labels(store.project("demo").id).to_pylist()
    ada = [row for row in rows if row["annotator"] == "Ada"]
    won = {(edge["stronger"], edge["weaker"]) for edge in edges}
    said_by_her = [(row["first"], row["second"])[:: 1 if row["verdict"] == "first" else -1] for row in ada]
    assert len(ada) == 6 and set(said_by_her) <= won
    assert all(0.5 <= edge["confidence"] < 1 for edge in edges)
    refused = ["label", "export", "--db", db, "--pool", "dawid-skene", "--aggregate", "majority", "--out", str(out)]
    assert main([*refused, "--overwrite"]) == 2 and "exclude each other" in capsys.readouterr().err
    labels = [
        "label",
        "export",
        "--db",
        db,
        "--pool",
        "dawid-skene",
        "--as",
        "labels",
        "--out",
        str(tmp_path / "l.csv"),
    ]
    assert main(labels) == 2 and "--pool is only for preferences and edges" in capsys.readouterr().err


def test_a_panel_is_pooled_in_the_report() -> None:
    """The pooled vote of three judges, without people's votes, stands beside each of them."""
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    for item in range(200):
        true, false = ("first", "second")[:: 1 if item % 2 else -1]
        rows.append(vote(item, true if rng.random() < 0.9 else false, "Ada"))
        rows += [vote(item, true if rng.random() < right else false, f"j{right}") for right in (0.9, 0.7, 0.55)]
    found = {one.name: one for one in judge_calibrations(table(*rows).to_pylist())}
    panel = found["3 models pooled"]
    expected = pool_votes([row for row in rows if row["annotator_kind"] == "judge"]).chances
    ada = {row["item"]: row["verdict"] for row in rows if row["annotator"] == "Ada"}
    assert panel.agreement.estimate == pytest.approx(
        np.mean([max(expected[item], key=expected[item].__getitem__) == ada[item] for item in ada])
    )
    assert (panel.kind, panel.source, panel.items) == ("panel", "pooled", 200)
    assert panel.agreement.estimate >= max(found[f"j{right}"].agreement.estimate for right in (0.7, 0.55))
    alone = judge_calibrations([row for row in table(*rows).to_pylist() if row["annotator"] in ("Ada", "j0.9")])
    assert [one.name for one in alone] == ["j0.9"]
