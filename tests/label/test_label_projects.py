"""Projects from preferences: which pairs are asked, and what happens the second time."""

from typing import Any

import numpy as np
import pytest
from label_stores import preferences

from popmargin.errors import ConfigError, DataError
from popmargin.label.projects.draft import draw_pairs
from popmargin.label.projects.open_project import open_project
from popmargin.label.store.label_store import LabelStore
from popmargin.pop.edges import PopEdges


def pairs_of(store: LabelStore, project: int) -> list[tuple[str, str, str | None]]:
    return [
        (row["first"], row["second"], row["gold"]) for batch in store.items(project) for row in batch.to_pylist()
    ]  # fmt: skip


@pytest.mark.parametrize("sampling", ["chain", "random", "iterative"])
@pytest.mark.parametrize(("count", "k"), [(5, 1), (9, 2), (40, 3)])
def test_pairs_are_distinct_and_reproducible(sampling: str, count: int, k: int) -> None:
    first, second = draw_pairs(count, sampling=sampling, k=k, seed=4)
    assert len({frozenset(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)}) == k * count
    assert not (first == second).any()
    again = draw_pairs(count, sampling=sampling, k=k, seed=4)
    assert (first == again[0]).all() and (second == again[1]).all()
    if sampling == "iterative":
        assert set(np.bincount(first)) == set(np.bincount(second)) == {k}


def test_pairs_of_few_preferences_and_wrong_settings() -> None:
    assert [side.tolist() for side in draw_pairs(2, sampling="random", k=3)] in ([[0], [1]], [[1], [0]])
    assert len(draw_pairs(2, sampling="iterative")[0]) == len(draw_pairs(2)[0]) == 1
    with pytest.raises(ConfigError, match="Use k <= 1"):
        draw_pairs(5, k=3)
    with pytest.raises(DataError, match="at least 2"):
        draw_pairs(1)
    with pytest.raises(ConfigError, match="k up to 2"):
        draw_pairs(5, sampling="iterative", k=3)
    with pytest.raises(ConfigError, match="choose chain"):
        draw_pairs(5, sampling="best")


def test_a_project_is_made_once_and_then_used_as_it_is(store: LabelStore) -> None:
    said: list[str] = []
    made = open_project(store, preferences(9), "demo", k=2, seed=3, overlap=2, say=said.append)
    assert (made.items, made.preferences, made.overlap, made.seed) == (18, 9, 2, 3)
    assert open_project(store, None, "demo", say=said.append) == made
    assert said == [
        "preferences to compare: 9 in = 9 in some pair",
        "project 'demo': 9 preferences, 18 items of kind 'pop', 0 of them gold",
        "project 'demo' already exists and is unchanged: 18 items of kind 'pop' from 9 preferences, overlap 2",
    ]
    with pytest.raises(DataError, match="Give preferences"):
        open_project(store, None, "other")


def test_a_project_that_was_interrupted_is_completed(store: LabelStore) -> None:
    store.import_preferences(store.create_project("demo").id, preferences(5))
    assert open_project(store, preferences(5), "demo", say=lambda line: None).items == 5


def test_a_project_that_was_interrupted_keeps_its_settings(store: LabelStore) -> None:
    made = store.create_project("demo", overlap=3, seed=7, scale=4)
    store.import_preferences(made.id, preferences(5))
    with pytest.raises(ConfigError, match="overlap 3, not 2"):
        open_project(store, preferences(5), "demo", overlap=2)
    with pytest.raises(ConfigError, match="kind 'rating'; put items of kind 'pop'"):
        open_project(store, preferences(5), "demo", kind="pop")
    done = open_project(store, preferences(5), "demo", overlap=3, say=lambda line: None)
    assert (done.items, done.overlap, done.seed, done.scale) == (10, 3, 7, 4)


@pytest.mark.parametrize("conversational", [False, True])
def test_the_same_data_go_on_and_others_do_not(store: LabelStore, conversational: bool) -> None:
    data = preferences(9, conversational=conversational)
    edges = PopEdges.from_columns(["p0", "p1"], ["p1", "p2"])
    gold = PopEdges.from_columns(["p3", "p5"], ["p2", "p4"])
    made = open_project(store, data, edges=edges, gold=gold, say=lambda line: None)
    store.add_items(made.id, "pop", ["p7"], ["p8"])  # a later round
    said: list[str] = []
    again = data.select(list(reversed(range(9))))
    open_project(store, again, edges=edges, gold=gold, say=said.append)
    assert [line.partition(":")[0] for line in said] == ["project 'default' already exists and is unchanged"]
    turned = PopEdges.from_columns(["p3", "p4"], ["p2", "p5"])
    for asked in ({"edges": edges}, {"edges": edges, "gold": turned}, {"gold": gold}, {"k": 1}):
        with pytest.raises(ConfigError, match="has different items"):
            open_project(store, data, **asked)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="k would choose items from data"):
        open_project(store, None, k=1)
    said.clear()
    open_project(store, data.select(range(8)), say=said.append)  # as if p8 had been appended
    assert said[0] == "project 'default' has 1 more preference than made here" and len(said) == 2
    with pytest.raises(DataError, match="1 id is in only one of the two, such as 'p9'"):
        open_project(store, preferences(10, conversational=conversational))
    with pytest.raises(DataError, match="27 texts differ, such as 'chosen' of 'p0'"):
        open_project(store, preferences(9, conversational=not conversational))


def test_edges_are_asked_without_their_answer_and_gold_with_it(store: LabelStore) -> None:
    ids = [f"p{row}" for row in range(41)]
    edges = PopEdges.from_columns(ids[:-1], [*ids[1:-1], None])
    gold = PopEdges.from_columns(["p7", "p9", "p3"], ["p1", "p2", "p4"], tie=[False, False, True])
    project = open_project(store, preferences(41), edges=edges, gold=gold, say=lambda line: None)
    asked = pairs_of(store, project.id)
    plain = [pair for pair in asked if pair[2] is None]
    assert {frozenset(pair[:2]) for pair in plain} == {frozenset(ids[row : row + 2]) for row in range(39) if row != 3}
    assert 5 < sum(int(first[1:]) < int(second[1:]) for first, second, _ in plain) < 34
    known: dict[Any, Any] = {frozenset(pair[:2]): pair for pair in asked if pair[2] is not None}
    assert known[frozenset(("p3", "p4"))][2] == "tie"
    for stronger, weaker in (("p7", "p1"), ("p9", "p2")):
        first, _, answer = known[frozenset((stronger, weaker))]
        assert answer == ("first" if first == stronger else "second")


def test_pairs_of_other_data_leave_no_project_behind(store: LabelStore) -> None:
    with pytest.raises(DataError, match="not in made here, such as 'q1'"):
        open_project(store, preferences(3), edges=PopEdges.from_columns(["q1"], ["p1"]))
    with pytest.raises(ConfigError, match="gold must be preferences with known labels"):
        open_project(store, preferences(3), kind="preference", gold=PopEdges.from_columns(["p0"], ["p1"]))
    assert store.projects() == []
    assert open_project(store, preferences(3), kind="preference", say=lambda line: None).items == 3


def test_every_pair_is_asked_once_and_gold_takes_its_place(store: LabelStore) -> None:
    edges = PopEdges.from_columns(["p0", "p0", "p1", "p2"], ["p1", "p1", "p0", "p3"])
    gold = PopEdges.from_columns(["p3", "p4", "p3"], ["p2", "p0", "p2"])
    project = open_project(store, preferences(6), edges=edges, gold=gold, say=lambda _: None)
    asked = {frozenset(pair[:2]): pair for pair in pairs_of(store, project.id)}
    assert len(pairs_of(store, project.id)) == len(asked) == 3
    for stronger, weaker in (("p3", "p2"), ("p4", "p0")):
        first, _, answer = asked[frozenset((stronger, weaker))]
        assert answer == ("first" if first == stronger else "second")
    assert asked[frozenset(("p0", "p1"))][2] is None


def test_gold_with_two_answers_is_refused(store: LabelStore) -> None:
    for gold in (
        PopEdges.from_columns(["p0", "p1"], ["p1", "p0"]),
        PopEdges.from_columns(["p0", "p0"], ["p1", "p1"], tie=[False, True]),
    ):
        with pytest.raises(DataError, match="has two answers"):
            open_project(store, preferences(6), gold=gold, say=lambda _: None)


def test_gold_without_a_comparison_is_refused(store: LabelStore) -> None:
    with pytest.raises(DataError, match="no edge compares two preferences"):
        open_project(store, preferences(6), gold=PopEdges.from_columns(["p0"], [None]), say=lambda _: None)


@pytest.mark.parametrize(
    "asked", [{"kind": "rating", "k": 2}, {"kind": "preference", "sampling": "random"}, {"k": 1, "edges": True}]
)
def test_pairs_are_not_drawn_where_nothing_is_drawn(store: LabelStore, asked: dict[str, Any]) -> None:
    if "edges" in asked:
        asked = {**asked, "edges": PopEdges.from_columns(["p0"], ["p1"])}
    with pytest.raises(ConfigError, match="draws pairs of preferences, but"):
        open_project(store, preferences(3), **asked)
    assert store.projects() == []
