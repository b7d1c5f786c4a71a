"""Several criteria a task: one answer has a verdict on each, all or none; reports and exports know them apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")

from label_stores import preferences

from popmargin.cli.criteria_option import read_criteria
from popmargin.errors import ConfigError, DataError
from popmargin.label.export.criteria_columns import criteria_labels
from popmargin.label.export.label_files import save_labels
from popmargin.label.export.preferences import preferences_of
from popmargin.label.export.rated_responses import rated_responses
from popmargin.label.outside.import_labels import Imported, import_labels
from popmargin.label.projects.open_project import open_project
from popmargin.label.quality.criteria_quality import criteria_agreement
from popmargin.label.quality.label_quality import label_quality
from popmargin.label.quality.report_page import write_label_report
from popmargin.label.store.criteria import of_criterion
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project

CRITERIA = read_criteria(["clear: Which response is clearer?", "kind: Which one is kinder?"])
NAMES = ["clear", "kind"]


@pytest.fixture
def store(tmp_path: Path):
    with LabelStore.open(tmp_path / "labels.db") as opened:
        yield opened


def compared(store: LabelStore, said: dict[str, str]) -> Project:
    """Three people, whose verdicts on both criteria are the letters f, s, t, u in these words, by preference."""
    project = open_project(
        store, preferences(len(said)), "demo", kind="preference", criteria=CRITERIA, overlap=3, say=lambda line: None
    )
    words = {"f": "first", "s": "second", "t": "tie", "u": "unsure"}
    for voter in range(3):
        who = store.add_annotator(project.id, f"ann{voter}")[0].id
        while (task := store.next_assignment(who)) is not None:
            one, other = (words[letter] for letter in said[task.first.id].split()[voter])
            store.record(who, task.id, one, request=f"{voter}-{task.id}", criteria={"kind": other})
    return project


def test_an_answer_is_stored_whole_or_not_at_all(store: LabelStore) -> None:
    project = open_project(store, preferences(2), "demo", kind="preference", criteria=CRITERIA, say=lambda line: None)
    assert not project.grades and "Which one is kinder?" in project.guidelines
    who = store.add_annotator(project.id, "ann")[0].id
    task = store.next_assignment(who)
    for criteria, message in (
        ({}, "no answer on criterion 'kind'"),
        ({"kind": "first", "rude": "tie"}, "no further criterion 'rude'"),
        ({"kind": "both_bad"}, "criterion 'kind': 'both_bad' is no answer"),
        ({"kind": "3"}, "is no answer"),
    ):
        with pytest.raises(DataError, match=message):
            store.record(who, task.id, "first", request="request-1", criteria=criteria)
    assert store.labels(project.id).num_rows == 0
    stored = store.record(who, task.id, "first", request="request-1", criteria={"kind": "tie"})
    assert stored.criteria == {"kind": "tie"}
    assert store.record(who, task.id, "first", request="request-1", criteria={"kind": "tie"}).id == stored.id
    with pytest.raises(DataError, match="already stored a different answer"):
        store.record(who, task.id, "first", request="request-1", criteria={"kind": "first"})
    assert store.assignment(who, task.id).label.criteria == {"kind": "tie"}
    store.undo(who)
    assert store.labels(project.id).num_rows == 0


def test_an_export_has_a_column_for_each_criterion_and_one_decides(store: LabelStore) -> None:
    project = compared(store, {"p0": "ff ft fs", "p1": "ss st ff", "p2": "fu fs fs", "p3": "tt tt tt"})
    table = criteria_labels(store.labels(project.id), project)
    assert "criteria" not in table.column_names and table.column_names[-2:] == ["clear", "criterion_kind"]
    # A column named kind is there already.
    rows = {(row["first"], row["annotator"]): (row["clear"], row["criterion_kind"]) for row in table.to_pylist()}
    assert rows["p0", "ann2"] == ("first", "second") and rows["p2", "ann0"] == ("first", "unsure")
    found = {row["id"]: row for row in preferences_of(store, project).dataset.to_list()}
    # p1: two of three say that rejected is clearer, so the responses are swapped with all that belongs to them.
    assert found["p1"]["chosen"].startswith("bad 1") and found["p1"]["chosen_share_clear"] == pytest.approx(2 / 3)
    assert found["p1"]["chosen_share_kind"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert found["p0"]["chosen_share_kind"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert found["p2"]["rejected_share_kind"] == 1.0 and found["p2"]["soft_label"] == 1.0
    by_kind = {row["id"]: row for row in preferences_of(store, project, criterion="kind").dataset.to_list()}
    assert by_kind["p2"]["chosen"].startswith("bad 2") and by_kind["p0"]["soft_label"] == 0.5
    with pytest.raises(ConfigError, match=r"no criterion 'kinds'.*Did you mean 'kind'"):
        preferences_of(store, project, criterion="kinds")


def test_agreement_is_told_for_each_criterion(store: LabelStore, tmp_path: Path) -> None:
    project = compared(store, {"p0": "ff ff fs", "p1": "ss sf ss", "p2": "ff fu fs", "p3": "ss st ss"})
    labels = store.labels(project.id)
    clear, kind = criteria_agreement(labels, NAMES)
    assert (clear.name, clear.items, clear.shared, clear.alpha.estimate) == ("clear", 4, 4, 1.0)
    # On kindness: f f s, s f s, f s, s t s. With n = 11 verdicts (4 f, 6 s, 1 t), each item disagrees by 2, so
    # the observed disagreement is 8/n, and the expected one (n² − 4² − 6² − 1²) / (n (n − 1)) = 68/110.
    assert kind.alpha.estimate == pytest.approx(1 - (8 / 11) / (68 / 110))
    assert kind.unsure == pytest.approx(1 / 12)
    assert of_criterion(labels, NAMES, "clear") is labels
    quality = label_quality(labels, criteria=NAMES)
    assert quality.criteria == [clear, kind]
    page = tmp_path / "report.html"
    write_label_report(quality, page, "demo")
    assert '<th scope="row">kind</th><td>4</td><td>4</td>' in page.read_text(encoding="utf-8")
    assert criteria_agreement(labels.slice(0, 0), NAMES) == criteria_agreement(labels, []) == []


def test_ratings_on_several_criteria(store: LabelStore) -> None:
    project = open_project(
        store, preferences(2), "rated", kind="rating", criteria=CRITERIA, overlap=2, say=lambda line: None
    )
    for voter in range(2):
        who = store.add_annotator(project.id, f"ann{voter}")[0].id
        while (task := store.next_assignment(who)) is not None:
            better = task.response == "chosen"
            main, other = ("5" if better else "2"), ("unsure" if voter else "1" if better else "4")
            store.record(who, task.id, main, request=f"{voter}-{task.id}", criteria={"kind": other})
    table, _ = rated_responses(store, project)
    found = {row["response"][:3]: row for row in table.to_pylist()}
    assert (found["goo"]["rating"], found["goo"]["rating_clear"], found["goo"]["rating_kind"]) == (5.0, 5.0, 1.0)
    assert rated_responses(store, project, criterion="kind")[0]["rating"].to_pylist() == [1.0, 4.0, 1.0, 4.0]
    rows = preferences_of(store, project).dataset.to_list()
    assert rows[0]["chosen_rating"] == 5.0 and rows[0]["rejected_rating_kind"] == 4.0
    (turned, _) = preferences_of(store, project, criterion="kind").dataset.to_list()
    assert turned["chosen"].startswith("bad 0") and turned["chosen_rating_clear"] == 2.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["clear: Which?"], "give 2 to 12"),
        (["clear: Which?", "clear: How?"], "given twice"),
        (["clear", "kind: Which?"], "a name, a colon and a question"),
        (["Clear: Which?", "kind: Which?"], "a name becomes a column"),
        (["chosen_x: Which?", "kind: Which?"], "not chosen or rejected"),
        (["clear: ", "kind: Which?"], "no question"),
    ],
)
def test_criteria_that_cannot_be_used(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_criteria(given)


def test_criteria_in_a_file_and_with_settings_that_exclude_them(store: LabelStore, tmp_path: Path) -> None:
    path = tmp_path / "criteria.yaml"
    path.write_text("clear: Which response is clearer?\nkind: Which one is kinder?\n", encoding="utf-8")
    assert read_criteria([str(path)]) == CRITERIA
    path.write_text("- clear\n- kind\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="one criterion a line"):
        read_criteria([str(path)])
    for settings, message in (
        ({}, "not 'pop'"),
        ({"kind": "preference", "grades": True}, "without a wording or grades"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_project(store, preferences(3), "no", criteria=CRITERIA, say=lambda line: None, **settings)
    assert store.projects() == []
    project = compared(store, {"p0": "ff ff ff", "p1": "ff ff ff"})
    judge = store.add_annotator(project.id, "judge", kind="judge")[0]
    import pyarrow as pa

    with pytest.raises(ConfigError, match="several criteria"):
        store.record_many(judge.id, pa.table({"item": [1], "verdict": ["first"], "request": ["request-1"]}))


def test_labels_on_criteria_come_in_as_they_are_exported(store: LabelStore, tmp_path: Path) -> None:
    project = compared(store, {"p0": "ff ft fs", "p1": "ss st ff"})
    table = criteria_labels(store.labels(project.id), project)
    path = tmp_path / "labels.csv"
    save_labels(table, path)
    second = open_project(store, preferences(2), "second", kind="preference", criteria=CRITERIA, say=lambda line: None)

    def told_of(text: str | None = None, **more: Any) -> Imported:
        path.write_text(text or path.read_text(encoding="utf-8"), encoding="utf-8")
        return import_labels(store, second, path, **{"format": "csv", **more})

    assert told_of().account.kept == {"stored": 6}
    names = ["first", "annotator", "verdict", "criteria"]

    def rows(number: int) -> list[tuple[str, ...]]:
        labels = store.labels(number)
        return sorted(zip(*(labels[name].to_pylist() for name in names), strict=True))

    assert rows(second.id) == rows(project.id)
    assert told_of().account.left_out == {"already there": 6}
    head = "id,annotator,clear,nice"
    given = f"{head}\np0,ann0,first,second\np1,new,first,\np1,other,first,maybe\np0,new,second,tie\n"
    found = told_of(given, named={"kind": "nice"})
    assert found.account.kept == {"stored": 1} and found.account.left_out == {
        "a criterion without an answer": 2,
        "another answer stands": 1,
    }
    assert "it has no answer on criterion 'kind'" in found.left_out[0].message
    assert "'maybe' is no answer on criterion 'kind'" in found.left_out[1].message
    assert "'first; kind: first', not 'first'" in found.left_out[2].message
    for more, message in (({"format": "argilla"}, "from argilla to CSV"), ({"question": "x"}, "--question names one")):
        with pytest.raises(ConfigError, match=message):
            told_of(**more)


@pytest.mark.parametrize(
    ("kind", "said", "by_criterion"),
    [
        # p0: apart on kindness alone; p1: on neither, one cannot tell; p2: on clearness; p3: on both.
        (
            "preference",
            {"p0": "ff fs ff", "p1": "ft fu ft", "p2": "ft st ft", "p3": "ff st ff"},
            {"clear": 2, "kind": 2},
        ),
        ("rating", {"p0": "41 43 51", "p1": "32 43 32"}, {"clear": 0, "kind": 1}),
    ],
)
def test_people_who_disagree_on_any_criterion_are_disputed(
    tmp_path: Path, kind: str, said: dict[str, str], by_criterion: dict[str, int]
) -> None:
    address = tmp_path / "labels.db"
    with LabelStore.open(address) as opened:
        disputed_on_any(opened, kind, said, by_criterion)


@pytest.mark.slow
def test_people_who_disagree_on_any_criterion_are_disputed_in_postgres(new_database: Callable[[], str]) -> None:
    with LabelStore.open(new_database()) as opened:
        disputed_on_any(opened, "rating", {"p0": "41 43 51", "p1": "32 43 32"}, {"clear": 0, "kind": 1})


def disputed_on_any(store: LabelStore, kind: str, said: dict[str, str], by_criterion: dict[str, int]) -> None:
    """Three people answer both questions in the letters of these words; the judge decides, and that is exported."""
    words = {"f": "first", "s": "second", "t": "tie", "u": "unsure"}
    rows = preferences(len(said))
    project = open_project(store, rows, "asked", kind=kind, criteria=CRITERIA, overlap=3, say=lambda line: None)
    for voter in range(3):
        who = store.add_annotator(project.id, f"ann{voter}")[0].id
        while (task := store.next_assignment(who)) is not None:
            both = (
                said[task.first.id].split()[voter]
                if task.response != "rejected"
                else ("33" if kind == "rating" else "")
            )
            one, other = (words.get(letter, letter) for letter in both)
            store.record(who, task.id, one, request=f"{voter}-{task.id}", criteria={"kind": other})
    contested = {"p0", "p2", "p3"} if kind == "preference" else {"p0"}
    assert store.disputed(project.id) == len(contested) and store.disputed_by_criterion(project.id) == by_criterion
    assert len(store.browse(project.id, state="disputed").items) == len(contested)
    judge = store.add_annotator(project.id, "eve")[0].id
    store.set_adjudicator(judge, True)
    decided = set[str]()
    while (task := store.next_assignment(judge)) is not None:
        assert task.adjudicates
        votes = store.votes_on(task.item)
        if task.first.id == "p0":
            first = "first" if kind == "preference" else "4"
            assert [vote.verdict for vote in votes][:2] == [first, first]
            assert len({vote.criteria["kind"] for vote in votes}) == 2
        decided.add(task.first.id)
        verdicts = ("second", "second") if kind == "preference" else ("1", "5")
        store.record(judge, task.id, verdicts[0], request=f"judge-{task.id}", criteria={"kind": verdicts[1]})
    assert decided == contested and store.disputed(project.id) == 0
    for criterion, letter in ("clear", 0), ("kind", 1):
        found = preferences_of(store, project, criterion=criterion)
        (row,) = [row for row in found.dataset.to_list() if row["id"] == "p0"]
        if kind == "preference":  # the decision wins on both
            assert row["chosen"].startswith("bad 0") and row["soft_label"] == 1.0
        else:
            assert {row["chosen_rating"], row["rejected_rating"]} == ({1.0, 3.0} if letter == 0 else {5.0, 3.0})
