"""In and out again: nothing is lost, and every label is an edge or is counted."""

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from label_stores import preferences

from popmargin.data.load import load_preferences
from popmargin.data.schema import Preferences
from popmargin.errors import ConfigError, DataError
from popmargin.label.export.judged_wrong import wrong_preferences
from popmargin.label.export.label_files import save_labels
from popmargin.label.export.pop_edges import pop_edges
from popmargin.label.export.preferences import preferences_of, read_strengths
from popmargin.label.projects.open_project import open_project
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project
from popmargin.pop.edges import PopEdges
from popmargin.pop.fit import fit_strengths
from popmargin.pop.strengths import half_normal_strengths


def give(store: LabelStore, project: Project, name: str, verdicts: dict[int, str], **columns: Any) -> None:
    """Labels of a judge, by item."""
    judge, _ = store.add_annotator(project.id, name, kind="judge")
    table: dict[str, Any] = {
        "item": list(verdicts),
        "verdict": list(verdicts.values()),
        "request": [f"r{item}" for item in verdicts],
    }
    store.record_many(judge.id, pa.table(table | columns))


def items_of(store: LabelStore, project: Project) -> dict[int, tuple[str, str]]:
    return {
        row["item"]: (row["first"], row["second"]) for batch in store.items(project.id) for row in batch.to_pylist()
    }  # fmt: skip


def quiet(line: str) -> None:
    assert line


@pytest.mark.parametrize("conversational", [False, True])
def test_preferences_come_back_as_they_were(store: LabelStore, tmp_path: Path, conversational: bool) -> None:
    """Messages, characters of all kinds, missing and inexact numbers: the same bytes in every file."""
    data = preferences(30, conversational=conversational)
    project = open_project(store, data, say=quiet)
    back = preferences_of(store, project)
    assert back.fingerprint() == data.fingerprint()
    for suffix in (".jsonl", ".parquet", ".jsonl.gz"):
        data.save(tmp_path / f"in{suffix}")
        back.save(tmp_path / f"out{suffix}")
        assert (tmp_path / f"in{suffix}").read_bytes() == (tmp_path / f"out{suffix}").read_bytes()
    back.dataset.save_to_disk(str(tmp_path / "folder"))
    assert load_preferences(str(tmp_path / "folder")).fingerprint() == data.fingerprint()
    text = store.texts(project.id, ["p3"])["p3"]
    assert [text.prompt, text.chosen, text.rejected] == [data[3][name] for name in ("prompt", "chosen", "rejected")]


def test_clusters_come_back_as_they_were(store: LabelStore) -> None:
    rows = [{"prompt": f"q{i}", "chosen": "a", "rejected": "b", "cluster": f"topic {i // 2}"} for i in range(6)]
    data = load_preferences([*rows, {"prompt": "q", "chosen": "a", "rejected": "b"}])
    back = preferences_of(store, open_project(store, data, say=quiet))
    assert [row["cluster"] for row in back] == [row["cluster"] for row in data]
    assert back[0]["cluster"] == back[1]["cluster"] == "topic 0" and back[6]["cluster"] is None
    assert back.fingerprint() == data.fingerprint() and back.clusters == data.clusters


def test_clusters_weights_and_columns_of_the_data_come_along(store: LabelStore, tmp_path: Path) -> None:
    """And change sides with their responses where most call a preference wrong; that bytes are not stored is said."""
    count, lines = 3, list[str]()
    made = preferences(count).with_columns(
        {"cluster": ["c0", None, "c2"], "weight": [2.0, None, 0.5], "margin": [-1.0, 1.5, None]},
        level=[1, 2, None], vector=[[0.5, 1.0]] * count, chosen_model=["a", "b", "c"], rejected_model=["d", None, "f"],
        notes=[{"by": "x\0", "of": [1]}, None, {"by": "y", "of": []}], image=[b"1", b"2", b"3"],
    )  # fmt: skip
    project = open_project(store, made, say=lines.append, kind="preference")
    assert lines[0] == "columns of bytes are not stored: image"
    data, back = made.with_columns(image=None), preferences_of(store, project, unjudged="keep")
    assert list(back) == list(data) and back.clusters == data.clusters and back.columns == data.columns
    assert back.report.columns_kept == ("level", "vector", "chosen_model", "rejected_model", "notes")
    open_project(store, data, say=lines.append)
    assert not any("other ratings" in line for line in lines)  # the clusters are those of the project
    back.save(tmp_path / "back.jsonl")
    assert list(load_preferences(tmp_path / "back.jsonl")) == list(data)
    item = next(item for item, (first, _) in items_of(store, project).items() if first == "p1")
    give(store, project, "judge", {item: "second"})
    turned = preferences_of(store, project)[0]  # the only one that is judged
    expected = {"chosen_model": None, "rejected_model": "b", "margin": None, "level": 2, "soft_label": 1.0}
    assert {name: turned[name] for name in expected} == expected


def test_every_label_is_an_edge_or_is_counted(store: LabelStore, tmp_path: Path) -> None:
    project = open_project(store, preferences(5), seed=1, say=quiet)
    items = items_of(store, project)
    one, two, three, four, five = items
    verdicts = {one: "first", two: "second", three: "tie", four: "unsure", five: "wrong"}
    give(store, project, "judge", verdicts, confidence=[0.5, 1.0, None, None, None], wrong=[None] * 4 + ["both"])
    edges, account = pop_edges(store, project, wrong="keep")
    assert [tuple(row.values())[:6] for row in edges.table.to_pylist()] == [
        (*items[one], "judge", "judge", False, 0.5),
        (*items[two][::-1], "judge", "judge", False, 1.0),
        (*items[three], "judge", "judge", True, None),
    ]
    assert (account.labels, account.used, sum(account.left_out.values())) == (5, 3, 2)
    assert account.wrong == dict.fromkeys(items[five], 1)
    assert str(account).splitlines()[0] == "5 labels = 3 used + 2 left out"
    edges.save(tmp_path / "edges.parquet")
    assert PopEdges.load(tmp_path / "edges.parquet").fingerprint() == edges.fingerprint()


def test_repeated_answers_make_no_second_edge(store: LabelStore) -> None:
    project = open_project(store, preferences(40), repeat_share=0.3, say=quiet)
    who, _ = store.add_annotator(project.id, "person")
    while (now := store.next_assignment(who.id)) is not None:
        store.record(who.id, now.id, "first", request=str(now.id))
    edges, account = pop_edges(store, project)
    assert len(edges) == 40 and account.left_out["repeated items"] > 0
    assert account.labels == account.used + account.left_out["repeated items"]


def test_majority_of_annotators(store: LabelStore) -> None:
    project = open_project(store, preferences(5), say=quiet)
    items = items_of(store, project)
    one, two, three, four, five = items
    answers = {
        "a": {one: "first", two: "second", three: "first", four: "tie", five: "unsure"},
        "b": {one: "first", two: "second", three: "second", four: "tie"},
        "c": {one: "second", two: "tie", four: "first"},
    }
    for name, verdicts in answers.items():
        give(store, project, name, verdicts)
    edges, account = pop_edges(store, project, aggregate="majority")
    found = {frozenset((row["stronger"], row["weaker"])): row for row in edges.table.to_pylist()}
    assert len(found) == 4 and account.used == 11 and account.left_out["unsure"] == 1
    for item, stronger, tie, confidence in (
        (one, items[one][0], False, 2 / 3),
        (two, items[two][1], False, 2 / 3),
        (three, None, True, 0.5),
        (four, None, True, 2 / 3),
    ):
        row = found[frozenset(items[item])]
        assert (row["tie"], row["confidence"]) == (tie, pytest.approx(confidence))
        assert tie or row["stronger"] == stronger
    with pytest.raises(ConfigError, match="'majority' or 'weighted'"):
        pop_edges(store, project, aggregate="mean")


def test_weighted_votes_count_their_confidence(store: LabelStore) -> None:
    """1: 1 against 0.5 + 0.25; 2: 0.5 against a whole vote without confidence; 3: nothing weighs anything."""
    project = open_project(store, preferences(3), say=quiet)
    items = items_of(store, project)
    one, two, three = items
    give(store, project, "a", {one: "first", two: "first", three: "first"}, confidence=[1.0, 0.5, 0.0])
    give(store, project, "b", {one: "second", two: "second", three: "first"}, confidence=[0.5, None, 0.0])
    give(store, project, "c", {one: "second"}, confidence=[0.25])

    def edge(item: int, aggregate: str) -> tuple[str, bool, float]:
        edges, _ = pop_edges(store, project, aggregate=aggregate)
        (row,) = [row for row in edges.table.to_pylist() if {row["stronger"], row["weaker"]} == set(items[item])]
        assert row["source"] == aggregate
        return row["stronger"], row["tie"], row["confidence"]

    assert edge(one, "weighted") == (items[one][0], False, pytest.approx(1 / 1.75))
    assert edge(two, "weighted") == (items[two][1], False, pytest.approx(1 / 1.5))
    assert edge(three, "weighted")[1:] == (True, 0.0)
    assert edge(one, "majority") == (items[one][1], False, pytest.approx(2 / 3))
    assert edge(two, "majority")[1:] == (True, 0.5)
    assert edge(three, "majority") == (items[three][0], False, 1.0)


def test_votes_become_soft_labels_and_turn_rows_only_when_asked(store: LabelStore, tmp_path: Path) -> None:
    data = preferences(4)
    project = open_project(store, data, kind="preference", say=quiet)
    number = {row["first"]: row["item"] for batch in store.items(project.id) for row in batch.to_pylist()}
    give(store, project, "a", {number["p1"]: "second", number["p2"]: "first", number["p3"]: "unsure"})
    give(store, project, "b", {number["p1"]: "second", number["p2"]: "tie"})
    plain, turned = (preferences_of(store, project, wrong=how, unjudged="keep") for how in ("keep", "swap"))
    unrated = {"chosen_rating": None, "rejected_rating": None}
    assert plain[1] == {**data[1], **unrated, "soft_label": 0.0} and plain[2] == {**data[2], "soft_label": 0.75}
    assert plain.report.notes[1].startswith("1 have a soft label below ½ but ratings or a strength that say")
    plain.save(tmp_path / "kept.jsonl")
    trained = load_preferences(tmp_path / "kept.jsonl")  # towards the side that the votes prefer
    assert [row["chosen"] for row in trained.dataset] == [data[n]["rejected" if n == 1 else "chosen"] for n in range(4)]
    assert trained.soft_label[1:3].tolist() == [1.0, 0.75]
    assert plain[0] == data[0] and plain[3] == data[3]
    swapped = {
        **{one: data[1][other] for one, other in (("chosen", "rejected"), ("rejected", "chosen"))},
        **unrated,
    }
    assert turned[1] == {**data[1], **swapped, "soft_label": 1.0}
    assert turned[2] == plain[2]
    assert pop_edges(store, project)[1].left_out["single preferences"] == 5


def test_a_vote_counts_the_probability_that_it_came_with(store: LabelStore) -> None:
    """A judge that gives p = 0.8 to a side is that much of a soft label, not a whole vote."""
    project = open_project(store, preferences(4), kind="preference", say=quiet)
    number = {row["first"]: row["item"] for batch in store.items(project.id) for row in batch.to_pylist()}
    verdicts = {number["p0"]: "first", number["p1"]: "first", number["p2"]: "second", number["p3"]: "tie"}
    give(store, project, "a", verdicts, confidence=[0.8, None, 0.6, 0.5])
    give(store, project, "b", {number["p0"]: "second", number["p2"]: "second"}, confidence=[0.9, 0.7])
    sure = preferences_of(store, project, wrong="keep")
    whole = preferences_of(store, project, wrong="keep", votes="whole")
    assert sure.soft_label.tolist() == pytest.approx([(0.8 + 0.1) / 2, 1.0, (0.4 + 0.3) / 2, 0.5])
    assert whole.soft_label.tolist() == [0.5, 1.0, 0.0, 0.5]
    assert preferences_of(store, project)[2]["soft_label"] == pytest.approx(0.65)
    with pytest.raises(ConfigError, match="votes is 'half'; choose probability, whole"):
        preferences_of(store, project, votes="half")  # pyright: ignore[reportArgumentType]


def test_guesses_do_not_outvote_an_annotator_who_is_sure(store: LabelStore) -> None:
    """p0: sure of chosen against two guesses of the other; p1: a judge that leans to rejected, alone."""
    data = preferences(2)
    project = open_project(store, data, kind="preference", say=quiet)
    number = {row["first"]: row["item"] for batch in store.items(project.id) for row in batch.to_pylist()}
    give(store, project, "a", {number["p0"]: "first", number["p1"]: "second"}, confidence=[1.0, 0.6])
    give(store, project, "b", {number["p0"]: "second"}, confidence=[0.5])
    give(store, project, "c", {number["p0"]: "second"}, confidence=[0.5])
    labels = store.labels(project.id)
    assert wrong_preferences(labels) == {"p1": (1, 0)}
    assert wrong_preferences(labels, votes="whole") == {"p0": (2, 1), "p1": (1, 0)}
    found = preferences_of(store, project)
    assert found[0]["chosen"] == data[0]["chosen"] and found[1]["chosen"] == data[1]["rejected"]
    assert found.soft_label.tolist() == pytest.approx([2 / 3, 0.6])


def test_what_most_call_wrong_is_exchanged_dropped_or_kept(store: LabelStore, tmp_path: Path) -> None:
    """p0 p1, p1 p2, p2 p3, p3 p4: of three people two call p1 wrong, and one of three p3; a model cannot say so."""
    project = store.create_project("demo", overlap=3)
    data = preferences(5)
    store.import_preferences(project.id, data)
    store.add_items(project.id, "pop", ["p0", "p1", "p2", "p3"], ["p1", "p2", "p3", "p4"])
    project = store.project("demo")
    one, two, three, four = sorted(items_of(store, project), key=items_of(store, project).__getitem__)
    answers: dict[str, dict[int, tuple[Any, Any]]] = {
        "a": {one: ("wrong", "second"), two: ("first", None), three: ("tie", None), four: ("wrong", "first")},
        "b": {one: ("second", None), two: ("wrong", "first"), three: ("second", None), four: ("first", None)},
        "c": {one: ("second", None), two: ("first", None), three: ("unsure", None), four: ("first", None)},
    }
    for name, said in answers.items():
        who, _ = store.add_annotator(project.id, name)
        while (now := store.next_assignment(who.id)) is not None:
            verdict, wrong = said[now.item]
            store.record(who.id, now.id, verdict, wrong=wrong, request=str(now.id))
    for name in ("judge", "other"):
        give(store, project, name, {one: "first", two: "first"})
    labels = store.labels(project.id)
    assert wrong_preferences(labels) == {"p1": (2, 1)}  # a model's comparisons do not call it right
    swapped, dropped, kept = (
        preferences_of(store, project, wrong=how, models="equal") for how in ("swap", "drop", "keep")
    )
    assert kept.fingerprint() == data.fingerprint()
    assert [row for n, row in enumerate(swapped) if n != 1] == [row for n, row in enumerate(data) if n != 1]
    assert swapped[1] == {**data[1], "chosen": data[1]["rejected"], "rejected": data[1]["chosen"],
                          "chosen_rating": None, "rejected_rating": None}  # fmt: skip
    assert swapped.report.notes[1].startswith(
        "1 of them had ratings, a strength, margin or soft label that say the opposite"
    )
    swapped.save(tmp_path / "swapped.jsonl")
    assert load_preferences(str(tmp_path / "swapped.jsonl")).ids == data.ids  # training takes what was exchanged
    assert dropped.ids == ["p0", "p2", "p3", "p4"]
    report = dropped.report
    assert (report.rows_in, report.rows_kept, report.rows_reported) == (5, 4, 1)
    assert "2 of 3" in report.problems[0].message
    for found, done in ((swapped, "swapped"), (dropped, "left out"), (kept, "kept")):
        assert found.report.notes[0].startswith("1 marked wrong by most") and done in found.report.notes[0]
    edges, account = pop_edges(store, project, models="equal")
    assert {key for row in edges.table.to_pylist() for key in (row["stronger"], row["weaker"])} == {"p2", "p3", "p4"}
    assert account.left_out["about a preference that most annotators mark wrong"] == 8
    assert account.labels == labels.num_rows == account.used + sum(account.left_out.values()) == 16
    assert "marked wrong by most annotators: p1" in str(account)
    every, whole = pop_edges(store, project, wrong="keep", models="equal")
    assert len(every) == account.used + 8 and whole.left_out["about a preference that most annotators mark wrong"] == 0
    for call in (pop_edges, preferences_of):
        with pytest.raises(ConfigError, match="swap, drop, keep"):
            call(store, project, wrong="turn")


def test_as_many_for_as_against_changes_nothing(store: LabelStore) -> None:
    data = preferences(3)
    project = open_project(store, data, kind="preference", say=quiet)
    number = {row["first"]: row["item"] for batch in store.items(project.id) for row in batch.to_pylist()}
    give(store, project, "a", {number["p1"]: "second"})
    give(store, project, "b", {number["p1"]: "first"})
    found = preferences_of(store, project, unjudged="keep")
    assert found[1] == {**data[1], "soft_label": 0.5} and "1 are ties of the votes" in found.report.notes[0]


def test_what_says_the_opposite_of_an_exchange_is_left_empty(store: LabelStore) -> None:
    """p0 has a soft label of 0.3, which agrees with the exchange; strengths of 2 and soft labels of 0.9 do not."""
    made = preferences(3)
    columns = {**made.dataset.to_dict(), "soft_label": [0.3, 0.9, None], "strength": [None, None, 2.0]}
    data = Preferences(datasets.Dataset.from_dict(columns, features=made.dataset.features), made.report)
    project = store.create_project("demo")
    store.import_preferences(project.id, data)
    store.add_items(project.id, "pop", ["p0", "p1", "p2"], ["p1", "p2", "p0"])
    who, _ = store.add_annotator(project.id, "a")
    while (now := store.next_assignment(who.id)) is not None:
        store.record(who.id, now.id, "wrong", wrong="first", request=str(now.id))
    found = preferences_of(store, store.project("demo"))
    assert found.dataset["soft_label"][:] == [pytest.approx(0.7), None, None]
    assert found.dataset["strength"][:] == [None, None, None]
    assert found.report.notes[1].startswith("2 of them")


def test_a_scale_is_laid_out_from_zero(store: LabelStore, tmp_path: Path) -> None:
    project = open_project(store, preferences(3), say=quiet)
    edges = PopEdges.from_columns(["p0", "p1"], ["p1", "p2"])
    scale = fit_strengths(edges, ["p0", "p1", "p2"])
    scale.save(tmp_path / "scale.parquet")
    back = preferences_of(store, project, strengths=read_strengths(tmp_path / "scale.parquet"))
    assert min(scale.strength) < 0
    assert back.dataset["strength"][:] == half_normal_strengths(scale.strength).tolist()


def test_strengths_from_a_file(store: LabelStore, tmp_path: Path) -> None:
    project = open_project(store, preferences(3), say=quiet)
    path = tmp_path / "strengths.parquet"
    pq.write_table(pa.table({"id": ["p2", "p0"], "strength": [0.25, 1.5], "deviation": [1.0, 1.0]}), path)
    back = preferences_of(store, project, strengths=read_strengths(path))
    assert back.dataset["strength"][:] == [1.5, None, 0.25]
    for table, message in (
        ({"id": ["p0", "p0"], "strength": [1.0, 2.0]}, "more than once"),
        ({"id": ["p0"]}, "no column 'strength'"),
        ({"id": ["p0"], "strength": ["strong"]}, "column 'strength': not numbers"),
        ({"id": ["p0"], "strength": [[1.0]]}, "column 'strength': not numbers"),
    ):
        pq.write_table(pa.table(table), path)
        with pytest.raises(DataError, match=message):
            read_strengths(path)
    for strengths, message in (
        ({"q": 1.0}, "such as 'q'"),
        ({"p0": float("nan")}, "not finite"),
        ({"p0": -1.0}, "is negative"),
    ):
        with pytest.raises(DataError, match=message):
            preferences_of(store, project, strengths=strengths)


def test_the_history_holds_every_revision(store: LabelStore, tmp_path: Path) -> None:
    project = open_project(store, preferences(3), say=quiet)
    who, _ = store.add_annotator(project.id, "Zoë")
    now = store.next_assignment(who.id)
    assert now is not None
    store.record(who.id, now.id, "first", request="1", note="because «this»", seconds=2.5)
    store.undo(who.id)
    store.record(who.id, now.id, "tie", request="2")
    save_labels(store.label_history(project.id), tmp_path / "history.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["verdict"], row["revision"]) for row in rows] == [("first", 1), (None, 2), ("tie", 3)]
    assert rows[0]["note"] == "because «this»" and rows[0]["created_at"] == "2026-01-01T00:00:00+00:00"
    save_labels(store.labels(project.id), tmp_path / "labels.parquet")
    assert pq.read_table(tmp_path / "labels.parquet") == store.labels(project.id)
