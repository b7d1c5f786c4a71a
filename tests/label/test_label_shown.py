"""Columns of the data that people see with a task: those that were asked for, and no others."""

from pathlib import Path

import pytest

from popmargin.data.load import load_preferences
from popmargin.errors import ConfigError
from popmargin.label.projects.open_project import open_project
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project
from popmargin.label.web.screen import screen_of

pytest.importorskip("sqlalchemy")
ROWS = [
    {"id": f"p{row}", "prompt": f"q{row}", "chosen": f"a{row}", "rejected": f"b{row}",
     "stance": "pro" if row else "<con>", "year": 2000 + row, "chosen_model": "mine", "secret": "the answer"}
    for row in range(3)
]  # fmt: skip


@pytest.fixture
def store(tmp_path: Path):
    with LabelStore.open(tmp_path / "labels.db") as opened:
        yield opened


def project_of(store: LabelStore, **settings) -> Project:
    return open_project(store, load_preferences(ROWS), "demo", say=lambda line: None, **settings)


def first_task(store: LabelStore, project: Project):
    return store.next_assignment(store.add_annotator(project.id, f"ann{project.shown}")[0].id)


def test_each_pair_has_its_own_columns_in_the_order_that_was_asked_for(store: LabelStore) -> None:
    project = project_of(store, shown=("year", "stance"))
    assert project.shown == ("year", "stance")
    task = first_task(store, project)
    for preference in (task.first, task.second):
        row = int(preference.id[1:])
        assert preference.columns == (("year", str(2000 + row)), ("stance", "pro" if row else "<con>"))
    sides = {dict(side.columns)["year"]: side.prompt for side in screen_of(task).sides}
    assert sides == {str(2000 + int(one.id[1:])): one.prompt for one in (task.first, task.second)}


def test_they_change_while_people_label_and_the_change_is_logged(store: LabelStore) -> None:
    project = project_of(store, kind="preference")
    assert first_task(store, project).first.columns == ()
    assert store.change(project.id, shown=("stance",)).shown == ("stance",)
    who = store.annotators(project.id)[0].id
    assert [name for name, _ in store.next_assignment(who).first.columns] == ["stance"]
    assert store.change(project.id, shown=()).shown == () and store.next_assignment(who).first.columns == ()
    assert [(one.setting, one.before, one.after) for one in store.changes(project.id)] == [
        ("shown", "", '["stance"]'), ("shown", '["stance"]', ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stanse", "no column 'stanse'.*stance"),
        ("chosen_model", "would repeat a text, or tell"),
        ("soft_label", "tell"),
    ],
)
def test_what_is_missing_or_would_give_the_answer_away_is_refused(store: LabelStore, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        project_of(store, shown=(name,))
    assert store.projects() == []
    project = project_of(store)
    with pytest.raises(ConfigError, match=message):
        store.change(project.id, shown=("stance", name))
    assert store.project("demo").shown == ()
