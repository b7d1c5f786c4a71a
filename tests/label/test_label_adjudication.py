"""Adjudicators: they get what others disagree on; their labels win in exports, and are counted apart in agreement."""

from collections.abc import Callable

import pyarrow as pa
import pytest
from label_stores import Clock, preferences

from popmargin.errors import DataError
from popmargin.label.export.pop_edges import pop_edges
from popmargin.label.export.preferences import preferences_of
from popmargin.label.quality.label_quality import label_quality
from popmargin.label.quality.report_page import reading
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Annotator, Project


def vote(store: LabelStore, who: Annotator, verdicts: dict[int, str]) -> None:
    """Answer everything: items by their number, others with "first"."""
    while (now := store.next_assignment(who.id)) is not None:
        verdict = verdicts.get(now.item, "first")
        store.record(who.id, now.id, verdict, request=f"{who.id}-{now.id}-{now.revision}", note=f"says {verdict}")


@pytest.fixture
def disputed(store: LabelStore, make_project: Callable[..., Project]) -> tuple[Project, Annotator, list[int]]:
    """Six preferences with three labels each, on three of which people disagree; and who decides."""
    project = make_project(items=6, kind="preference", overlap=3)
    items = [row["item"] for batch in store.items(project.id) for row in batch.to_pylist()]
    for name, verdicts in (("ann", {}), ("ben", {items[0]: "second"}), ("cat", {items[1]: "tie", items[2]: "second"})):
        vote(store, store.add_annotator(project.id, name)[0], verdicts)
    judge, _ = store.add_annotator(project.id, "eve")
    store.set_adjudicator(judge.id, True)
    return project, judge, items


def test_the_queue_holds_what_people_disagree_on(
    store: LabelStore, clock: Clock, disputed: tuple[Project, Annotator, list[int]]
) -> None:
    project, judge, items = disputed
    before = store.progress(project.id)
    assert store.disputed(project.id) == 3 and store.progress(project.id, judge.id).own_left == 3
    found: list[int] = []
    now = store.next_assignment(judge.id)
    assert now is not None and now.adjudicates and store.disputed(project.id) == 2
    assert [vote.verdict for vote in store.votes_on(items[0])] == ["first", "first", "second"]
    store.skip(judge.id, now.id)  # it comes back last
    other, _ = store.add_annotator(project.id, "other")
    store.set_adjudicator(other.id, True)
    for who, most in ((judge, 1), (other, 1), (judge, 1)):
        for _ in range(most):
            now = store.next_assignment(who.id)
            assert now is not None
            store.record(who.id, now.id, "second", request=f"{who.id}-{now.id}")
            found.append(now.item)
    assert sorted(found) == sorted(items[:3]) and store.next_assignment(other.id) is None
    after = store.progress(project.id)
    assert (after.labels_done, after.labels_wanted) == (before.labels_done, before.labels_wanted) == (18, 18)
    assert store.undo(judge.id) is not None and store.disputed(project.id) == 0  # it is open again, with her
    clock.pass_seconds(10_000)
    again = store.next_assignment(other.id)  # her time is over
    assert again is not None and again.adjudicates
    store.discard(judge.id)
    assert {row["annotator"] for row in store.labels(project.id, adjudication="wins").to_pylist()} >= {"other"}


def test_the_decision_wins_in_exports_and_is_counted_apart(
    store: LabelStore, disputed: tuple[Project, Annotator, list[int]]
) -> None:
    project, judge, items = disputed
    alone = label_quality(store.labels(project.id))
    assert alone.adjudications is None
    vote(store, judge, {items[0]: "second", items[1]: "second", items[2]: "unsure"})
    keys = {row["item"]: row["first"] for batch in store.items(project.id) for row in batch.to_pylist()}

    def soft(adjudication: str) -> list[float]:
        found = preferences_of(store, project, adjudication=adjudication, wrong="keep", unjudged="keep")
        by_key = dict(zip(found.ids, found.soft_label.tolist(), strict=True))
        return [by_key[keys[item]] for item in items[:3]]

    # A soft label below ½ is that of the swapped pair.
    assert soft("wins") == pytest.approx([0.0, 0.0, 2 / 3]) and soft("ignore") == pytest.approx([2 / 3, 5 / 6, 2 / 3])
    notes = preferences_of(store, project).report.notes
    assert any("6 labels on items that an adjudicator has decided left out" in note for note in notes)
    found = label_quality(store.labels(project.id))
    assert repr((found.agreement, found.annotators)) == repr((alone.agreement, alone.annotators))  # nan is not nan
    assert found.adjudications is not None and found.adjudications.items == 2
    assert found.adjudications.majority.estimate == 0.0  # both decided against most people
    assert any("Adjudicators have decided 2 disputed items" in sentence for sentence in reading(found))
    assert store.labels(project.id)["adjudicated"].to_pylist().count(True) == 3


def test_the_account_of_edges_adds_up(store: LabelStore, make_project: Callable[..., Project]) -> None:
    project = make_project(items=4, overlap=2)
    items = [row["item"] for batch in store.items(project.id) for row in batch.to_pylist()]
    for name, verdicts in (("ann", {}), ("ben", {items[0]: "second"})):
        vote(store, store.add_annotator(project.id, name)[0], verdicts)
    judge, _ = store.add_annotator(project.id, "eve")
    store.set_adjudicator(judge.id, True)
    vote(store, judge, {})
    for adjudication, used, reason in (("wins", 7, "settled by an adjudicator"), ("ignore", 8, "of adjudicators")):
        edges, account = pop_edges(store, project, adjudication=adjudication)
        assert len(edges) == account.used == used
        assert account.labels == account.used + sum(account.left_out.values()) == 9
        assert account.left_out[reason] == 9 - used


def test_neighbouring_ratings_are_no_dispute_and_models_no_adjudicators(
    store: LabelStore, make_project: Callable[..., Project]
) -> None:
    project = make_project(items=1, kind="preference", scale=5, overlap=2)
    store.add_items(project.id, "rating", ["p0", "p0"], response=["chosen", "rejected"])
    for name, rejected in (("ann", "1"), ("ben", "3")):
        who, _ = store.add_annotator(project.id, name)
        while (now := store.next_assignment(who.id)) is not None:
            chosen = "4" if name == "ann" else "5"
            verdict = "first" if now.kind == "preference" else chosen if now.response == "chosen" else rejected
            store.record(who.id, now.id, verdict, request=f"{name}-{now.id}")
    assert store.disputed(project.id) == 1
    judge, _ = store.add_annotator(project.id, "judge", kind="judge")
    store.record_many(judge.id, pa.table({"item": [now_item(store, project)], "verdict": ["second"], "request": ["j"]}))
    assert store.disputed(project.id) == 1
    with pytest.raises(DataError, match="only people adjudicate"):
        store.set_adjudicator(judge.id, True)


def now_item(store: LabelStore, project: Project) -> int:
    """The item of a single preference."""
    rows = [row for batch in store.items(project.id) for row in batch.to_pylist()]
    return next(row["item"] for row in rows if row["kind"] == "preference")


def test_rankings_are_disputed_where_half_of_their_comparisons_are(store: LabelStore) -> None:
    """Of six comparisons two people differ in two, in three, and in five; the last two wait for somebody to decide."""
    project = store.create_project("ranks", overlap=2)
    store.import_preferences(project.id, preferences(13))
    groups = [[f"p{row + place}" for place in range(4)] for row in (0, 3, 6, 9)]
    store.add_items(project.id, "rank", [one[0] for one in groups], others=[one[1:] for one in groups], chained=True)
    items = [row["item"] for batch in store.items(project.id) for row in batch.to_pylist()]
    said = {"ann": ["1>2>3>4"] * 3 + ["4>3>2>1"], "ben": ["2>1>4>3", "4>1>2>3", "4>3>1>2", "unsure"]}
    for name, orders in said.items():
        vote(store, store.add_annotator(project.id, name)[0], dict(zip(items, orders, strict=True)))
    assert store.disputed(project.id) == 2
    assert [one.item for one in store.disputed_items(project.id, 10)] == items[1:3]
    assert [one.id for one in store.browse(project.id, state="disputed").items] == items[1:3]
    assert [one.disputed for one in store.browse(project.id).items] == [False, True, True, False]
    assert store.disputed_items(project.id, 1)[0].prompts == tuple(f"Question {row}? ‹ü› 🙂" for row in (3, 4, 5, 6))
    assert [one.verdict for one in store.votes_on(items[1])] == ["1>2>3>4", "4>1>2>3"]
    judge, _ = store.add_annotator(project.id, "eve")
    store.set_adjudicator(judge.id, True)
    vote(store, judge, {items[1]: "2>1>4>3", items[2]: "unsure"})
    assert store.disputed(project.id) == 0
    edges, account = pop_edges(store, project)
    assert account.used == 6 and account.left_out["settled by an adjudicator"] == 2
    own = [(row["stronger"], row["weaker"]) for row in edges.table.to_pylist() if row["annotator"] == "eve"]
    assert own == [("p4", "p3"), ("p3", "p6"), ("p6", "p5")]
    found = label_quality(store.labels(project.id))
    assert found.adjudications is not None and found.adjudications.items == 1
    assert found.rankings is not None and [row.name for row in found.rankings.rankers] == ["ann", "ben"]
