"""Known answers on any of a project's criteria: from files and programs, in training, and in how often people know."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")

from popmargin.cli.criteria_option import read_criteria
from popmargin.data.load import load_preferences
from popmargin.errors import DataError
from popmargin.label.export.criteria_columns import criteria_labels
from popmargin.label.projects.change_gold import set_known_answers
from popmargin.label.projects.open_project import open_project
from popmargin.label.quality.label_quality import label_quality
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project

CRITERIA = read_criteria(["clear: Which response is clearer?", "kind: Which one is kinder?"])
NAMES = ["clear", "kind"]


@pytest.fixture
def store(tmp_path: Path):
    with LabelStore.open(tmp_path / "labels.db") as opened:
        yield opened


def rows(*known: dict[str, Any], count: int = 4) -> Any:
    """The first preferences with these columns."""
    data = [
        {"id": f"p{n}", "prompt": f"prompt {n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(count)
    ]
    return load_preferences([one | more for one, more in zip(data, known, strict=False)], ties="keep")


def asked(store: LabelStore, gold: Any = None, **more: Any) -> Project:
    settings = {"kind": "preference", "criteria": CRITERIA, "gold": gold, "say": lambda line: None, **more}
    return open_project(store, rows(*[{}] * 4), "demo", **settings)


def known(store: LabelStore, project: Project) -> dict[str, dict[str, str]]:
    page = store.item_page(project.id, gold=True)
    return {row["first"] + (row["response"] or ""): row["gold_criteria"] for row in page}


def test_a_file_names_answers_on_any_criterion(store: LabelStore) -> None:
    turned = {"chosen": "bad 1", "rejected": "good 1"}
    gold = rows({"clear": "a"}, {**turned, "criterion_kind": "first", "clear": "second"}, {"criterion_kind": "tie"})
    project = asked(store, gold)
    assert project.gold_items == 3 and known(store, project) == {
        "p0": {"clear": "first"}, "p1": {"clear": "first", "kind": "second"}, "p2": {"kind": "tie"},
    }  # fmt: skip
    # `gold` is about the first criterion, and p2 has none on it.
    assert [row["gold"] for row in store.item_page(project.id, gold=True)].count(None) == 1
    assert asked(store, gold).id == project.id  # the same gold again
    # Another file adds to what is known; a file without such columns is about the first criterion.
    assert set_known_answers(store, project, rows({"criterion_kind": "second"}))["changed"] == 1
    assert known(store, project)["p0"] == {"clear": "first", "kind": "second"}
    counts = set_known_answers(store, project, rows({}, {}, {}, {}))
    assert (counts["new"], counts["changed"]) == (1, 1) and known(store, project)["p3"] == {"clear": "first"}
    assert set_known_answers(store, project, rows({}, {}), remove=True)["removed"] == 2
    assert set(known(store, project)) == {"p2", "p3"}
    for one, message in (
        ({"clear": "maybe"}, r"'p0', column 'clear': 'maybe' is no answer"),
        ({"clear": ""}, "has no answer in any of its columns clear"),
    ):
        with pytest.raises(DataError, match=message):
            set_known_answers(store, project, rows(one))


def test_known_ratings_on_criteria(store: LabelStore) -> None:
    gold = rows({"chosen_rating_kind": 4, "rejected_rating_clear": 2}, {"chosen_rating_kind": None})
    project = asked(store, gold, kind="rating")
    assert known(store, project) == {"p0chosen": {"kind": "4"}, "p0rejected": {"clear": "2"}}
    with pytest.raises(DataError, match="column 'chosen_rating_kind': 9 is not on the scale from 1 to 5"):
        set_known_answers(store, project, rows({"chosen_rating_kind": 9}))


def test_a_program_changes_what_is_known(store: LabelStore) -> None:
    project = asked(store)
    (item, *_) = [row["item"] for row in store.item_page(project.id)]
    assert store.set_gold(project.id, {item: {"kind": "first"}}) == {"new": 1, "changed": 0, "removed": 0}
    assert store.set_gold(project.id, {item: "second"})["changed"] == 1  # on the first criterion
    assert [*known(store, project).values()] == [{"clear": "second", "kind": "first"}]
    assert store.set_gold(project.id, {item: {"clear": None}})["changed"] == 1
    assert store.set_gold(project.id, {item: {"kind": None}})["removed"] == 1
    assert store.project("demo").gold_items == 0
    wrong = ({"kinds": "first"}, "no criterion 'kinds'"), ({"kind": "3"}, "criterion 'kind': gold is '3'")
    for answer, message in wrong:
        with pytest.raises(DataError, match=message):
            store.set_gold(project.id, {item: answer})  # pyright: ignore[reportArgumentType]


def test_training_and_accuracy_count_each_criterion_that_is_known(store: LabelStore) -> None:
    project = asked(store)
    items = {row["first"]: row["item"] for row in store.item_page(project.id)}
    told = {"clear": "first", "kind": "second"}
    store.set_gold(project.id, {items["p0"]: told, items["p1"]: {"kind": "second"}, items["p2"]: told})
    store.change(project.id, training=2, passing=0.75)
    ann, ben = (store.add_annotator(project.id, name)[0].id for name in ("ann", "ben"))

    def answer(who: int, clear: str, kind: str) -> Any:
        task = store.next_assignment(who)
        store.record(who, task.id, clear, request=f"r-{who}-{task.id}", criteria={"kind": kind})
        return store.assignment(who, task.id)

    first = answer(ann, "first", "first")
    assert known(store, project)[first.first.id] == {**({"clear": first.gold} if first.gold else {}), "kind": "second"}
    assert first.gold_criteria == {"kind": "second"}
    answer(ann, "first", "second")
    tried = store.trained(project.id)[ann]
    assert tried.given == tried.answered == 2
    asked_for = sum(len(found) for found in known(store, project).values())
    assert asked_for == 5 and tried.asked in (3, 4) and tried.right == tried.asked - 1
    # One of 3 or 4 answers is wrong: with 3 that is 67%, too few; counted by items it were half of them.
    held = {one.name: one.held for one in store.annotators(project.id)}
    assert held["ann"] == (tried.right < 0.75 * tried.asked)
    store.change(project.id, passing=None, training=None)
    for _ in range(4):
        answer(ben, "first", "first")
    quality = label_quality(store.labels(project.id), criteria=NAMES)
    # Of ben's answers to p0, p1, p2 both on clearness are the known ones, and none of the three on kindness is.
    (found,) = [one for one in quality.annotators if one.name == "ben"]
    assert found.gold.estimate == pytest.approx(2 / 5)
    table = criteria_labels(store.labels(project.id), project)
    assert table.column_names[-2:] == ["gold_clear", "gold_kind"]
    assert table["gold_kind"].to_pylist().count("second") == 5
