"""What to ask next: the studies' tables, read between their sizes and at a project's own prices."""

import importlib.util
import json
import math
import uuid
from pathlib import Path
from typing import Any

import pytest
from label_stores import preferences

import popmargin
from popmargin.cli.main import main
from popmargin.label.quality import budget_tables as tables
from popmargin.label.quality.budget_tables import OPTIONS, budget_tables, difference, unit_price
from popmargin.label.quality.next_question import Standing, next_hour
from popmargin.label.quality.next_words import next_sentences, next_table
from popmargin.label.quality.task_prices import TaskPrices, task_prices
from popmargin.label.store.label_store import LabelStore
from popmargin.statistics.intervals import UNDEFINED, Interval

ROOT = Path(popmargin.__file__).parents[2]
UKP, HANNA, ALPACA = budget_tables()


def plain(value: Interval) -> tuple[float, float, float]:
    return value.estimate, value.low, value.high


def prices_of(study: tables.BudgetTable) -> TaskPrices:
    return task_prices(study.words, {}, chained=True)


def project(labelled: int, unlabelled: int = 1000, agreement: Interval = UNDEFINED, prices: Any = None) -> Standing:
    return Standing("preference", labelled, unlabelled, 1.0, agreement, prices or prices_of(UKP))


def test_the_file_of_numbers_is_that_of_the_page() -> None:
    script = ROOT / "docs" / "studies" / "next_question.py"
    spec = importlib.util.spec_from_file_location("next_question_table", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.tables((ROOT / "docs" / "studies" / "budget.md").read_text(encoding="utf-8"))
    kept = Path(tables.__file__).with_name("budget_tables.json").read_text(encoding="utf-8")
    assert json.loads(kept) == json.loads(json.dumps(made))
    # Three cells read by eye.
    ukp, hanna, alpaca = made["studies"]
    assert ukp["gains"]["more"]["1"][-1] == [2.8, 2.1, 3.5]
    assert ukp["gains"]["random"]["3"][0] == [1.6, 0.4, 2.7]
    assert hanna["gains"]["votes"]["1"][3] == [0.7, -0.1, 1.4]
    assert alpaca["sizes"] == [200] and alpaca["gains"]["more"]["1"] == [[2.0, 1.1, 3.0]]


def test_at_a_size_and_budget_of_the_study_the_gain_is_its_own() -> None:
    seconds = 500 * UKP.prices["preference"]
    assert plain(UKP.gain("votes", 500, seconds, UKP.prices).points) == (1.8, 1.2, 2.4)
    assert plain(UKP.gain("votes", 500, 3 * seconds, UKP.prices).points) == pytest.approx((2.3, 1.6, 3.1))


def test_gains_between_sizes_and_budgets_are_on_straight_lines_over_logarithms() -> None:
    """√(500 · 1000) is half-way between these sizes, √3 between the budgets, and half the time buys half."""
    middle = round(math.sqrt(500 * 1000))
    found = UKP.gain("more", middle, middle * UKP.prices["preference"], UKP.prices).points
    assert plain(found) == pytest.approx((2.7, 1.9, 3.5), abs=2e-3)
    found = UKP.gain("votes", 500, math.sqrt(3) * 500 * UKP.prices["preference"], UKP.prices).points
    assert plain(found) == pytest.approx((2.05, 1.4, 2.75))
    found = UKP.gain("votes", 500, 250 * UKP.prices["preference"], UKP.prices)
    assert plain(found.points) == pytest.approx((0.9, 0.6, 1.2)) and found.budget == 0.5 and not found.beyond


def test_what_takes_twice_as_long_here_buys_half_as_much() -> None:
    dear = {**UKP.prices, "vote": 2 * UKP.prices["vote"]}
    seconds = 500 * UKP.prices["preference"]
    found = UKP.gain("votes", 500, seconds, dear)
    assert found.budget == pytest.approx(0.5) and found.points.estimate == pytest.approx(0.9)
    assert UKP.gain("more", 500, seconds, dear) == UKP.gain("more", 500, seconds, UKP.prices)


def test_above_the_largest_budget_its_gain_stays_and_is_marked() -> None:
    found = UKP.gain("votes", 500, 30 * 500 * UKP.prices["preference"], UKP.prices)
    assert found.beyond and found.points.estimate == 2.3


def test_prices_of_the_studies_words_are_the_studies() -> None:
    for study in (UKP, HANNA, ALPACA):
        found = prices_of(study).seconds
        assert {name: round(found[name]) for name in found} == pytest.approx(
            {name: study.prices[name] for name in found}, abs=1
        )


def test_measured_times_replace_those_of_the_words_and_set_the_pace() -> None:
    """117 words take 29.5 s to read and 5 to decide; people who need 69 s for a label take twice as long for all."""
    words = (15.0, 51.0)
    by_words = task_prices(words, {}, chained=False)
    twice = 2 * by_words.seconds["preference"]
    found = task_prices(words, {"preference": (Interval(twice, twice - 1, twice + 1), 40)}, chained=False)
    assert found.pace == pytest.approx(2.0)
    assert found.prices["vote"].measured.low == pytest.approx(twice - 1) and found.prices["vote"].labels == 40
    assert found.seconds["comparison"] == pytest.approx(2 * by_words.seconds["comparison"])
    both = task_prices(words, {"rating": (Interval(10.0, 9.0, 11.0), 5)}, chained=False)
    assert both.seconds["rating"] == 20.0


def test_a_difference_of_two_gains_by_hand() -> None:
    """2.8 [2.1, 3.5] less 1.7 [1.1, 2.3]: 1.1, and √(0.7² + 0.6²) = 0.922 to both sides."""
    found = difference(Interval(2.8, 2.1, 3.5), Interval(1.7, 1.1, 2.3))
    assert plain(found) == pytest.approx((1.1, 1.1 - 0.92195, 1.1 + 0.92195), abs=1e-4)


def test_the_advice_at_the_studies_own_prices_is_that_of_its_page() -> None:
    """The page, with paired intervals: 50 × 1 take ratings of new ones, 1 more not told apart; 1000 × 1 a grade."""
    few = next(said for said in next_hour(project(50), 50 * 34 / 3600).said if said.study is UKP)
    assert few.best == "rated" and plain(few.gains["rated"].points) == pytest.approx((7.8, 5.1, 10.5), abs=0.2)
    many = next(said for said in next_hour(project(1000), 1000 * 34.5 / 3600).said if said.study is UKP)
    assert many.best == "grade" and "more" in many.ties and "votes" not in many.ties
    assert many.old[0] == "ratings" and "votes" in many.old[1]


def test_what_is_not_told_apart_is_said() -> None:
    text = "\n".join(next_sentences(next_hour(project(1000), 9.5)))
    assert "On short arguments (UKP), 117 words each: labels of new preferences, +2.8 [+2.1, +3.5] points" in text
    assert "(highest: labels of new preferences, each with a grade, +3.3" in text
    assert "not told apart: labels of new preferences, each compared with the one before" in text
    assert "docs/studies/budget.md" in text


def test_outside_the_study_nothing_is_advised() -> None:
    for labelled in (20, 5000):
        sentences = next_sentences(next_hour(project(labelled), 1.0))
        assert sum("does not say what to ask next" in one for one in sentences) == 3
        assert not any("points" in one for one in sentences[:-1])
    only_ukp = "\n".join(next_sentences(next_hour(project(800), 1.0)))
    assert "On long stories (HANNA) the study has 50 to 500 labels, this project 800" in only_ukp


def test_another_agreement_than_the_studies_is_said() -> None:
    def said(agreement: Interval) -> str:
        return next_sentences(next_hour(project(500, agreement=agreement)))[-2]

    assert "85% [80, 90] of labels, more than in the studies" in said(Interval(0.85, 0.8, 0.9))
    assert "60% [55, 65] of labels, less than in the studies" in said(Interval(0.6, 0.55, 0.65))
    assert "as in the studies (73%)" in said(Interval(0.72, 0.65, 0.79))
    assert "not known here" in said(UNDEFINED)


def test_without_new_preferences_only_the_old_ones_are_advised() -> None:
    found = next_hour(project(500, unlabelled=0), 4.0)
    sentences = next_sentences(found)
    assert not any("of new preferences" in one for one in sentences)
    possible = {row["option"] for row in next_table(found) if row["possible"]}
    assert possible == {"votes", "ratings", "chain", "random"}


def test_every_option_has_a_price() -> None:
    for option in OPTIONS:
        assert unit_price(option, UKP.prices) > 0


def fill(path: Path) -> None:
    """60 preferences, 50 of them with labels of two people who agree in 40; 20 s for the first, 30 s for the second."""
    with LabelStore.open(path) as store:
        made = store.create_project("demo", overlap=2)
        store.import_preferences(made.id, preferences(60))
        store.add_items(made.id, "preference", [f"p{row}" for row in range(60)])
        for name, seconds in (("ann", 20.0), ("bob", 30.0)):
            who, _ = store.add_annotator(made.id, name)
            for number in range(50):
                task = store.next_assignment(who.id)
                assert task is not None
                verdict = "second" if name == "bob" and number < 10 else "first"
                store.record(who.id, task.id, verdict, request=str(uuid.uuid4()), seconds=seconds)


def test_the_command_reads_times_agreement_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "labels.db"
    fill(path)
    assert main(["label", "next", "--db", str(path)]) == 0
    said = capsys.readouterr().out
    assert "50 preferences with a label, 2.0 labels each; without a label: 10 preferences" in said
    assert "a label of a preference 25.0 s [20.0, 30.0]" in said
    assert "Two people agree in 80% [" in said
    assert main(["label", "next", "--db", str(path), "--json", "--hours", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["labelled"], found["unlabelled"], found["agreement"]["estimate"]) == (50, 10, 0.8)
    votes = next(one for one in found["options"] if one["option"] == "votes")
    assert votes["seconds"] == 25.0
    gain = votes["gains"]["short arguments (UKP)"]
    assert gain["budget"] == pytest.approx(7200 / 25 / 50) and gain["beyond"]
    assert main(["label", "next", "--db", str(path), "--hours", "0"]) == 2
    assert "--hours is 0" in capsys.readouterr().err


def test_a_project_without_labels_is_told_to_begin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "labels.db"
    with LabelStore.open(path) as store:
        made = store.create_project("demo")
        store.import_preferences(made.id, preferences(3))
    assert main(["label", "next", "--db", str(path)]) == 0
    assert "asks nothing yet" in capsys.readouterr().out
    with LabelStore.open(path) as store:
        store.add_items(made.id, "preference", ["p0", "p1"])
    assert main(["label", "next", "--db", str(path)]) == 0
    assert "No preference has a label yet" in capsys.readouterr().out


def test_rankings_are_priced_and_said_to_be_outside_the_studies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three comparisons of neighbours in 96 s are 32 s each."""
    path = tmp_path / "labels.db"
    with LabelStore.open(path) as store:
        made = store.create_project("demo", overlap=2)
        store.import_preferences(made.id, preferences(10))
        ids = [f"p{row}" for row in range(10)]
        store.add_items(made.id, "rank", [ids[0], ids[3], ids[6]], others=[ids[1:4], ids[4:7], ids[7:10]])
        assert main(["label", "next", "--db", str(path)]) == 0
        assert "A ranking of 4 takes" in capsys.readouterr().out
        for name in ("ann", "ben"):
            who, _ = store.add_annotator(made.id, name)
            while (task := store.next_assignment(who.id)) is not None:
                store.record(who.id, task.id, "2>1>3>4", request=f"{name}{task.id}", seconds=96.0)
    assert main(["label", "next", "--db", str(path)]) == 0
    said = capsys.readouterr().out
    assert "Measured (median): a ranking 1 min 36 s" in said
    assert "A ranking of 4 takes 1 min 36 s: 32.0 s for each of its 3 comparisons of neighbours" in said
    assert "The budget studies have no rankings: what one is worth in training is not known" in said
