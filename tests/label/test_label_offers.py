"""Items that are given to a person: offered first, reserved for them, moved, taken back; skipped ones on call."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from label_stores import Clock, preferences

from popmargin.cli.main import main
from popmargin.errors import ConfigError, DataError
from popmargin.label.projects.choose_items import choose_items
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.offers import Given
from popmargin.label.store.records import Project

Make = Callable[..., Project]


def answers(store: LabelStore, who: int, most: int | None = None) -> list[int]:
    """Answer tasks until there are no more; the items in order."""
    done: list[int] = []
    while len(done) != most and (now := store.next_assignment(who)) is not None:
        store.record(who, now.id, "first", request=f"r{now.id}-{now.revision}")
        done.append(now.item)
    return done


def in_order(store: LabelStore, project: Project) -> list[int]:
    return [number for batch in store.items(project.id) for number in batch["item"].to_pylist()]


def test_given_items_come_first_and_reserved_ones_to_nobody_else(store: LabelStore, make_project: Make) -> None:
    project = make_project(items=10)
    ann, bob = (store.add_annotator(project.id, name)[0].id for name in ("ann", "bob"))
    items = in_order(store, project)
    first, alone = [items[7], items[4]], [items[9], items[2]]
    assert store.give(bob, first) == Given(given=2)
    assert store.give(ann, alone, exclusive=True).given == 2
    assert store.given(project.id) == {ann: 2, bob: 2}
    assert [store.progress(project.id, who).own_given for who in (ann, bob)] == [2, 2]
    assert store.progress(project.id, bob).own_left == 8 and store.progress(project.id, ann).own_left == 10
    assert answers(store, bob, 2) == sorted(first, key=items.index)
    rest = answers(store, bob)
    assert set(rest) == set(items) - set(first) - set(alone) and store.progress(project.id, bob).own_left == 0
    assert answers(store, ann) == sorted(alone, key=items.index)
    assert store.given(project.id) == {}


def test_what_is_taken_back_or_moved_goes_on(store: LabelStore, make_project: Make, clock: Clock) -> None:
    project = make_project(items=6)
    ann, bob, cat = (store.add_annotator(project.id, name)[0].id for name in ("ann", "bob", "cat"))
    items = in_order(store, project)
    store.give(ann, items, exclusive=True)
    assert store.next_assignment(bob) is None
    now = store.next_assignment(ann)
    assert now is not None and now.item == items[0]
    moved = store.reassign(ann, bob, items[:3])  # the open one stays where it is
    assert (moved.given, moved.had, moved.full) == (2, 0, 0)
    assert store.next_assignment(cat) is None  # still reserved
    assert answers(store, bob) == items[1:3]
    assert answers(store, ann, 1) == items[:1]
    assert store.take_back(ann, items[3:4]) == items[3:4]
    assert answers(store, cat) == items[3:4]
    store.set_active(ann, False)  # what waits for her goes to everybody
    assert answers(store, cat) == items[4:]
    assert store.give(bob, items).full == 4  # and two that he has had
    for who, message in ((ann, "not active"), (store.add_annotator(project.id, "m", kind="judge")[0].id, "a model")):
        with pytest.raises(DataError, match=message):
            store.give(who, items)
    with pytest.raises(DataError, match="no item 999"):
        store.give(bob, [999])


def test_reserved_for_too_few_people_is_said(store: LabelStore, make_project: Make) -> None:
    project = make_project(items=4, overlap=2)
    ann, bob = (store.add_annotator(project.id, name)[0].id for name in ("ann", "bob"))
    assert store.give(ann, in_order(store, project), exclusive=True).short == 4
    assert store.give(bob, in_order(store, project), exclusive=True).short == 0
    assert len(answers(store, ann)) == len(answers(store, bob)) == 4


def test_gold_comes_to_everybody_and_chains_stay_whole(store: LabelStore) -> None:
    project = store.create_project("chained")
    store.import_preferences(project.id, preferences(60))
    keys = [f"p{row}" for row in range(60)]
    store.add_items(project.id, "pop", keys[:-1], keys[1:], chained=True)
    ann = store.add_annotator(project.id, "ann")[0].id
    chosen = choose_items(store, project, share=0.5)
    assert len(chosen) == 30 and choose_items(store, project, share=0.5) == chosen  # whole runs of 20, the last cut
    store.give(ann, chosen, exclusive=True)
    assert not set(choose_items(store, project, share=0.3)) & set(chosen)
    table = {row["item"]: row for batch in store.items(project.id) for row in batch.to_pylist()}
    order = answers(store, ann, 20)
    shared = [
        bool({table[a]["first"], table[a]["second"]} & {table[b]["first"], table[b]["second"]})
        for a, b in itertools.pairwise(order)
    ]
    assert sum(shared) >= 18


def test_typos_are_found(store: LabelStore, make_project: Make) -> None:
    project = make_project(items=6)
    assert len(choose_items(store, project, ids=["p2"])) == 2  # p1 p2, p2 p3
    for options, message in (
        ({"ids": ["p02"]}, "no preference p02"),
        ({"where": {"chosen_ratng": "4.5"}}, "Did you mean 'chosen_rating'"),
        ({"where": {"chosen_rating": "4"}}, "has chosen_rating=4"),
        ({"where": {"chosen_rating": "4.5"}}, "No item of project"),
    ):
        with pytest.raises(DataError, match=message):
            choose_items(store, project, **options)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        choose_items(store, project, share=1.5)


def test_a_skipped_item_comes_when_it_is_asked_for(store: LabelStore, make_project: Make, clock: Clock) -> None:
    project = make_project(items=4)
    ann, bob = (store.add_annotator(project.id, name)[0].id for name in ("ann", "bob"))
    skipped: list[Any] = []
    for _ in range(2):
        now = store.next_assignment(ann)
        assert now is not None
        store.skip(ann, now.id)
        skipped.append(now)
        clock.pass_seconds(5)
    other = store.next_assignment(ann)
    assert other is not None
    clock.pass_seconds(5)
    assert [row.id for row in store.history(ann, states=("skipped",))] == [row.id for row in skipped[::-1]]
    assert store.history(ann, states=("done",)) == []
    store.resume(ann, skipped[1].id)
    store.resume(ann, skipped[1].id)  # pressing again changes nothing
    clock.pass_seconds(5)
    now = store.next_assignment(ann)
    assert now is not None and now.id == skipped[1].id
    answers(store, ann, 1)
    now = store.next_assignment(ann)
    assert now is not None and now.id == other.id  # the one that was open before
    assert skipped[0].item in answers(store, bob)
    with pytest.raises(DataError, match="Others have labelled"):
        store.resume(ann, skipped[0].id)
    with pytest.raises(DataError, match="already answered"):
        store.resume(ann, skipped[1].id)


def test_an_adjudicator_chooses_what_to_decide(store: LabelStore, make_project: Make) -> None:
    project = make_project(items=3, overlap=2)
    ann, bob, eve = (store.add_annotator(project.id, name)[0].id for name in ("ann", "bob", "eve"))
    store.set_adjudicator(eve, True)
    answers(store, ann)
    while (now := store.next_assignment(bob)) is not None:
        store.record(bob, now.id, "second", request=f"r{now.id}")
    last = in_order(store, project)[-1]
    store.take_disputed(eve, last)
    now = store.next_assignment(eve)
    assert now is not None and now.item == last and now.adjudicates
    with pytest.raises(DataError, match="not disputed any more"):
        store.take_disputed(eve, last)
    with pytest.raises(DataError, match="does not adjudicate"):
        store.take_disputed(ann, last)


def test_leads_and_weights(store: LabelStore, make_project: Make) -> None:
    project = make_project(items=3)
    ann = store.add_annotator(project.id, "ann")[0].id
    store.set_lead(ann, True)
    store.set_weight(ann, 0.25, who="eve")
    store.set_weight(ann, 0.25, who="eve")
    who = store.annotators(project.id)[0]
    assert who.lead and who.weight == 0.25
    assert [(change.who, change.setting, change.before, change.after) for change in store.changes(project.id)] == [
        ("eve", "weight of ann", "1", "0.25")
    ]
    store.set_weight(ann, 1.0)
    store.set_lead(ann, False)
    who = store.annotators(project.id)[0]
    assert not who.lead and who.weight == 1.0
    for weight in (0.0, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="above 0 and at most 1"):
            store.set_weight(ann, weight)
    judge = store.add_annotator(project.id, "m", kind="judge")[0].id
    with pytest.raises(DataError, match="only people lead a project"):
        store.set_lead(judge, True)


def test_the_command(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    db = str(tmp_path / "labels.db")
    with LabelStore.open(db) as store:
        project = store.create_project("mine", overlap=2)
        store.import_preferences(project.id, preferences(8))
        store.add_items(project.id, "preference", [f"p{row}" for row in range(8)])
        for name in ("ann", "bob"):
            store.add_annotator(project.id, name)
    base = ["label", "assign", "--db", db]
    assert main([*base, "ann", "--where", "chosen_rating=4.5", "--exclusive"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "4 items = 4 given to ann + 0 that ann has or had + 0 with all their labels",
        "ann gets 4 given items before all others",
        "4 items want more labels than the people they are reserved for: give them to others too, or lower --overlap",
    ]
    assert main([*base, "bob", "--share", "0.25", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"given": 2, "had": 0, "full": 0, "short": 0, "waiting": 2}
    assert main([*base, "bob", "--from", "ann", "--items", "p1", "p3"]) == 0
    assert capsys.readouterr().out.startswith("2 items = 2 given to bob")
    assert main([*base, "ann", "--take-back"]) == 0
    assert capsys.readouterr().out == "2 items taken back from ann\n"
    for more, message in (
        (["anne", "--share", "0.5"], "Did you mean 'ann'"),
        (["ann"], "Which items?"),
        (["ann", "--share", "2"], "above 0 and at most 1"),
        (["ann", "--from", "bob", "--share", "0.5"], "nobody was given"),
        (["ann", "--from", "ann"], "Name another person"),
        (["ann", "--from", "bob", "--exclusive"], "stay as they are"),
    ):
        assert main([*base, *more]) == 2
        assert message in capsys.readouterr().err
    people = ["label", "annotators"]
    assert main([*people, "lead", "ann", "--db", db]) == 0
    assert main([*people, "weight", "bob", "--to", "0.5", "--db", db]) == 0
    assert main([*people, "list", "--db", db]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "ann\tperson\tactive, leads",
        "bob\tperson\tactive, weight 0.5",
    ]
