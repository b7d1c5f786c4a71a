"""Chains of pairs: one annotator goes through a run in order, a preference stays on the screen, no item is lost."""

import itertools
from collections import Counter

import numpy as np
import pytest
from label_stores import preferences

from popmargin.errors import ConfigError
from popmargin.label.projects.open_project import open_project
from popmargin.label.quality.carry_over import carry_over
from popmargin.label.quality.label_quality import label_quality
from popmargin.label.quality.report_page import reading
from popmargin.label.store.chained_tasks import RUN, run_links
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Assignment
from popmargin.label.web.screen import screen_of
from popmargin.pop.edges import PopEdges
from popmargin.pop.sampling import sample_edges


def chained(store: LabelStore, count: int, **settings) -> int:
    """A project of the default sampling; returns its id."""
    return open_project(store, preferences(count), "demo", say=lambda line: None, **settings).id


def sides(task: Assignment) -> list[tuple]:
    """The two pairs as they stand on the screen, from left to right."""
    return [(side.prompt, *(r.text for r in side.responses)) for side in screen_of(task).sides]


def answer(store: LabelStore, who: int) -> Assignment | None:
    task = store.next_assignment(who)
    if task is not None:
        store.record(who, task.id, "first", request=f"answer-{task.id}")
    return task


def goes_on(before: Assignment, now: Assignment) -> bool:
    """Whether exactly one pair is the same, and all of it is where it was."""
    return sum(one == other for one, other in zip(sides(before), sides(now), strict=True)) == 1


def test_by_default_each_task_keeps_a_pair_of_the_one_before_where_it_was(store: LabelStore) -> None:
    project = chained(store, 50)
    who = store.add_annotator(project, "ann")[0].id
    given = [answer(store, who) for _ in range(50)]
    assert answer(store, who) is None
    assert all(goes_on(*two) for two in itertools.pairwise(given))
    kept = [sides(one)[0] == sides(other)[0] for one, other in itertools.pairwise(given)]
    assert 20 <= sum(kept) <= 29  # left and right in turn: no side is read twice as often
    pairs = [frozenset((task.first.id, task.second.id)) for task in given]
    assert len(set(pairs)) == 50 and set(Counter(p for pair in pairs for p in pair).values()) == {2}


@pytest.mark.parametrize("overlap", [1, 2])
def test_several_people_have_runs_of_their_own_and_every_place_is_filled_once(store: LabelStore, overlap: int) -> None:
    project = chained(store, 70, overlap=overlap)
    people = [store.add_annotator(project, name)[0].id for name in ("ann", "bob", "cy")]
    given: dict[int, list[Assignment]] = {who: [] for who in people}
    waiting = list(people)
    while waiting:
        for who in list(waiting):
            task = answer(store, who)
            if task is None:
                waiting.remove(who)
            else:
                given[who].append(task)
    counts = Counter(task.item for tasks in given.values() for task in tasks)
    assert len(counts) == 70 and set(counts.values()) == {overlap}
    steps = [goes_on(*two) for tasks in given.values() for two in itertools.pairwise(tasks)]
    # All but the beginnings of runs, of which each person has about 70 · overlap / 3 / RUN and a few at the end.
    assert sum(steps) >= len(steps) - overlap * 70 // RUN - 6


def test_a_run_that_somebody_left_is_finished_by_others_from_its_end(store: LabelStore) -> None:
    project = chained(store, 30)
    ann, bob = (store.add_annotator(project, name)[0].id for name in ("ann", "bob"))
    begun = [answer(store, ann) for _ in range(5)]
    taken = []
    while (task := answer(store, bob)) is not None:
        taken.append(task)
    assert len({task.item for task in begun + taken}) == 30
    left = taken[10:]  # after the second run, of ten
    assert len(left) == 15 and all(goes_on(*two) for two in itertools.pairwise(left))
    assert {left[-1].first.id, left[-1].second.id} & {begun[-1].first.id, begun[-1].second.id}


def test_a_skipped_task_comes_back_and_gold_does_not_end_a_run(store: LabelStore) -> None:
    gold = PopEdges.from_columns(["p0", "p1", "p2"], ["p5", "p6", "p7"])
    project = chained(store, 40, gold=gold, seed=3)
    who = store.add_annotator(project, "ann")[0].id
    skipped = store.next_assignment(who)
    store.skip(who, skipped.id)
    given = []
    while (task := answer(store, who)) is not None:
        given.append(task)
    assert given[-1].id == skipped.id
    assert len({task.item for task in given}) == store.project("demo").items
    golden = [{"p0", "p5"}, {"p1", "p6"}, {"p2", "p7"}]
    ordinary = [task for task in given[:-1] if {task.first.id, task.second.id} not in golden]
    shared = [bool({a.first.id, a.second.id} & {b.first.id, b.second.id}) for a, b in itertools.pairwise(ordinary)]
    assert sum(shared) >= len(shared) - 3


def test_edges_that_are_a_chain_are_asked_in_their_order(store: LabelStore) -> None:
    ids = [f"p{row}" for row in range(12)]
    edges = sample_edges(ids, list(range(12)), seed=1)
    project = chained(store, 12, edges=edges)
    who = store.add_annotator(project, "ann")[0].id
    given = [answer(store, who) for _ in range(12)]
    pairs = zip(edges.table["stronger"].to_pylist(), edges.table["weaker"].to_pylist(), strict=True)
    assert [{task.first.id, task.second.id} for task in given] == [set(pair) for pair in pairs]


def test_random_pairs_remain_a_choice_and_old_projects_are_continued(store: LabelStore) -> None:
    project = chained(store, 30, sampling="random", k=2)
    who = store.add_annotator(project, "ann")[0].id
    given = [answer(store, who) for _ in range(60)]
    assert sum(goes_on(*two) for two in itertools.pairwise(given)) < 10
    assert open_project(store, preferences(30), "demo", k=2, say=lambda line: None).items == 60  # as it once was called
    with pytest.raises(ConfigError, match="different items"):
        open_project(store, preferences(30), "demo", sampling="chain", k=2, say=lambda line: None)


def chain_answers(count: int, pull: float, seed: int) -> list[dict]:
    """Answers of somebody who sees strengths with noise, and what stayed as better by `pull`."""
    rng = np.random.default_rng(seed)
    strength = rng.normal(size=count)
    rows = []
    for place in range(count - 1):
        gap = strength[place] - strength[place + 1] + rng.normal() + (pull if place else 0.0)
        rows.append(
            {"kind": "pop", "annotator_kind": "person", "annotator": "ann", "verdict": "first" if gap > 0 else "second",
             "assignment": place + 1, "first": f"p{place}", "second": f"p{place + 1}"}
        )  # fmt: skip
    return rows


def test_the_order_effect_is_found_and_is_not_found_where_there_is_none() -> None:
    shares = [carry_over(chain_answers(200, 0.0, seed)).stayed for seed in range(60)]
    assert np.mean([share.low <= 0.5 <= share.high for share in shares]) >= 0.95
    drawn = carry_over(chain_answers(400, 0.8, 0))
    assert drawn.tasks == 398 and drawn.stayed.low > 0.55
    assert carry_over([row | {"kind": "preference"} for row in chain_answers(9, 0.0, 0)]) is None


def test_the_report_tells_the_order_effect(store: LabelStore) -> None:
    project = chained(store, 30)
    who = store.add_annotator(project, "ann")[0].id
    while answer(store, who) is not None:
        pass
    quality = label_quality(store.labels(project))
    assert quality.stayed.tasks == 29
    assert any(line.startswith("Order effect") and "29 decided answers" in line for line in reading(quality))


def test_runs_end_where_nothing_is_shared_and_after_their_length() -> None:
    first, second = [f"p{row}" for row in range(25)], [f"p{row + 1}" for row in range(25)]
    assert run_links(first, second, [None] * 25) == [*range(RUN), *range(25 - RUN)]
    assert run_links(["a", "c", "d"], ["b", "d", "a"], [None] * 3) == [0, 0, 1]
