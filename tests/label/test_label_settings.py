"""Settings that change while people label: what is open is planned again, no label is lost, the change is logged."""

from collections.abc import Callable
from typing import Any

import pytest
from label_stores import Clock

from popmargin.errors import ConfigError, DataError
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Annotator, Project


def answer(store: LabelStore, who: Annotator, verdict: Any = "first", most: int = 10**6) -> int:
    """Answers of a person until nothing is left; returns how many."""
    done = 0
    while done < most and (now := store.next_assignment(who.id)) is not None:
        store.record(who.id, now.id, verdict, request=f"{who.name}-{now.id}-{now.revision}")
        done += 1
    return done


def team(store: LabelStore, project: Project, *names: str) -> list[Annotator]:
    return [store.add_annotator(project.id, name)[0] for name in names]


def counts(store: LabelStore, project: Project) -> tuple[int, int, int]:
    found = store.progress(project.id)
    return found.labels_done, found.labels_wanted, store.labels(project.id).num_rows


def test_a_higher_overlap_opens_items_again(store: LabelStore, make_project: Callable[..., Project]) -> None:
    project = make_project(items=6)
    ann, ben, eve = team(store, project, "ann", "ben", "eve")
    assert (answer(store, ann, most=4), answer(store, ben)) == (4, 2)
    assert answer(store, eve) == 0 and counts(store, project) == (6, 6, 6)
    changed = store.change(project.id, overlap=2, who="lead")
    assert changed.overlap == 2 and counts(store, project) == (6, 12, 6)
    assert (answer(store, eve, most=1), answer(store, ann), answer(store, ben)) == (1, 2, 3)
    assert answer(store, eve) == 0 and counts(store, project) == (12, 12, 12)
    items = store.labels(project.id)["item"].to_pylist()
    assert all(items.count(number) == 2 for number in set(items)) and len(set(items)) == 6
    (change,) = store.changes(project.id)
    assert (change.who, change.setting, change.before, change.after) == ("lead", "overlap", "1", "2")


def test_a_lower_overlap_keeps_labels_and_asks_for_no_more(
    store: LabelStore, clock: Clock, make_project: Callable[..., Project]
) -> None:
    """Of six items two have three labels, one has two and an open one, the others none."""
    project = make_project(items=6, overlap=3, lease_seconds=60)
    ann, ben, eve = team(store, project, "ann", "ben", "eve")
    for who in (ann, ben, eve):
        answer(store, who, most=3 if who is not eve else 2)
    opened = store.next_assignment(eve.id)
    assert opened is not None
    store.change(project.id, overlap=1)
    assert counts(store, project) == (8, 3 + 3 + 3 + 3, 8)  # the open one may still be answered
    clock.pass_seconds(61)
    assert answer(store, ann) == 3 and counts(store, project) == (11, 11, 11)  # it went: nobody is asked for it again
    assert answer(store, ben) == answer(store, eve) == 0
    store.record(ann.id, store.history(ann.id)[-1].id, "second", request="changed")
    assert store.discard(ann.id) == 3  # the places of the three items that only she has labelled
    assert counts(store, project)[:2] == (5, 5 + 3)
    assert answer(store, ben) == 3 and counts(store, project)[:2] == (8, 8)


def test_repeats_and_leases_change(store: LabelStore, clock: Clock, make_project: Callable[..., Project]) -> None:
    project = make_project(items=40)
    (ann,) = team(store, project, "ann")
    answer(store, ann, most=20)
    assert set(store.labels(project.id)["repeat_of"].to_pylist()) == {None}
    store.change(project.id, repeat_share=0.9, lease_seconds=5)
    now = store.next_assignment(ann.id)
    assert now is not None and now.expires_at is not None and (now.expires_at - clock.now).seconds == 5
    answer(store, ann)
    repeats = [number for number in store.labels(project.id)["repeat_of"].to_pylist() if number is not None]
    assert len(repeats) >= 10
    assert [change.setting for change in store.changes(project.id)] == ["repeat_share", "lease_seconds"]
    store.change(project.id, repeat_share=0.9)  # the same is no change
    assert len(store.changes(project.id)) == 2


def test_settings_out_of_range_change_nothing(store: LabelStore, make_project: Callable[..., Project]) -> None:
    project = make_project(items=3)
    for settings, message in (
        ({"overlap": 0}, "overlap=0: give a number from 1"),
        ({"repeat_share": 1.0, "overlap": 2}, "repeat_share=1.0"),
        ({"passing": 0.5}, "passing is a share of training items, but there are none"),
        ({"training": 2, "passing": 1.5}, "passing=1.5: give a share above 0 and at most 1"),
        ({"overlapp": 2}, "overlapp is no setting that can be changed. Did you mean 'overlap'"),
    ):
        with pytest.raises(ConfigError, match=message):
            store.change(project.id, **settings)
    assert store.project("demo") == project and store.changes(project.id) == []
    with pytest.raises(DataError, match="There is no project 99"):
        store.change(99, overlap=2)


def test_items_get_a_known_answer_another_and_none(
    store: LabelStore, clock: Clock, make_project: Callable[..., Project]
) -> None:
    project = make_project(items=5, lease_seconds=60)
    ann, ben = team(store, project, "ann", "ben")
    assert answer(store, ann, most=2) == 2
    done = store.labels(project.id)["item"].to_pylist()
    assert store.set_gold(project.id, {done[0]: "second"}, who="lead") == {"new": 1, "changed": 0, "removed": 0}
    # Once from each of two people, and the other four items once.
    assert counts(store, project) == (2, 2 + 4, 2) and store.project("demo").gold_items == 1
    assert store.set_gold(project.id, {done[0]: "first"}) == {"new": 0, "changed": 1, "removed": 0}
    assert answer(store, ben) == 4 and counts(store, project) == (6, 6, 6)
    assert store.labels(project.id)["gold"].to_pylist().count("first") == 2
    assert store.set_gold(project.id, {done[0]: None}) == {"new": 0, "changed": 0, "removed": 1}
    # It has two labels although the overlap is 1.
    assert counts(store, project) == (6, 6, 6) and store.project("demo").gold_items == 0
    assert answer(store, ann) == answer(store, ben) == 0
    assert store.discard(ann.id) == 1 and answer(store, ben) == 1
    assert [change.after for change in store.changes(project.id)] == ["1 new", "1 changed", "1 removed"]
    with pytest.raises(DataError, match="has no item 99"):
        store.set_gold(project.id, {99: "first"})
    with pytest.raises(DataError, match="gold is '7'"):
        store.set_gold(project.id, {done[0]: "7"})


def test_training_comes_first_and_tells_the_known_answer(
    store: LabelStore, make_project: Callable[..., Project]
) -> None:
    """Three of four gold items first, whatever is skipped; the fourth later, and it tells nothing."""
    gold = ["first", None, "first", None, "first", None, "first", None, None, None]
    project = make_project(items=10, gold=gold, training=3, passing=0.6)
    (good,) = team(store, project, "good")
    skipped = store.next_assignment(good.id)
    assert skipped is not None and skipped.training and skipped.gold is None
    store.skip(good.id, skipped.id)
    for verdict in ("second", "first"):
        now = store.next_assignment(good.id)
        assert now is not None and now.training and now.id != skipped.id
        store.record(good.id, now.id, verdict, request=f"r{now.id}")
        assert store.assignment(good.id, now.id).gold == "first"
    now = store.next_assignment(good.id)
    assert now is not None and now.id == skipped.id  # before anything else
    store.record(good.id, now.id, "first", request="last")
    assert (store.trained(project.id)[good.id].right, store.trained(project.id)[good.id].answered) == (2, 3)
    assert answer(store, good) == 7 and not store.annotators(project.id)[0].held
    labels = store.labels(project.id)
    assert labels["training"].to_pylist() == [True] * 3 + [False] * 7
    assert [number for number in labels["gold"].to_pylist() if number] == ["first"] * 4


def test_who_does_not_pass_waits_for_the_lead(store: LabelStore, make_project: Callable[..., Project]) -> None:
    project = make_project(items=6, gold=["first", "second", None, None, None, None], training=2, passing=0.75)
    (bad,) = team(store, project, "bad")
    assert answer(store, bad, "tie") == 2 and store.annotators(project.id)[0].held
    for done in store.history(bad.id):  # who knows the answers now is not better for it
        assert done.gold is not None
        store.record(bad.id, done.id, done.gold, request=f"again-{done.id}")
    assert store.next_assignment(bad.id) is None and store.trained(project.id)[bad.id].right == 0
    store.let_in(bad.id)
    assert store.undo(bad.id) is not None  # an item of the training, whose answer decides nothing any more
    assert answer(store, bad, "tie") == 5 and not store.annotators(project.id)[0].held
    (worse,) = team(store, project, "worse")
    assert answer(store, worse, "tie") == 2 and store.annotators(project.id)[1].held
    store.change(project.id, training=None, passing=None, overlap=2)  # who waits goes on
    assert answer(store, worse) == 4 and not store.annotators(project.id)[1].held
