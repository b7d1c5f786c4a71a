"""Changes over time, habits, and whether a scale is good enough: from labels whose truth is known."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from label_stores import preferences

from popmargin.cli.main import main
from popmargin.label.quality.drift import drift_of
from popmargin.label.quality.drift_words import drift_sentences
from popmargin.label.quality.flags import flags_of
from popmargin.label.quality.good_enough import order_of, order_sentences
from popmargin.label.quality.habits import Habits, habits_of, longest_run, runs_by_chance
from popmargin.label.store.label_store import LabelStore
from popmargin.statistics.intervals import UNDEFINED

START = datetime(2026, 1, 1, tzinfo=UTC)


def table(rows: list[dict[str, Any]]) -> Any:
    """A table of labels, a minute apart."""
    usual = {"kind": "preference", "annotator": "ann", "annotator_kind": "person", "verdict": "first", "seconds": 10.0,
             "repeat_of": None, "swap_pairs": False, "swap_first": False}  # fmt: skip
    whole = [
        {**usual, "assignment": number, "item": number, "created_at": START + timedelta(minutes=number), **row}
        for number, row in enumerate(rows)
    ]
    made = pa.Table.from_pylist(whole)
    place = made.column_names.index("repeat_of")
    return made.set_column(place, "repeat_of", made["repeat_of"].cast(pa.int64()))


def pairs(agree: list[bool]) -> list[dict[str, Any]]:
    """Two people's labels of each item, who agree or not."""
    return [
        {"item": item, "annotator": name, "verdict": "first" if name == "ann" or same else "second"}
        for item, same in enumerate(agree)
        for name in ("ann", "bob")
    ]


def test_agreement_that_falls_is_told_with_its_size() -> None:
    """All of the first 100 items agree, and half of the last 100: the slope is that of numpy's straight line."""
    agree = [True] * 100 + [bool(item % 2) for item in range(100)]
    found = drift_of(table(pairs(agree)))
    assert found is not None
    assert [(one.first, one.last) for one in found.blocks] == [(1, 100), (101, 200), (201, 300), (301, 400)]
    assert [one.agreement.estimate for one in found.blocks] == [1.0, 1.0, 0.5, 0.5]
    hits = np.repeat(np.array(agree, dtype=float), 2)
    slope = np.polyfit(np.linspace(0, 1, 400), hits, 1)[0]
    assert found.agreement.estimate == pytest.approx(slope) and found.agreement.p < 1e-6
    assert "Agreement with the others falls by 74 points" in drift_sentences(found)[0]


def test_days_have_their_own_figures() -> None:
    """A day of agreement, then one of none by people who are twice as fast; midnight is UTC's."""
    rows = pairs([True] * 20 + [False] * 10)
    night = START + timedelta(hours=23, minutes=30)
    for number, row in enumerate(rows):
        row |= {"created_at": night + timedelta(minutes=number * 0.75), "seconds": 10.0 if number < 40 else 5.0}
    found = drift_of(table(rows))
    assert found is not None and len(found.blocks) == 1
    told = [(one.day, one.labels, one.people, one.agreement.estimate, one.seconds.estimate) for one in found.days]
    assert told == [("2026-01-01", 40, 2, 1.0, 10.0), ("2026-01-02", 20, 2, 0.0, 5.0)]
    same_day = drift_of(table(pairs([True] * 20)))
    assert same_day is not None and same_day.days == []


def test_no_trend_is_told_where_there_is_none() -> None:
    """Under no change, p is below 0.05 in about one of twenty."""
    low = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = drift_of(table(pairs((rng.random(60) < 0.7).tolist())))
        assert found is not None
        low += found.agreement.p < 0.05
    assert low <= 8


def test_seconds_are_compared_within_people() -> None:
    """A slow person who comes later is no trend; people who halve their times are."""
    later = [{"seconds": 5.0 + number % 3} for number in range(60)]
    later += [{"annotator": "slow", "seconds": 50.0 + 10 * (number % 3)} for number in range(60)]
    found = drift_of(table(later))
    assert found is not None and found.seconds.estimate == pytest.approx(1.0, abs=0.1) and found.seconds.p > 0.05
    halved = drift_of(table([{"seconds": 20.0 * 0.5 ** (number / 99)} for number in range(100)]))
    assert halved is not None and halved.seconds.estimate == pytest.approx(0.5)


def test_few_labels_tell_no_trend() -> None:
    assert drift_of(table([{}] * 29)) is None


def test_runs_of_a_coin_by_counting_all_tosses() -> None:
    for count, length in ((4, 2), (5, 3), (6, 1)):
        total = 0
        for tosses in range(2**count):
            sides = [bool(tosses >> place & 1) for place in range(count)]
            starts = [place for place in range(count) if place == 0 or sides[place] != sides[place - 1]]
            ends = [*starts[1:], count]
            total += sum(end - start >= length for start, end in zip(starts, ends, strict=True))
        assert runs_by_chance(count, length) == total / 2**count
    assert longest_run(np.array([True, True, False, False, False, True])) == 3 and longest_run(np.array([])) == 0


def test_who_always_takes_one_side_is_flagged_and_who_takes_the_better_one_is_not() -> None:
    """The order on the screen is drawn, so the same response is left or right."""
    rng = np.random.default_rng(0)
    swaps = (rng.random(60) < 0.5).tolist()
    rows = [{"annotator": "lefty", "swap_first": swap, "verdict": "second" if swap else "first"} for swap in swaps]
    rows += [{"annotator": "fair", "swap_first": swap, "verdict": "first"} for swap in swaps]
    found = habits_of(table(rows))
    assert (found["lefty"].run, found["lefty"].left) == (60, 60) and found["fair"].left == 60 - sum(swaps)

    class Row:
        kind, labels, seconds, kappa = "person", 60, 10.0, UNDEFINED

        def __init__(self, name: str) -> None:
            self.name = name

    flags = flags_of([Row("lefty"), Row("fair")], found)
    assert flags == {"lefty": ["chose the same side 60 times in a row", "chose the left side in 100% of answers"]}


def test_who_hurries_at_the_end_is_flagged() -> None:
    rows = [
        {"seconds": 30.0 if number < 50 else 4.0, "verdict": ("first", "second")[number % 2]} for number in range(100)
    ]
    found = habits_of(table(rows))

    class Row:
        name, kind, labels, seconds, kappa = "ann", "person", 100, 17.0, UNDEFINED

    assert flags_of([Row()], found)["ann"] == ["hurries: the median time fell from 30.0 to 4.0 s"]
    assert flags_of([Row()], {"ann": Habits(0, 0, 0, 0.0, 30.0, 29.0)}) == {}


def test_only_peoples_decided_comparisons_order_preferences() -> None:
    rows = [
        {"kind": "pop", "first": f"p{a}", "second": f"p{b}", "verdict": "first"} for a in range(6) for b in range(a)
    ]
    more = [{**rows[0], "verdict": "tie"}, {**rows[0], "annotator_kind": "judge"}, {**rows[0], "repeat_of": 1}]
    found = order_of(table([*rows, *more]))
    assert found is not None and (found.preferences, found.comparisons) == (6, 15)
    assert "15 comparisons order 6 preferences with a rank correlation of" in order_sentences(found)[0]
    assert "3 preferences without a comparison cannot be ordered" in order_sentences(found, 9)[0]


def test_the_report_and_its_json_have_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "labels.db")
    with LabelStore.open(path) as store:
        made = store.create_project("demo")
        store.import_preferences(made.id, preferences(12))
        both = [(a, b) for a in range(12) for b in range(a)]
        store.add_items(made.id, "pop", [f"p{a}" for a, _ in both], [f"p{b}" for _, b in both])
        who, _ = store.add_annotator(made.id, "ann")
        while (task := store.next_assignment(who.id)) is not None:
            larger = int(task.first.id[1:]) > int(task.second.id[1:])
            store.record(who.id, task.id, "first" if larger else "second", request=str(uuid.uuid4()), seconds=9.0)
    out = tmp_path / "labels.html"
    assert main(["label", "report", "--db", path, "--out", str(out), "--json", "--target", "0.6"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["order"]["comparisons"] == 66 and found["order"]["target"] == 0.6
    assert found["order"]["spearman"]["estimate"] > 0.85 and found["drift"]["blocks"][0]["last"] == 66
    html = out.read_text(encoding="utf-8")
    assert "Is the strength scale good enough?" in html and "The scale is good enough" in html and "Over time" in html
