"""Several projects in one report: what is held together, and what is refused."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from popmargin.cli.main import main
from popmargin.data.load import load_preferences
from popmargin.errors import ConfigError, DataError
from popmargin.label.projects.open_project import open_project
from popmargin.label.quality.pooled_projects import Pool, pool
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project


def rows(*numbers: int, **columns: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"p{n}", "prompt": f"q{n}", "chosen": f"good {n}", "rejected": f"bad {n}", **columns} for n in numbers
    ]


def rated(
    store: LabelStore, name: str, ratings: dict[tuple[str, str], int], data: Sequence[int] = (0, 1), scale: int = 5
) -> Project:
    """A project in which one person gives these ratings, and cannot tell of other responses."""
    preferences = load_preferences(rows(*data))
    project = open_project(store, preferences, name, kind="rating", scale=scale, say=lambda _: None)
    who, _ = store.add_annotator(project.id, "Ada")
    while (now := store.next_assignment(who.id)) is not None:
        verdict: Any = str(ratings.get((now.first.id, now.response or ""), "unsure"))
        store.record(who.id, now.id, verdict, request=str(now.id))
    return project


def both_ways(store: LabelStore, *projects: Project) -> Pool:
    """The pool of projects, the same in both orders."""
    pooled, turned = (pool([(store, each) for each in order]) for order in (projects, projects[::-1]))
    assert {key: str(value) for key, value in pooled.strengths.items()} == {
        key: str(value) for key, value in turned.strengths.items()
    }
    assert pooled.rated_by_people == turned.rated_by_people
    return pooled


def test_what_one_project_does_not_know_hides_nothing_of_another(store: LabelStore) -> None:
    """p0: 5 − 2; p1: chosen 4 in the one and 2 in the other, rejected 1 in the other alone: 3 − 1."""
    one = rated(store, "one", {("p0", "chosen"): 5, ("p0", "rejected"): 2, ("p1", "chosen"): 4})
    two = rated(store, "two", {("p1", "chosen"): 2, ("p1", "rejected"): 1})
    pooled = both_ways(store, one, two)
    assert pooled.rated_by_people and pooled.strengths == {"p0": 3.0, "p1": 2.0} and pooled.shared == ""
    assert pooled.labels.num_rows == 8


def test_strengths_that_data_came_with_are_merged_the_same_way(store: LabelStore) -> None:
    one, two, other = (
        open_project(store, load_preferences(data), name, k=1, say=lambda _: None)
        for name, data in (
            ("one", [*rows(0, strength=1.5), *rows(1)]),
            ("two", [*rows(0), *rows(1, chosen_rating=4.0, rejected_rating=3.0)]),
            ("other", rows(0, 1, strength=2.0)),
        )
    )
    pooled = both_ways(store, one, two)
    assert pooled.strengths == {"p0": 1.5, "p1": 1.0} and not pooled.rated_by_people
    with pytest.raises(DataError, match=r"'p0' has a strength of 2 in project .*other but 1.5 in another"):
        pool([(store, one), (store, other)])
    ratings = rated(store, "ratings", {("p0", "chosen"): 5, ("p0", "rejected"): 2})
    found = pool([(store, one), (store, other), (store, ratings)]).strengths
    assert found["p0"] == 3.0 and math.isnan(found["p1"])  # people's ratings alone: those of the data do not matter


def test_ratings_of_different_scales_are_refused(store: LabelStore) -> None:
    projects = [rated(store, f"to {scale}", {}, scale=scale) for scale in (5, 7)]
    with pytest.raises(DataError, match=r"to 5 from 1 to 5, .*to 7 from 1 to 7"):
        pool([(store, project) for project in projects])


def test_projects_have_preferences_in_common(store: LabelStore) -> None:
    one, two, far, bridge = (rated(store, f"of {data}", {}, data) for data in ((0, 1), (1, 2, 3), (8, 9), (3, 8)))
    assert "1 of 2 of " in both_ways(store, one, two).shared and "1 of 3 of " in both_ways(store, one, two).shared
    with pytest.raises(DataError, match="have no preference in common"):
        pool([(store, one), (store, two), (store, far)])
    assert "2 of 2 of" in both_ways(store, one, two, far, bridge).shared
    other = [{**rows(0)[0], "chosen": "something else"}, *rows(1)]
    turned = open_project(store, load_preferences(other), "turned", k=1, say=lambda _: None)
    with pytest.raises(DataError, match=r"'p0' has different texts in project .*turned"):
        pool([(store, one), (store, turned)])


def test_a_project_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with LabelStore.open("labels.db") as store, LabelStore.open(tmp_path / "labels.db") as again:
        project = rated(store, "demo", {})
        for places in ([store, store], [store, again]):
            with pytest.raises(ConfigError, match=r"labels.db#demo is listed twice"):
                pool([(place, project) for place in places])


def test_the_report_refuses_and_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for db, data in (("labels.db", (0, 1)), ("part.db", (1, 2, 3)), ("far.db", (8, 9))):
        with LabelStore.open(db) as store:
            rated(store, "default", {}, data)
    report = ["label", "report", "--db", "labels.db", "--out", "x.html", "--overwrite", "--with"]
    for words, message in (
        (["default"], "labels.db#default is listed twice"),
        (["part.db", "./part.db"], "part.db#default is listed twice"),
        (["far.db"], "labels.db#default and far.db#default have no preference in common"),
    ):
        assert main([*report, *words]) == 2
        assert message in capsys.readouterr().err
    assert not Path("x.html").exists()
    said = "Preferences shared with another project: 1 of 2 of labels.db#default, 1 of 3 of part.db#default."
    assert main([*report, "part.db"]) == 0 and said in capsys.readouterr().out
    assert main([*report, "part.db", "--json"]) == 0 and said in capsys.readouterr().err
