import math

import pytest

from popmargin.report.metrics import METRICS, SUMMARY_COLUMNS, decimals, metric, number
from popmargin.report.tables import cell, duration, verdict, visible_text
from popmargin.statistics.intervals import Interval


@pytest.mark.parametrize(
    ("value", "places", "options", "text"),
    [
        (0.7123, 1, {"share": True}, "71.2%"),
        (-0.004, 2, {"sign": True}, "0.00"),
        (-1234.5, 1, {}, "−1,234.5"),
        (0.5, 2, {"sign": True}, "+0.50"),
        (math.inf, 2, {}, "–"),
        (None, 2, {}, "–"),
    ],
)
def test_number(value, places, options, text) -> None:
    assert number(value, places, **options) == text


@pytest.mark.parametrize(
    ("half", "places"), [(0.034, 3), (0.036, 2), (0.0031, 4), (1.4, 1), (40.0, 0), (1e-9, 4), (0.0, 2)]
)
def test_decimals_follow_the_interval(half: float, places: int) -> None:
    estimate = 0.0 if half == 0 else 1.0
    assert decimals([Interval(estimate, estimate - half, estimate + half), None]) == places


@pytest.mark.parametrize(
    ("key", "interval", "expected"),
    [
        ("accuracy", Interval(0.02, 0.01, 0.03), "better"),
        ("accuracy", Interval(-0.02, -0.03, -0.01), "worse"),
        ("accuracy", Interval(0.01, 0.0, 0.02), "unclear"),
        ("ece", Interval(0.02, 0.01, 0.03), "worse"),
        ("length", Interval(2.0, 1.0, 3.0), "higher"),
        ("kl_per_token", Interval(-2.0, -3.0, -1.0), "lower"),
        ("accuracy", Interval(0.02, math.nan, math.nan), ""),
        ("accuracy", None, ""),
    ],
)
def test_verdict_needs_an_interval_without_zero(key: str, interval, expected: str) -> None:
    assert verdict(interval, METRICS[key]) == expected


def test_win_rate_against_the_baseline_is_compared_with_one_half() -> None:
    shown = cell(Interval(0.56, 0.52, 0.60), None, METRICS["win_rate_baseline"], 1)
    assert (shown.estimate, shown.interval, shown.verdict) == ("56.0%", "[52.0, 60.0]", "better")
    assert cell(Interval(0.51, 0.48, 0.54), None, METRICS["win_rate_baseline"], 1).verdict == "unclear"


def test_difference_of_shares_is_in_points() -> None:
    shown = cell(Interval(0.7, 0.6, 0.8), Interval(-0.021, -0.03, -0.01), METRICS["accuracy"], 1)
    assert (shown.difference, shown.verdict, shown.symbol) == ("−2.1", "worse", "▼")


def test_unknown_metric_is_shown_under_its_name() -> None:
    assert metric("my_score").title == "My score"
    assert metric("kl_per_token").title == "KL per token (T = 1, no cut)"
    titles = {
        "log_ratio_per_token_t0.7_k50": "Log-ratio per token (T = 0.7, top-k 50)",
        "log_ratio_per_token_t0_k0": "Log-ratio per token (T = 0, no cut)",
        "log_ratio_per_token_own": "Log-ratio per token (the model's own settings)",
    }
    for key, title in titles.items():
        assert metric(key).title == title and "not a KL" in metric(key).meaning
    assert set(SUMMARY_COLUMNS) <= set(METRICS)


def test_every_metric_is_explained() -> None:
    assert [key for key, entry in METRICS.items() if len(entry.meaning) < 20] == []
    assert all(entry.key == key for key, entry in METRICS.items())


def test_duration() -> None:
    assert [duration(s) for s in (0.04, 59.94, 3599.6, 7322, math.nan)] == [
        "0.0 s", "59.9 s", "1 h 0 min", "2 h 2 min", "–"
    ]  # fmt: skip


def test_visible_text_replaces_what_html_cannot_hold() -> None:
    assert visible_text("a\r\nb\tc\x00\x1b[0m\ud800") == "a\nb\tc�" + "�[0m�"
