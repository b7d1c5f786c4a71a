"""Both bad: an answer where the project offers it; counted everywhere, trained on nowhere without being asked for."""

from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

from label_stores import preferences

from popmargin.errors import ConfigError, DataError
from popmargin.label.export.pop_edges import pop_edges
from popmargin.label.export.preferences import preferences_of
from popmargin.label.projects.open_project import open_project
from popmargin.label.quality.annotators import annotator_quality
from popmargin.label.quality.label_quality import label_quality
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project

SAID = {
    "p0": "first first first",
    "p1": "both_bad both_bad first",
    "p2": "both_bad second second",
    "p3": "both_bad both_bad both_bad",
    "p4": "both_bad tie unsure",  # half of the votes is not most
}


@pytest.fixture
def store(tmp_path: Path):
    with LabelStore.open(tmp_path / "labels.db") as opened:
        yield opened


def labelled(store: LabelStore) -> Project:
    project = open_project(
        store, preferences(5), "demo", kind="preference", both_bad=True, grades=False, overlap=3, say=lambda line: None
    )
    for voter in range(3):
        who = store.add_annotator(project.id, f"ann{voter}")[0].id
        while (task := store.next_assignment(who)) is not None:
            store.record(who, task.id, SAID[task.first.id].split()[voter], request=f"{voter}-{task.id}")
    return project


def test_an_export_leaves_out_what_most_call_bad_and_says_how_many(store: LabelStore) -> None:
    found = preferences_of(store, labelled(store), unjudged="keep")
    assert found.ids == ["p0", "p2", "p4"]
    (note,) = [note for note in found.report.notes if "both bad" in note]
    assert "4 preferences called both bad by somebody, 2 by most" in note and "left out" in note
    problems = {problem.position: (problem.kind, problem.message) for problem in found.report.problems}
    assert problems[1] == ("both_bad", "67% of the votes say that both responses are bad.")
    assert problems[3][1].startswith("100%") and len(problems) == 2
    kept = {row["id"]: row for row in found.dataset.to_list()}
    assert kept["p2"]["both_bad"] == pytest.approx(1 / 3) and kept["p0"]["both_bad"] is None
    # The vote of who called both bad says nothing about which is better.
    assert kept["p2"]["soft_label"] == 1.0 and kept["p4"]["soft_label"] == 0.5


def test_kept_rows_have_what_the_others_say_and_without_others_they_are_unjudged(store: LabelStore) -> None:
    project = labelled(store)
    found = preferences_of(store, project, both_bad="keep")
    assert found.ids == ["p0", "p1", "p2", "p4"]
    assert [problem.kind for problem in found.report.problems] == ["unjudged"]
    rows = {row["id"]: row for row in found.dataset.to_list()}
    assert rows["p1"]["soft_label"] == 1.0 and rows["p1"]["both_bad"] == pytest.approx(2 / 3)
    weighted = preferences_of(store, project, weights={"ann2": 5.0})
    assert weighted.ids == ["p0", "p1", "p2", "p4"]  # 2 of 7 votes, not 2 of 3


def test_edges_agreement_and_disputes_see_it_as_an_answer_of_its_own(store: LabelStore) -> None:
    project = labelled(store)
    assert pop_edges(store, project)[1].left_out["single preferences"] == 15
    rows, (kind,) = annotator_quality(store.labels(project.id))
    assert [row.both_bad for row in rows] == [0.8, 0.4, 0.2] and rows[2].unsure == 0.2
    # Pairs of people who agree: p0 and p3 all three, p1 and p2 one each; p4 has one pair of votes, which disagree.
    assert kind.pairs.estimate == pytest.approx(8 / 13)
    assert label_quality(store.labels(project.id)).both_bad
    assert store.disputed(project.id) == 3  # p1, p2, p4


def test_it_is_an_answer_only_where_it_is_offered(store: LabelStore) -> None:
    with pytest.raises(ConfigError, match="for kind 'preference', not 'pop'"):
        open_project(store, preferences(3), "pairs", both_bad=True, say=lambda line: None)
    project = open_project(store, preferences(3), "plain", kind="preference", say=lambda line: None)
    who = store.add_annotator(project.id, "ann")[0].id
    task = store.next_assignment(who)
    with pytest.raises(DataError, match="does not offer the answer that both are bad"):
        store.record(who, task.id, "both_bad", request="r1")
    store.change(project.id, both_bad=True)
    store.record(who, task.id, "both_bad", request="r1")
    (change,) = store.changes(project.id)
    assert (change.setting, change.before, change.after) == ("both_bad", "False", "True")
    with pytest.raises(DataError, match="'both_bad' is an answer about two responses"):
        pairs = open_project(store, preferences(3), "pairs", say=lambda line: None)
        other = store.add_annotator(pairs.id, "ann")[0].id
        store.record(other, store.next_assignment(other).id, "both_bad", request="r1")
    with pytest.raises(ConfigError, match="'Both bad' is an answer about two responses"):
        store.change(pairs.id, both_bad=True)
