"""Grades: what they are worth is found from agreement of simulated people, and makes calibrated soft labels."""

import numpy as np
import pyarrow as pa
import pytest
from label_stores import preferences

from popmargin.errors import ConfigError, DataError
from popmargin.label.export.graded_votes import calibrate_grades
from popmargin.label.export.preferences import preferences_of
from popmargin.label.projects.open_project import open_project
from popmargin.label.store.label_store import LabelStore

RIGHT = {1: 0.6, 2: 0.8, 3: 0.95}


def simulated(items: int, people: int, *, gold: bool = False, repeats: bool = False, seed: int = 0):
    """Labels by people whose answers of grade g are right with probability RIGHT[g], independently."""
    rng = np.random.default_rng(seed)
    rows, assignment = [], 0
    for item in range(items):
        truth = rng.choice(["first", "second"])
        other = {"first": "second", "second": "first"}[truth]
        firsts = []
        for who in [*range(people), *(range(people) if repeats else ())]:
            assignment += 1
            grade = int(rng.integers(1, 4))
            verdict = truth if rng.random() < RIGHT[grade] else other
            before = firsts[who] if len(firsts) == people else None
            firsts += [assignment] if before is None else []
            rows.append(
                {"assignment": assignment, "item": item, "kind": "preference", "annotator_kind": "person",
                 "verdict": verdict, "grade": grade, "gold": str(truth) if gold else None, "repeat_of": before}
            )  # fmt: skip
    return pa.Table.from_pylist(rows)


@pytest.mark.parametrize(
    ("made", "source"),
    [
        ({"items": 1500, "people": 2}, "overlap"),
        ({"items": 1200, "people": 3}, "overlap"),
        ({"items": 900, "people": 1, "gold": True}, "gold"),
        ({"items": 1500, "people": 1, "repeats": True}, "repeats"),
    ],
)
def test_the_share_of_right_answers_of_each_grade_is_found(made, source: str) -> None:
    found = calibrate_grades(simulated(**made, seed=1))
    for grade, right in RIGHT.items():
        assert found.right[grade].estimate == pytest.approx(right, abs=0.05), (grade, found)
        assert found.right[grade].low <= right <= found.right[grade].high
    counts = {name: getattr(found, name) for name in ("overlap", "gold", "repeats")}
    assert counts == {name: made["items"] if name == source else 0 for name in counts}


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = [
        found.right[grade].low <= RIGHT[grade] <= found.right[grade].high
        for seed in range(40)
        for found in [calibrate_grades(simulated(150, 2, seed=seed))]
        for grade in RIGHT
    ]
    assert np.mean(held) >= 0.9


def test_few_comparisons_change_little_and_a_higher_grade_is_never_worth_less() -> None:
    few = calibrate_grades(simulated(2, 2))
    assert [few.right[grade].estimate for grade in RIGHT] == pytest.approx([0.625, 0.75, 0.875], abs=0.08)
    labels = simulated(300, 2)
    turned = labels.set_column(5, "grade", pa.array([4 - value for value in labels["grade"].to_pylist()]))
    upside_down = [found.estimate for found in calibrate_grades(turned).right.values()]
    assert upside_down == sorted(upside_down)


@pytest.mark.slow
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)  # the figures are those of any database
def test_soft_labels_from_grades_are_calibrated(store: LabelStore) -> None:
    """A project of 150 preferences with two simulated people: soft labels match how often chosen is truly better."""
    count = 150
    data = preferences(count)
    project = open_project(store, data, "graded", kind="preference", overlap=2, say=lambda _: None)
    assert project.grades
    rng = np.random.default_rng(3)
    truth = {f"p{row}": rng.choice(["first", "second"]) for row in range(count)}
    for name in ("ann", "bob"):
        who = store.add_annotator(project.id, name)[0].id
        while (task := store.next_assignment(who)) is not None:
            right, grade = truth[task.first.id], int(rng.integers(1, 4))
            wrong = {"first": "second", "second": "first"}[right]
            verdict = right if rng.random() < RIGHT[grade] else wrong
            store.record(who, task.id, verdict, request=f"{name}-{task.id}", grade=grade)
    exported = preferences_of(store, project, votes="grades", wrong="keep")
    soft = np.array(exported.dataset["soft_label"])
    really = np.array([truth[key] == "first" for key in exported.ids])
    for low, high in ((0.0, 0.25), (0.25, 0.75), (0.75, 1.0)):
        part = (soft >= low) & (soft <= high)
        assert part.sum() > 10
        spread = 3 * np.sqrt(0.25 / part.sum())
        assert really[part].mean() == pytest.approx(soft[part].mean(), abs=spread)
    whole = np.array(preferences_of(store, project, votes="whole", wrong="keep").dataset["soft_label"])

    def loss(p):
        p = np.clip(p, 0.01, 0.99)
        return -np.mean(np.where(really, np.log(p), np.log(1 - p)))

    assert loss(soft) < loss(whole)
    assert any("share of right answers by grade" in note for note in exported.report.notes)


def test_grades_are_stored_exported_and_turn_with_their_preference(store: LabelStore) -> None:
    project = open_project(store, preferences(4), "graded", kind="preference", say=lambda _: None)
    who = store.add_annotator(project.id, "ann")[0].id
    said = {"p0": ("first", 3), "p1": ("second", 2), "p2": ("tie", None), "p3": ("first", 1)}
    while (task := store.next_assignment(who)) is not None:
        verdict, grade = said[task.first.id]
        store.record(who, task.id, verdict, request=f"r{task.id}", grade=grade)
    assert {row["first"]: row["grade"] for row in store.labels(project.id).to_pylist()} == {
        key: grade for key, (_, grade) in said.items()
    }
    swapped = preferences_of(store, project)
    assert dict(zip(swapped.ids, swapped.dataset["grade"], strict=True)) == {"p0": 3, "p1": 2, "p2": None, "p3": 1}
    kept = preferences_of(store, project, wrong="keep")
    assert dict(zip(kept.ids, kept.dataset["grade"], strict=True))["p1"] == -2
    with pytest.raises(DataError, match="--overlap 2"):
        preferences_of(store, project, votes="grades")


def test_wrong_grades_are_refused(store: LabelStore) -> None:
    project = open_project(store, preferences(4), "graded", kind="preference", say=lambda _: None)
    who = store.add_annotator(project.id, "ann")[0].id
    task = store.next_assignment(who)
    for verdict, grade in (("tie", 1), ("first", 4), ("unsure", 2)):
        with pytest.raises(DataError, match=r"give 1 \(slightly\)"):
            store.record(who, task.id, verdict, request="r", grade=grade)
    pairs = open_project(store, preferences(4), "pairs", say=lambda _: None)
    who = store.add_annotator(pairs.id, "ann")[0].id
    with pytest.raises(DataError, match="items of kind 'pop' have none"):
        store.record(who, store.next_assignment(who).id, "first", request="r", grade=2)
    with pytest.raises(ConfigError, match="grades are for kind 'preference'"):
        open_project(store, preferences(4), "other", grades=True, say=lambda _: None)
    assert not pairs.grades
