"""The store's own promises: who gets which item, what an answer leaves behind, what is refused."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from label_stores import Clock, preferences
from scipy.stats import binom

from popmargin.errors import ConfigError, DataError
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Annotator, Assignment, Project

MakeProject = Callable[..., Project]


def people(store: LabelStore, project: Project, count: int) -> list[Annotator]:
    return [store.add_annotator(project.id, f"person {number}")[0] for number in range(count)]


def answer_all(store: LabelStore, who: Annotator, verdict: Any = "first") -> list[Assignment]:
    given: list[Assignment] = []
    while (now := store.next_assignment(who.id)) is not None:
        store.record(who.id, now.id, verdict, request=f"{who.id}-{now.number}")
        given.append(now)
    return given


def test_a_refresh_shows_the_same_item_and_renews_its_lease(
    store: LabelStore, make_project: MakeProject, clock: Clock
) -> None:
    who = people(store, make_project(lease_seconds=60), 1)[0]
    first = store.next_assignment(who.id)
    clock.pass_seconds(50)
    again = store.next_assignment(who.id)
    assert first is not None and again is not None and first.expires_at is not None and again.expires_at is not None
    assert (again.id, again.item, again.shown) == (first.id, first.item, first.shown)
    assert (again.expires_at - first.expires_at).total_seconds() == 50
    assert store.assignment(who.id, first.id) == again


def test_overlap_is_exactly_k_and_nobody_gets_an_item_twice(store: LabelStore, make_project: MakeProject) -> None:
    project = make_project(20, overlap=3)
    everyone = people(store, project, 5)
    items: list[tuple[int, int]] = []
    for _ in range(20):  # in turns, so that items are started by some and completed by others
        for who in everyone:
            now = store.next_assignment(who.id)
            if now is not None:
                store.record(who.id, now.id, "first", request=f"r{now.id}")
                items.append((who.id, now.item))
    assert len(set(items)) == len(items) == 60
    assert set(Counter(item for _, item in items).values()) == {3}
    progress = store.progress(project.id, everyone[0].id)
    assert (progress.labels_wanted, progress.labels_done, progress.leased, progress.own_left) == (60, 60, 0, 0)


def test_started_items_are_completed_first(store: LabelStore, make_project: MakeProject) -> None:
    one, other = people(store, make_project(10, overlap=2), 2)
    for number in range(4):
        now = store.next_assignment(one.id)
        assert now is not None
        store.record(one.id, now.id, "first", request=str(number))
    started = [given.item for given in store.history(one.id)]
    for number in range(4):
        now = store.next_assignment(other.id)
        assert now is not None and now.item in started
        store.record(other.id, now.id, "first", request=str(number))


def test_an_abandoned_lease_goes_to_someone_else_and_its_late_answer_is_refused(
    store: LabelStore, make_project: MakeProject, clock: Clock
) -> None:
    gone, here, third = people(store, make_project(2, lease_seconds=60), 3)
    abandoned = store.next_assignment(gone.id)
    assert abandoned is not None
    clock.pass_seconds(61)
    taken = store.next_assignment(here.id)
    assert taken is not None and taken.item == abandoned.item
    with pytest.raises(DataError, match="others have since labelled"):
        store.record(gone.id, abandoned.id, "first", request="late")
    assert store.labels(store.project("demo").id).num_rows == 0
    other = store.next_assignment(gone.id)
    assert other is not None and other.item != abandoned.item
    assert store.next_assignment(third.id) is None


def test_a_late_answer_counts_where_nobody_took_the_place(
    store: LabelStore, make_project: MakeProject, clock: Clock
) -> None:
    slow, other = people(store, make_project(2, lease_seconds=60), 2)
    mine = store.next_assignment(slow.id)
    assert mine is not None
    answered = store.next_assignment(other.id)
    assert answered is not None
    store.record(other.id, answered.id, "first", request="a")
    clock.pass_seconds(61)
    store.record(slow.id, mine.id, "second", request="b")
    assert store.labels(store.project("demo").id)["verdict"].to_pylist() == ["second", "first"]


def test_a_skipped_item_is_not_done_and_comes_back_last(
    store: LabelStore, make_project: MakeProject, clock: Clock
) -> None:
    project = make_project(4)
    who = people(store, project, 1)[0]
    skipped: list[int] = []
    for _ in range(2):
        now = store.next_assignment(who.id)
        assert now is not None
        clock.pass_seconds(1)
        store.skip(who.id, now.id)
        skipped.append(now.item)
    progress = store.progress(project.id, who.id)
    assert (progress.own_done, progress.own_skipped, progress.own_left, progress.labels_done) == (0, 2, 4, 0)
    assert [given.item for given in answer_all(store, who)][2:] == skipped
    assert store.progress(project.id, who.id).own_skipped == 0


def test_others_may_take_a_skipped_item(store: LabelStore, make_project: MakeProject) -> None:
    one, other = people(store, make_project(1), 2)
    mine = store.next_assignment(one.id)
    assert mine is not None and store.next_assignment(other.id) is None
    store.skip(one.id, mine.id)
    store.skip(one.id, mine.id)
    theirs = store.next_assignment(other.id)
    assert theirs is not None and theirs.item == mine.item
    assert store.next_assignment(one.id) is None


def test_a_repeated_request_is_stored_once(store: LabelStore, make_project: MakeProject) -> None:
    project = make_project()
    who = people(store, project, 1)[0]
    now = store.next_assignment(who.id)
    assert now is not None
    stored = store.record(who.id, now.id, "tie", request="same", note="why", confidence=0.5, seconds=3.25)
    assert store.record(who.id, now.id, "tie", request="same") == stored
    assert store.label_history(project.id).num_rows == 1
    assert store.assignment(who.id, now.id).label == stored
    with pytest.raises(DataError, match=r"stored a different answer.*which is kept"):
        store.record(who.id, now.id, "first", request="same")
    assert store.label_history(project.id).num_rows == 1
    later = store.next_assignment(who.id)
    assert later is not None
    with pytest.raises(DataError, match="answered assignment"):
        store.record(who.id, later.id, "first", request="same")


def test_answering_again_and_undo_add_revisions_and_lose_nothing(store: LabelStore, make_project: MakeProject) -> None:
    project = make_project()
    who = people(store, project, 1)[0]
    one = store.next_assignment(who.id)
    assert one is not None
    store.record(who.id, one.id, "first", request="1")
    other = store.next_assignment(who.id)
    assert other is not None
    store.record(who.id, one.id, "second", request="2")
    assert store.labels(project.id)["verdict"].to_pylist() == ["second"]
    back = store.undo(who.id)
    assert back is not None and (back.id, back.state) == (one.id, "leased")
    assert back.label is not None and back.label.verdict is None
    again = store.next_assignment(who.id)
    assert again is not None and again.id == one.id
    assert store.labels(project.id).num_rows == 0 and store.progress(project.id, who.id).own_done == 0
    assert store.undo(who.id) is None
    store.record(who.id, one.id, "tie", request="3")
    assert store.label_history(project.id)["verdict"].to_pylist() == ["first", "second", None, "tie"]
    assert store.label_history(project.id)["revision"].to_pylist() == [1, 2, 3, 4]
    assert store.next_assignment(who.id) == store.assignment(who.id, other.id)


def test_undo_goes_back_answer_by_answer(store: LabelStore, make_project: MakeProject) -> None:
    who = people(store, make_project(5), 1)[0]
    given = answer_all(store, who)
    for expected in reversed(given):
        back = store.undo(who.id)
        assert back is not None and back.id == expected.id
    assert [now.id for now in answer_all_again(store, who)] == [now.id for now in given]


def answer_all_again(store: LabelStore, who: Annotator) -> list[Assignment]:
    given: list[Assignment] = []
    while (now := store.next_assignment(who.id)) is not None:
        store.record(who.id, now.id, "second", request=f"again {now.number}")
        given.append(now)
    return given


def test_gold_items_go_to_everybody_and_do_not_come_in_a_row(store: LabelStore, make_project: MakeProject) -> None:
    project = make_project(100, gold=["first"] * 10 + [None] * 90)
    one, other = people(store, project, 2)
    assert store.progress(project.id).labels_wanted == 90 + 2 * 10
    while True:
        turn = [store.next_assignment(who.id) for who in (one, other)]
        for who, now in zip((one, other), turn, strict=True):
            if now is not None:
                store.record(who.id, now.id, "first", request=str(now.id))
        if turn == [None, None]:
            break
    table = store.labels(project.id)
    golden = [row for row in table.to_pylist() if row["gold"] is not None]
    assert Counter(row["annotator"] for row in golden) == {"person 0": 10, "person 1": 10}
    assert table.num_rows == 110
    places = [now.number for now in store.history(one.id, limit=200) if now.item in {row["item"] for row in golden}]
    assert max(places) - min(places) > 20


def test_a_share_of_own_items_comes_back_later_in_a_fresh_order(store: LabelStore, make_project: MakeProject) -> None:
    project = make_project(80, repeat_share=0.2)
    who = people(store, project, 1)[0]
    given = {now.id: now for now in answer_all(store, who)}
    rows = store.labels(project.id).to_pylist()
    repeats = [row for row in rows if row["repeat_of"] is not None]
    assert 5 <= len(repeats) <= 35 and len(rows) == 80 + len(repeats)
    for row in repeats:
        first, second = given[row["repeat_of"]], given[row["assignment"]]
        assert first.item == second.item and second.number - first.number >= 10
    assert any(given[row["repeat_of"]].shown != given[row["assignment"]].shown for row in repeats)
    progress = store.progress(project.id, who.id)
    assert (progress.labels_done, progress.own_done, progress.own_left) == (80, len(rows), 0)


def test_order_on_the_screen_is_balanced_stored_and_reproducible(store: LabelStore, make_project: MakeProject) -> None:
    project = make_project(150)
    given = answer_all(store, people(store, project, 1)[0])
    rows = {row["assignment"]: row for row in store.labels(project.id).to_pylist()}
    low, high = binom.interval(0.999, len(given), 0.5)
    for name in ("swap_pairs", "swap_first", "swap_second"):
        assert low <= sum(getattr(now.shown, name) for now in given) <= high
        assert all(rows[now.id][name] == getattr(now.shown, name) for now in given)


def test_history_is_newest_first_and_in_pages(store: LabelStore, make_project: MakeProject) -> None:
    who = people(store, make_project(7), 1)[0]
    given = [now.id for now in answer_all(store, who)]
    page = store.history(who.id, limit=3)
    assert [now.id for now in page] == given[:-4:-1]
    assert [now.id for now in store.history(who.id, before=page[-1].id)] == given[-4::-1]


def test_tokens_open_only_their_own_active_annotator(store: LabelStore, make_project: MakeProject) -> None:
    project = make_project()
    who, token = store.add_annotator(project.id, "Zoë")
    assert store.annotator_of(token) == (project, who)
    assert store.annotator_of(token + "x") is None
    other = store.new_token(who.id)
    assert store.annotator_of(token) is None and store.annotator_of(other) == (project, who)
    now = store.next_assignment(who.id)
    store.set_active(who.id, False)
    assert store.annotator_of(other) is None and store.progress(project.id).leased == 0
    with pytest.raises(DataError, match="no longer active"):
        store.next_assignment(who.id)
    store.set_active(who.id, True)
    back = store.next_assignment(who.id)
    assert now is not None and back is not None and back.id == now.id
    with pytest.raises(DataError, match="already"):
        store.add_annotator(project.id, "Zoë")


def test_a_judge_labels_everything_once_and_takes_no_place(store: LabelStore, make_project: MakeProject) -> None:
    project = make_project(12)
    judge, _ = store.add_annotator(project.id, "judge-1", kind="judge")
    items = pa.Table.from_batches(store.items(project.id, unlabelled_by=judge.id))
    count = items.num_rows
    columns: dict[str, Any] = {
        "item": items["item"],
        "verdict": ["second"] * count,
        "request": [f"r{row}" for row in range(count)],
        "confidence": [0.75] * count,
        "swap_pairs": [True] * count,
    }
    assert store.record_many(judge.id, pa.table(columns).slice(0, 5)) == 5
    assert store.record_many(judge.id, pa.table(columns)) == 7
    assert list(store.items(project.id, unlabelled_by=judge.id)) == []
    table = store.labels(project.id)
    assert table["swap_pairs"].to_pylist() == [True] * count and set(table["annotator_kind"].to_pylist()) == {"judge"}
    assert len(answer_all(store, people(store, project, 1)[0])) == 12
    columns |= {"verdict": ["tie"] * count, "request": [f"second {row}" for row in range(count)]}
    assert store.record_many(judge.id, pa.table(columns)) == 12
    rows = [row for row in store.labels(project.id).to_pylist() if row["annotator"] == "judge-1"]
    assert {(row["verdict"], row["revision"]) for row in rows} == {("tie", 2)}


def test_bad_rows_of_a_model_are_named_and_nothing_of_their_part_is_stored(
    store: LabelStore, make_project: MakeProject
) -> None:
    project = make_project(3)
    judge, _ = store.add_annotator(project.id, "judge", kind="judge")
    person, _ = store.add_annotator(project.id, "person")
    good = {"item": [1, 2], "verdict": ["first", "tie"], "request": ["a", "b"]}
    for change, message in (
        ({"item": [1, 99]}, "row 1: the project has no item 99"),
        ({"item": [1, 1]}, "row 1: item 1 appears twice"),
        ({"verdict": ["first", "frist"]}, "row 1: verdict is 'frist'. Did you mean 'first'"),
        ({"confidence": [0.5, 1.5]}, "row 1: confidence"),
        ({"colour": [1, 2]}, "unknown column 'colour'"),
    ):
        with pytest.raises(DataError, match=message.replace("?", ".")):
            store.record_many(judge.id, pa.table({**good, **change}))
    with pytest.raises(ConfigError, match="is a person"):
        store.record_many(person.id, pa.table(good))
    assert store.label_history(project.id).num_rows == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"verdict": "best"}, "verdict"),
        ({"wrong": "first"}, "wrong"),
        ({"confidence": 1.01}, "confidence"),
        ({"confidence": float("nan")}, "confidence"),
        ({"seconds": -1.0}, "seconds"),
        ({"seconds": float("inf")}, "seconds"),
        ({"request": ""}, "request"),
        ({"request": "x" * 201}, "request"),
        ({"note": "x" * 10_001}, "note"),
    ],
)
def test_what_is_no_answer_is_refused(
    store: LabelStore, make_project: MakeProject, values: dict[str, Any], message: str
) -> None:
    project = make_project(2)
    who = people(store, project, 1)[0]
    now = store.next_assignment(who.id)
    assert now is not None
    given = {"verdict": "first", "request": "r", **values}
    with pytest.raises(DataError, match=message):
        store.record(who.id, now.id, given.pop("verdict"), **given)
    assert store.label_history(project.id).num_rows == 0


def test_characters_that_a_database_cannot_hold_are_replaced(store: LabelStore, make_project: MakeProject) -> None:
    who = people(store, make_project(1), 1)[0]
    now = store.next_assignment(who.id)
    assert now is not None
    stored = store.record(who.id, now.id, "wrong", wrong="both", request="a\0", note="one \0 two \ud800 🙂")
    assert (stored.note, stored.request) == ("one � two � 🙂", "a�")


def test_nobody_touches_the_assignment_of_another(store: LabelStore, make_project: MakeProject) -> None:
    one, other = people(store, make_project(), 2)
    mine = store.next_assignment(one.id)
    assert mine is not None
    for act in (
        lambda: store.record(other.id, mine.id, "first", request="r"),
        lambda: store.skip(other.id, mine.id),
        lambda: store.assignment(other.id, mine.id),
    ):
        with pytest.raises(DataError, match="has no assignment"):
            act()


def test_single_preferences_are_asked_without_a_second(store: LabelStore, make_project: MakeProject) -> None:
    who = people(store, make_project(3, kind="preference"), 1)[0]
    now = store.next_assignment(who.id)
    assert now is not None and now.second is None and now.kind == "preference"
    with pytest.raises(DataError, match="choose 'second'"):
        store.record(who.id, now.id, "wrong", request="r")
    assert now.first == store.texts(store.project("demo").id, [now.first.id])[now.first.id]


def test_items_that_cannot_be_asked_are_refused_by_row(store: LabelStore) -> None:
    project = store.create_project("p")
    store.import_preferences(project.id, preferences(3))
    for first, second, message in (
        (["p0", "p9"], ["p1", "p2"], "row 1, column 'first'"),
        (["p0", "p1"], ["p1", "p1"], "row 1: first and second"),
        (["p0"], None, "need a second each"),
        (["p0"], ["p1", "p2"], "1 item but 2"),
    ):
        with pytest.raises(DataError, match=message):
            store.add_items(project.id, "pop", first, second)
    with pytest.raises(DataError, match="gold is 'frist'"):
        store.add_items(project.id, "pop", ["p0"], ["p1"], gold=["frist"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="already has 3 of these ids"):
        store.import_preferences(project.id, preferences(3))
    with pytest.raises(DataError, match="plain text"):
        store.import_preferences(project.id, preferences(3, conversational=True))
    with pytest.raises(DataError, match="already"):
        store.create_project("p")
    with pytest.raises(ConfigError, match="overlap"):
        store.create_project("q", overlap=0)
    with pytest.raises(DataError, match=r"no project 'P'. Known: p"):
        store.project("P")
    assert store.project("p").items == 0
