"""Rows that are added to a running project: counted, asked about, and never in place of others."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from label_stores import preferences

from popmargin.cli.main import main
from popmargin.errors import ConfigError, DataError
from popmargin.label.projects.append import append_rows, extend_pairs
from popmargin.label.projects.open_project import open_project
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project


def quiet(line: str) -> None: ...


def pairs(store: LabelStore, project: Project) -> list[tuple[str, str | None, str | None]]:
    return [
        (row["first"], row["second"], row["response"]) for batch in store.items(project.id) for row in batch.to_pylist()
    ]


def test_new_preferences_are_joined_to_the_old_ones(store: LabelStore) -> None:
    """Every new preference is compared, no pair comes twice, and a path leads from an old one through all new ones."""
    project = open_project(store, preferences(6), k=2, say=quiet)
    before = pairs(store, project)
    said: list[str] = []
    grown = append_rows(store, project, preferences(10), k=2, say=said.append)
    assert said[0] == "rows for project 'default': 10 in = 4 new + 6 left out (already there: 6)"
    after = pairs(store, project)
    assert after[: len(before)] == before and grown.items == len(after)
    added = [frozenset(pair[:2]) for pair in after[len(before) :]]
    new = {f"p{row}" for row in range(6, 10)}
    assert (
        4 < len(set(added)) == len(added) <= 8
        and all(pair & new for pair in added)
        and set.union(*map(set, added)) >= new
    )
    reached, count = {f"p{row}" for row in range(6)}, 0
    while len(reached) > count:
        count = len(reached)
        reached |= {key for pair in added if pair & reached for key in pair if key is not None}
    assert reached >= new
    assert append_rows(store, grown, preferences(10), say=said.append) == grown
    assert said[-1] == "rows for project 'default': 10 in = 0 new + 10 left out (already there: 10)"


@pytest.mark.parametrize("sampling", ["chain", "random"])
def test_pairs_that_extend_a_project(sampling: str) -> None:
    first, second = extend_pairs(3, 50, sampling=sampling, k=4, seed=5)
    found = [frozenset(pair) for pair in zip(first, second, strict=True)]
    assert len(set(found)) == len(found) and all(len(pair) == 2 and max(pair) >= 3 for pair in found)
    assert 0.9 * 200 < len(found) <= 200 and {row for pair in found for row in pair} >= set(range(3, 53))
    with pytest.raises(ConfigError, match="with chain or random"):
        extend_pairs(3, 5, sampling="iterative")


def test_other_kinds_ask_once_about_what_is_new(store: LabelStore) -> None:
    whole = preferences(6)
    single = open_project(store, whole.select(range(4)), "single", kind="preference", say=quiet)
    append_rows(store, single, whole, say=quiet)
    assert sorted(key for key, _, _ in pairs(store, single)) == [f"p{row}" for row in range(6)]
    rated = open_project(store, whole.select(range(4)), "rated", kind="rating", say=quiet)
    before = len(pairs(store, rated))
    append_rows(store, rated, whole, say=quiet)
    assert before == 8 and len(pairs(store, rated)) == len(set(pairs(store, rated))) == 12
    with pytest.raises(ConfigError, match="has items of kind 'rating'"):
        append_rows(store, rated, whole, kind="pop", say=quiet)
    with pytest.raises(ConfigError, match="overlap 1, not 2"):
        append_rows(store, rated, whole, overlap=2, say=quiet)
    with pytest.raises(ConfigError, match="--k draws pairs of preferences"):
        append_rows(store, rated, preferences(7), k=2, say=quiet)
    empty = store.create_project("empty")
    with pytest.raises(DataError, match="without --append"):
        append_rows(store, empty, whole, say=quiet)


def test_changed_rows_are_refused_by_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is stored with one changed row; with --bad-rows drop the others are, and the sum says so."""
    db, data = str(tmp_path / "labels.db"), tmp_path / "data.jsonl"

    def write(rows: list[dict[str, Any]]) -> None:
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    rows = [{"id": f"r{i}", "prompt": f"q{i}", "response_a": f"a{i}", "response_b": f"b{i}"} for i in range(5)]
    write(rows[:3])
    append = ["label", "import", str(data), "--db", db, "--append"]
    assert main(append) == 2  # there is no store
    assert main(append[:-1]) == 0
    rows[1]["response_a"] = "changed"
    write(rows)
    capsys.readouterr()
    assert main(append) == 2
    said = capsys.readouterr().err
    assert "1 row differs from project 'default'" in said and "id 'r1', column 'chosen'" in said
    assert "Give a changed row a new id" in said
    with LabelStore.open(db) as store:
        assert store.project().preferences == 3
    assert main([*append, "--bad-rows", "drop"]) == 0
    said = capsys.readouterr().out
    assert "5 in = 2 new + 3 left out (already there: 2, changed: 1)" in said and "id 'r1'" in said
    assert "2 items of kind 'preference' added" in said
    assert main([*append, "--gold", str(data)]) == 2
    with LabelStore.open(db) as store:
        project = store.project()
        assert store.texts(project.id, ["r1"])["r1"].chosen == "a1" and project.items == 5


def test_rows_come_while_people_label(url: str, make_project: Callable[..., Project]) -> None:
    """Two people label without a pause while rows are appended nine times; everybody gets every item, once."""
    project = make_project(5, kind="preference", overlap=2)
    done = threading.Event()
    errors: list[BaseException] = []

    def label(name: str) -> None:
        try:
            with LabelStore.open(url) as store:
                who, _ = store.add_annotator(project.id, name)
                while True:
                    ended = done.is_set()
                    task = store.next_assignment(who.id)
                    if task is None and ended:
                        return
                    if task is None:
                        done.wait(0.01)
                    else:
                        store.record(who.id, task.id, "first", request=str(task.id))
        except BaseException as error:
            errors.append(error)

    people = [threading.Thread(target=label, args=(name,)) for name in ("ann", "ben")]
    for person in people:
        person.start()
    with LabelStore.open(url) as store:
        for count in range(7, 25, 2):
            append_rows(store, store.project(), preferences(count), say=quiet)
        done.set()
        for person in people:
            person.join(60)
        assert not errors and not any(person.is_alive() for person in people)
        found = store.labels(project.id, columns=("first", "annotator")).to_pylist()
        progress = store.progress(project.id)
    given = {(row["first"], row["annotator"]) for row in found}
    asked = {f"p{row}" for row in (*range(5), *range(6, 23))}  # p5 has no item in `make_project`
    assert len(found) == len(given) and given == {(key, name) for key in asked for name in ("ann", "ben")}
    assert progress.labels_done == progress.labels_wanted == 44
