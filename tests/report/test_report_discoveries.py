"""Many differences together: Benjamini & Hochberg against scipy, and what the report shows of it."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from popmargin.report.discoveries import benjamini_hochberg, differences, discovery_note
from popmargin.report.render import render_report
from popmargin.report.results import StudyResults
from popmargin.report.tables import summary_columns, summary_rows
from popmargin.statistics.intervals import Interval


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_discoveries_are_those_of_scipy(p: list[float]) -> None:
    adjusted = false_discovery_control(p)
    near = np.abs(adjusted - 0.05) < 1e-12
    assert (np.array(benjamini_hochberg(p)) == (adjusted <= 0.05))[~near].all()


def test_no_difference_is_tested() -> None:
    assert benjamini_hochberg([]) == [] and discovery_note([]) == ""


def with_tests(study: StudyResults, seeds: int) -> StudyResults:
    """The study with p-values: the first arm's accuracy is far from zero, the second's hardly, all others are not."""
    arms = [replace(arm, seeds=list(range(seeds)), differences={}) for arm in study.arms]
    far, hardly, none = Interval(0.1, 0.08, 0.12, 1e-6), Interval(0.1, 0.001, 0.2, 0.048), Interval(0.0, -0.1, 0.1, 0.9)
    for number, arm in enumerate(arms[1:]):
        arm.differences["accuracy"] = (far, hardly, *[none] * 5)[number]
        arm.metrics.pop("win_rate_baseline")
    return replace(study, arms=arms)


def test_the_table_tells_what_stands_beside_the_others(study: StudyResults) -> None:
    some = with_tests(study, 3)
    assert [one.stands for one in differences(some.arms, "dpo")] == [True, False, False, False, False, False]
    cells = [row[0] for _, row in summary_rows(some, summary_columns(some))]
    assert [cell.symbol for cell in cells[1:4]] == ["▲", "△", "○"]
    page = render_report(some)
    assert "Of 6 differences in the summary, 2 exclude zero at 95%" in page
    assert "Benjamini–Hochberg); DPO, rating margin in Accuracy does not." in page


def test_one_seed_gives_no_verdict(study: StudyResults) -> None:
    some = with_tests(study, 1)
    assert differences(some.arms, "dpo") == []
    cells = [row[0] for _, row in summary_rows(some, summary_columns(some))]
    assert {cell.verdict for cell in cells[1:]} == {"one seed"}
    page = render_report(some)
    assert "▲ better" in page and "diff-one-seed" in page
    assert "their differences cannot be told apart from seed noise" in page
    assert page.count("▲") == 1  # the legend
    base = replace(some.arms[0], seeds=[0, 1, 2])
    known = replace(some, arms=[base, *some.arms[1:]])
    assert [row[0].symbol for _, row in summary_rows(known, summary_columns(known))][1] == "▲"
