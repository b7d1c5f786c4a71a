"""A lead looks through items: by state, by words, a page at a time, with everybody's labels."""

from collections.abc import Callable

import pytest
from label_stores import preferences

from popmargin.errors import ConfigError, DataError
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project


def vote(store: LabelStore, who: int, verdict: str, note: str = "") -> int:
    task = store.next_assignment(who)
    assert task is not None
    store.record(who, task.id, verdict, request=f"r-{who}-{task.id}", note=note)
    return task.item


@pytest.fixture
def project(store: LabelStore, make_project: Callable[..., Project]) -> Project:
    """Six pairs with two places each: ann and ben have labelled two, and disagree on the second."""
    return make_project(items=6, overlap=2)


@pytest.fixture
def labelled(store: LabelStore, project: Project) -> tuple[list[int], int, int]:
    ann, ben = (store.add_annotator(project.id, name)[0].id for name in ("ann", "ben"))
    agreed = vote(store, ann, "first", "sure")
    disputed = vote(store, ann, "tie")
    assert vote(store, ben, "first") == agreed and vote(store, ben, "second", 'no: \\ 50% "x"') == disputed
    skipped = store.next_assignment(ann)
    store.skip(ann, skipped.id)
    return [agreed, disputed, skipped.item], ann, ben


def ids(page) -> list[int]:
    return [one.id for one in page.items]


def test_states(store: LabelStore, project: Project, labelled) -> None:
    (agreed, disputed, skipped), ann, _ = labelled
    everything = ids(store.browse(project.id))
    assert len(everything) == 6 and everything == sorted(everything)
    assert ids(store.browse(project.id, state="done")) == sorted([agreed, disputed])
    assert ids(store.browse(project.id, state="open")) == [one for one in everything if one not in (agreed, disputed)]
    assert ids(store.browse(project.id, state="disputed")) == [disputed]
    assert ids(store.browse(project.id, state="skipped")) == [skipped]
    assert ids(store.browse(project.id, state="notes")) == sorted([agreed, disputed])
    found = store.browsed(project.id, disputed)
    assert found.disputed and (found.done, found.wanted) == (2, 2)
    assert [(one.annotator, one.verdict, one.note) for one in found.labels] == [
        ("ann", "tie", ""), ("ben", "second", "no: \\ 50% \"x\""),
    ]  # fmt: skip
    store.discard(ann)
    assert ids(store.browse(project.id, state="disputed")) == []
    assert [one.counts for one in store.browsed(project.id, disputed).labels] == [False, True]
    with pytest.raises(ConfigError, match=r"Did you mean 'disputed'"):
        store.browse(project.id, state="disputet")


def test_an_answer_that_was_taken_back_is_no_label_and_its_note_is_none(store: LabelStore, project, labelled) -> None:
    (agreed, disputed, _), _, ben = labelled
    store.undo(ben)
    assert ids(store.browse(project.id, state="notes")) == [agreed]
    assert ids(store.browse(project.id, state="disputed")) == []
    assert [one.verdict for one in store.browsed(project.id, disputed).labels] == ["tie", None]


def test_words_are_found_in_all_texts_whatever_the_case_and_nothing_is_a_pattern(store: LabelStore, project) -> None:
    by_pair = {(one.first.id, one.second.id): one.id for one in store.browse(project.id).items}
    assert ids(store.browse(project.id, words=" QUESTION 3? ")) == sorted([by_pair["p2", "p3"], by_pair["p3", "p4"]])
    assert ids(store.browse(project.id, words="bad 0 <script>")) == [by_pair["p0", "p1"]]
    assert ids(store.browse(project.id, words="\n\twith")) == sorted(by_pair.values())  # as it is stored: escaped
    assert ids(store.browse(project.id, words="🙂")) == sorted(by_pair.values())
    assert ids(store.browse(project.id, words="p0")) == [by_pair["p0", "p1"]]
    assert ids(store.browse(project.id, words=f"#{by_pair['p1', 'p2']}")) == [by_pair["p1", "p2"]]
    for nothing in ("%", "_uestion", "'", '"', "#999", "# 1"):
        assert ids(store.browse(project.id, words=nothing)) == []


def test_pages_hold_every_item_once_also_where_a_search_stops_in_between(store: LabelStore, project) -> None:
    other = store.create_project("other")
    store.import_preferences(other.id, preferences(3))
    store.add_items(other.id, "preference", ["p0", "p1", "p2"])
    for words in ("", "question"):
        seen, last, pages = list[int](), 0, 0
        while last is not None:
            page = store.browse(project.id, words=words, after=last, limit=4)
            seen, last, pages = seen + ids(page), page.last, pages + 1
        assert len(seen) == len(set(seen)) == 6 and pages == 2
    with pytest.raises(DataError, match="no item"):
        store.browsed(other.id, seen[0])


def test_ratings_two_points_apart_are_disputed_and_neighbours_are_not(store: LabelStore) -> None:
    project = store.create_project("rated", scale=5, overlap=2)
    store.import_preferences(project.id, preferences(3))
    store.add_items(project.id, "rating", ["p0", "p1", "p2"], response=["chosen"] * 3)
    ann, ben = (store.add_annotator(project.id, name)[0].id for name in ("ann", "ben"))
    items = [vote(store, ann, rating) for rating in ("1", "3", "5")]
    assert [vote(store, ben, rating) for rating in ("3", "4", "unsure")] == items
    assert ids(store.browse(project.id, state="disputed")) == [items[0]]


def test_words_are_looked_for_in_all_preferences_of_a_ranking(store: LabelStore) -> None:
    project = store.create_project("ranks")
    store.import_preferences(project.id, preferences(9))
    groups = [["p0", "p1", "p2"], ["p2", "p3", "p4"], ["p4", "p5", "p6"]]
    store.add_items(project.id, "rank", [one[0] for one in groups], others=[one[1:] for one in groups], chained=True)
    numbers = ids(store.browse(project.id))
    for words, places in (
        ("GOOD 1", [0]),
        ("question 2?", [0, 1]),
        ("bad 6 <", [2]),
        ("Good 7", []),
        ("good", [0, 1, 2]),
    ):
        assert ids(store.browse(project.id, words=words)) == [numbers[place] for place in places], words
