"""Rankings of several preferences: the items, what is stored, edges and the scale."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")

from label_stores import preferences

from popmargin.data.questions import numbers_of, order_of
from popmargin.errors import ConfigError, DataError
from popmargin.label.export.pop_edges import pop_edges
from popmargin.label.projects.append import append_rows
from popmargin.label.projects.choose_items import choose_items
from popmargin.label.projects.draft import draft_items, draw_rankings
from popmargin.label.projects.open_project import open_project
from popmargin.label.quality.label_quality import label_quality
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.ranked_items import ranked_ids
from popmargin.pop.fit import fit_strengths


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    with LabelStore.open(tmp_path / "labels.db") as opened:
        yield opened


def answer_all(store: LabelStore, project: int, name: str, *, swap: bool = False) -> None:
    """Somebody orders all by the numbers of their ids, with the first two exchanged if asked."""
    person, _ = store.add_annotator(project, name)
    while (given := store.next_assignment(person.id)) is not None:
        ids = [int(one.id[1:]) for one in given.preferences]
        order = sorted(range(1, len(ids) + 1), key=lambda number: -ids[number - 1])
        if swap:
            order[:2] = order[1::-1]
        store.record(person.id, given.id, order_of(order), request=f"{name}-{given.id}")


@pytest.mark.parametrize(("count", "size", "k"), [(7, 4, 1), (9, 3, 2), (6, 6, 1), (10, 5, 2)])
def test_rankings_hold_everything_and_are_connected(count: int, size: int, k: int) -> None:
    rows = draw_rankings(count, size, k=k).tolist()
    assert all(len(set(row)) == size for row in rows) and {one for row in rows for one in row} == set(range(count))
    assert all(set(one) & set(other) for one, other in pairwise(rows))
    assert k * count <= len(rows) * (size - 1) < k * (count + size - 1)


def test_an_order_is_stored_as_given_and_becomes_edges_and_a_scale(store: LabelStore) -> None:
    said = list[str]()
    project = open_project(store, preferences(7), rank=4, overlap=2, say=said.append)
    assert said[-1].endswith("3 items of kind 'rank', 0 of them gold")
    answer_all(store, project.id, "anna")
    answer_all(store, project.id, "ben", swap=True)
    rows = store.labels(project.id).to_pylist()
    assert len(rows) == 6 and {row["kind"] for row in rows} == {"rank"}
    assert sorted(numbers_of(rows[0]["shown_order"])) == [1, 2, 3, 4]
    assert ranked_ids(rows[0]) == sorted(ranked_ids(rows[0]), reverse=True)
    edges, account = pop_edges(store, project)
    assert (account.labels, account.used, len(edges)) == (6, 6, 18)
    assert len(set(edges.table["ranking"].to_pylist())) == 6
    for row in rows:
        name = f"default/{row['annotator']}/{row['assignment']}"
        own = [edge for edge in edges.table.to_pylist() if edge["ranking"] == name]
        assert [own[0]["stronger"], *(edge["weaker"] for edge in own)] == ranked_ids(row)
    scale = fit_strengths(edges)
    assert scale.parameters["rankings"] == 6 and scale.parameters["components"] == 1
    for options in ({"aggregate": "majority"}, {"pool": "dawid-skene"}):
        with pytest.raises(ConfigError, match="rankings of several preferences are not pooled"):
            pop_edges(store, project, **options)
    found = label_quality(store.labels(project.id))
    assert found.order is not None and found.order.comparisons == 18
    assert found.items["rank"] == 3 and found.rankings is not None
    # Of six pairs in an order of four, one is turned.
    assert found.rankings.tau.estimate == pytest.approx(4 / 6) and found.rankings.shared == 3
    assert [row.name for row in found.rankings.rankers] == ["anna", "ben"]


def test_what_is_no_order_of_the_item_is_refused(store: LabelStore) -> None:
    project = open_project(store, preferences(4), rank=3, say=lambda _: None)
    person, _ = store.add_annotator(project.id, "anna")
    given = store.next_assignment(person.id)
    assert given is not None and len(given.others) == 2 and given.second is None
    for verdict in ("1>2", "1>2>2", "1>2>3>4", "first", "tie", "wrong"):
        with pytest.raises(DataError):
            store.record(person.id, given.id, verdict, request=f"r-{verdict}")  # pyright: ignore[reportArgumentType]
    assert store.labels(project.id).num_rows == 0
    store.record(person.id, given.id, "unsure", request="r-unsure")
    edges, account = pop_edges(store, project)
    assert (len(edges), account.left_out["unsure"]) == (0, 1)


def test_settings_that_make_no_sense_for_rankings_are_named() -> None:
    data = preferences(6)
    for options, message in (
        ({"rank": 7}, "from 3 to 6"),
        ({"rank": 4, "kind": "preference"}, "Omit one of the two"),
        ({"rank": 4, "sampling": "random"}, "--pairs-of-pairs cannot be used with rankings"),
        ({"kind": "rank", "scale": 5}, "--scale cannot be used"),
    ):
        with pytest.raises(ConfigError, match=message):
            draft_items(data, **options)
    with pytest.raises(DataError, match="needs 6"):
        draft_items(preferences(5), rank=6)


def test_a_project_goes_on_and_takes_new_rows(store: LabelStore) -> None:
    def ask(**settings: Any) -> Any:
        return open_project(store, preferences(5), rank=3, say=lambda _: None, **settings)

    project = ask()
    assert ask().id == project.id
    with pytest.raises(ConfigError, match="different items"):
        open_project(store, preferences(5), rank=4, say=lambda _: None)
    append_rows(store, project, preferences(9), say=lambda _: None)
    rows = [row for batch in store.items(project.id) for row in batch.to_pylist()]
    new = [{row["first"], *json.loads(row["others"])} for row in rows[3:]]
    assert all(len(one) == 3 for one in new) and set().union(*new) >= {"p5", "p6", "p7", "p8"}
    assert any(one & {"p0", "p1", "p2", "p3", "p4"} for one in new)
    found = store.browsed(project.id, rows[0]["item"])
    assert len(found.ranked) == 2 and len(found.others) == 3
    assert [one.id for one in store.browse(project.id, words="p8").items] == [
        row["item"] for row, one in zip(rows[3:], new, strict=True) if "p8" in one
    ]
    assert choose_items(store, project, ids=["p8"]) == [
        row["item"] for row, one in zip(rows[3:], new, strict=True) if "p8" in one
    ]
