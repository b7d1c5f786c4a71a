"""Annotators whose labels shall not count: left out by name or discarded, their places given back, nothing deleted."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from label_stores import preferences

from popmargin.cli.main import main
from popmargin.config import PopConfig
from popmargin.data.load import load_preferences
from popmargin.errors import ConfigError, DataError
from popmargin.label.export.pop_edges import pop_edges
from popmargin.label.export.preferences import preferences_of
from popmargin.label.export.store_edges import store_edges
from popmargin.label.projects.open_project import open_project
from popmargin.label.quality.flags import flags_of
from popmargin.label.quality.label_quality import label_quality
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Annotator, Project
from popmargin.pop.edge_sources import read_edges
from popmargin.pop.edges import PopEdges


def answer(store: LabelStore, who: Annotator, verdict: Any, most: int = 10**6) -> int:
    """Answers of a person until nothing is left; returns how many."""
    done = 0
    while done < most and (now := store.next_assignment(who.id)) is not None:
        store.record(who.id, now.id, verdict, request=f"{who.name}-{now.id}-{now.number}")
        done += 1
    return done


@pytest.fixture
def judged(store: LabelStore) -> tuple[Project, Annotator, Annotator]:
    """Ten preferences, each judged by one of two people: bad says rejected of six, good says chosen of four."""
    project = open_project(store, preferences(10), kind="preference", say=lambda line: None)
    bad, good = (store.add_annotator(project.id, name)[0] for name in ("bad", "good"))
    assert (answer(store, bad, "second", 6), answer(store, good, "first")) == (6, 4)
    return project, bad, good


def test_discarded_labels_do_not_count_and_their_places_are_free(
    store: LabelStore, judged: tuple[Project, Annotator, Annotator]
) -> None:
    project, bad, good = judged
    assert store.progress(project.id).labels_done == 10 and store.next_assignment(good.id) is None
    store.set_active(bad.id, False)  # a person who left: everything still counts
    assert store.progress(project.id).labels_done == 10 and len(preferences_of(store, project)) == 10
    assert store.discard(bad.id) == 6
    assert store.progress(project.id).labels_done == 4 and store.progress(project.id, good.id).own_left == 6
    found = preferences_of(store, project)
    assert len(found) == 4 and set(found.soft_label.tolist()) == {1.0}
    assert any("6 labels of annotators who do not count" in note for note in found.report.notes)
    assert store.labels(project.id).num_rows == 4 and store.label_history(project.id).num_rows == 10
    assert answer(store, good, "first", 4) == 4  # others are asked
    store.set_active(bad.id, True)  # counted again; four of the places are taken by now
    assert store.labels(project.id).num_rows == 14 and not store.annotators(project.id)[0].discarded
    third, _ = store.add_annotator(project.id, "third")
    assert answer(store, third, "first") == 0 and store.discard(bad.id) == 2
    assert answer(store, third, "first") == 2


def test_a_name_is_left_out_of_every_export(store: LabelStore, judged: tuple[Project, Annotator, Annotator]) -> None:
    project, _, _ = judged
    assert len(preferences_of(store, project, without=["bad"])) == 4
    assert store.labels(project.id, without=["bad"])["annotator"].unique().to_pylist() == ["good"]
    for call in (pop_edges, preferences_of):
        with pytest.raises(DataError, match=r"no annotator 'bat'\. Did you mean 'bad'"):
            call(store, project, without=["bat"])


def test_edges_leave_out_a_name_before_anything_is_made_of_them(store: LabelStore, tmp_path: Path) -> None:
    """Alone against one, bad marks every preference wrong, which would take all of good's comparisons out."""
    project = store.create_project("demo", overlap=2)
    data = preferences(5)
    store.import_preferences(project.id, data)
    store.add_items(project.id, "pop", ["p0", "p1", "p2", "p3"], ["p1", "p2", "p3", "p4"])
    good, _ = store.add_annotator(project.id, "good")
    answer(store, good, "first")
    for name in ("bad", "worse"):
        judge, _ = store.add_annotator(project.id, name, kind="judge")
        items = [row["item"] for batch in store.items(project.id) for row in batch.to_pylist()]
        table = {"item": items, "verdict": ["wrong"] * 4, "wrong": ["both"] * 4, "request": [f"{n}" for n in items]}
        store.record_many(judge.id, pa.table(table))
    edges, account = pop_edges(store, project, models="equal")
    assert (len(edges), account.labels, account.used + sum(account.left_out.values())) == (0, 12, 12)
    edges, account = pop_edges(store, project, without=["bad", "worse"])
    assert len(edges) == 4 and account.left_out["of annotators who do not count"] == 8
    assert account.labels == account.used + sum(account.left_out.values()) == 12
    store.discard(judge.id)
    assert len(pop_edges(store, project, without=["bad"])[0]) == 4
    if "://" not in store.name:
        assert len(store_edges(store.name, data.ids, without=["bad"])) == 4
        assert len(read_edges(store.name, data.ids, without=["bad"])) == 4


def test_edges_in_a_file_are_left_out_by_name(tmp_path: Path) -> None:
    edges = PopEdges(pa.table({
        "stronger": ["a", "b", "c"], "weaker": ["b", "c", "a"], "annotator": ["ann", "bob", None],
        "source": ["person"] * 3, "tie": [False] * 3, "confidence": pa.array([None] * 3, pa.float64()),
    }), {})  # fmt: skip
    path = tmp_path / "edges.parquet"
    edges.save(path)
    assert read_edges(str(path), ["a", "b", "c"], without=["bob"]).table["stronger"].to_pylist() == ["a", "c"]
    with pytest.raises(DataError, match=r"no edge is of an annotator 'bop'\. Did you mean 'bob'"):
        read_edges(str(path), ["a", "b", "c"], without=["bop"])
    lighter = read_edges(str(path), ["a", "b", "c"], weights={"bob": 0.5})
    assert lighter.table["confidence"].to_pylist() == [None, 0.5, None] and lighter.parameters["weights"] == {
        "bob": 0.5
    }
    with pytest.raises(ConfigError, match=r"pop\.pool pools the votes of a label store, and .* is a file of edges"):
        read_edges(str(path), ["a", "b", "c"], pool="dawid-skene")


def test_a_run_weighs_and_pools_the_votes_of_a_store_as_an_export_does(tmp_path: Path) -> None:
    """Three people on two pairs; one of them says the opposite each time."""
    with LabelStore.open(str(tmp_path / "labels.db")) as store:
        project = store.create_project("demo", overlap=3)
        data = preferences(3)
        store.import_preferences(project.id, data)
        store.add_items(project.id, "pop", ["p0", "p1"], ["p1", "p2"])
        for name, verdict in (("ann", "first"), ("ben", "first"), ("bob", "second")):
            answer(store, store.add_annotator(project.id, name)[0], verdict)
        store.set_weight(next(who.id for who in store.annotators(project.id) if who.name == "bob"), 0.25)
        config = PopConfig(edges=store.name, weights="ann=0.5, ben = 1")
        how: dict[str, Any] = {"without": config.left_out, "weights": config.weight_of, "pool": config.pool}
        edges = read_edges(store.name, data.ids, **how)
        exported, _ = pop_edges(store, project, weights={"ann": 0.5, "ben": 1.0})
        assert len(edges) == 6 and edges.table.equals(exported.table)
        assert edges.parameters["weights"] == {"ann": 0.5, "bob": 0.25}
        pooled = read_edges(store.name, data.ids, pool="dawid-skene")
        expected, _ = pop_edges(store, project, pool="dawid-skene")
        assert len(pooled) == 2 and pooled.table.equals(expected.table)
        assert pooled.table["stronger"].to_pylist() == ["p0", "p1"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weights": "bob=0.5"}, r"pop\.weights is for labels in pop\.edges"),
        ({"pool": "dawid-skene"}, r"pop\.pool is for labels in pop\.edges"),
        ({"edges": "labels.db", "weights": "bob"}, r"pop\.weights bob: give NAME=WEIGHT"),
        ({"edges": "labels.db", "weights": "bob=2"}, r"above 0 and at most 1"),
        ({"edges": "labels.db", "weights": "bob=1, bob=0.5"}, r"'bob' has two weights"),
        ({"edges": "labels.db", "weights": "bob=1", "pool": "dawid-skene"}, r"finds out itself"),
    ],
)
def test_weights_and_pooling_of_a_run_are_checked_before_it(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PopConfig(**given)


def test_the_command_line_and_both_figures_of_the_report(
    tmp_path: Path, data_path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    db, out = str(tmp_path / "labels.db"), tmp_path / "out.jsonl"
    rows = Path(data_path).read_text(encoding="utf-8").splitlines()[:12]
    (tmp_path / "few.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    flags = ["--db", db, "--kind", "preference", "--overlap", "3"]
    assert main(["label", "import", str(tmp_path / "few.jsonl"), *flags]) == 0
    with LabelStore.open(db) as store:
        project = store.project()
        for name, shift in (("ann", 0), ("ben", 0), ("bad", 1)):
            who, _ = store.add_annotator(project.id, name)
            while (now := store.next_assignment(who.id)) is not None:
                verdict = "first" if (now.item + shift) % 2 else "second"
                store.record(who.id, now.id, verdict, request=str(now.id), seconds=0.02 if shift else 9.0)
    capsys.readouterr()
    report = ["label", "report", "--db", db, "--out", str(tmp_path / "report.html"), "--overwrite"]
    assert main(report) == 0
    said = capsys.readouterr().out
    assert (
        "Look at bad: fast: the median time is 0.02 s, the others' is 9.0 s; agrees hardly more than by chance" in said
    )
    assert "without" not in said
    assert main([*report, "--without", "bad"]) == 0
    assert "Krippendorff's α is 1.00 without bad and" in capsys.readouterr().out
    assert main(["label", "annotators", "discard", "bad", "--db", db]) == 0
    assert (
        "bad is no longer active; the labels are kept but do not count; 12 places free again" in capsys.readouterr().out
    )
    assert main([*report, "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["left_out"] == ["bad"] and (numbers["labels"], numbers["without"]["labels"]) == (36, 24)
    assert main(["label", "status", "--db", db]) == 0
    assert "bad                  person, not active, discarded: 12 done" in capsys.readouterr().out
    assert main(["label", "export", "--db", db, "--as", "labels", "--out", str(out)]) == 0
    assert {json.loads(line)["annotator"] for line in out.read_text(encoding="utf-8").splitlines()} == {"ann", "ben"}
    assert main(["label", "export", "--db", db, "--as", "preferences", "--out", str(out), "--overwrite"]) == 0
    assert set(load_preferences(out).soft_label.tolist()) == {1.0}
    assert main(["label", "export", "--db", db, "--as", "history", "--out", str(out), "--without", "bad"]) == 2
    assert "--without is not for the history" in capsys.readouterr().err
    assert main(["label", "annotators", "activate", "bad", "--db", db]) == 0
    assert "bad is active; the labels count again" in capsys.readouterr().out


def test_few_labels_are_no_reason_for_a_flag(store: LabelStore) -> None:
    """Nor are quick people among quick people, and with nobody to compare with only what nobody can read in."""
    project = open_project(store, preferences(12), kind="preference", overlap=3, say=lambda line: None)
    for name, seconds, most in (("ann", 3.0, 12), ("ben", 4.0, 12), ("new", 0.1, 9)):
        who, _ = store.add_annotator(project.id, name)
        for number in range(most):
            now = store.next_assignment(who.id)
            assert now is not None
            store.record(who.id, now.id, "first", request=f"r{number}", seconds=seconds)
    assert flags_of(label_quality(store.labels(project.id)).annotators) == {}
    now = store.next_assignment(who.id)
    assert now is not None
    store.record(who.id, now.id, "first", request="r9", seconds=0.1)
    assert list(flags_of(label_quality(store.labels(project.id)).annotators)) == ["new"]


def test_a_run_leaves_annotators_out() -> None:
    assert PopConfig(edges="labels.db", without="bob, ann lee").left_out == ("bob", "ann lee")
    with pytest.raises(ConfigError, match=r"pop\.edges, which is not given"):
        PopConfig(without="bob")
