"""The report over rounds: what it says of numbers, and of what is missing."""

import math

from popmargin.rounds.gathered import Measured, RoundsResults
from popmargin.rounds.manifest import Manifest
from popmargin.rounds.page import reading, render_rounds
from popmargin.statistics.intervals import Interval


def measured(name: str, reward: float, change: Interval | None = None) -> Measured:
    metrics = {
        "mean_reward": Interval(reward, reward - 0.1, reward + 0.1),
        "accuracy": Interval(0.6, 0.5, 0.7),
        "kl_per_token": Interval(math.nan, math.nan, math.nan),
    }
    differences = {} if change is None else {"mean_reward": change}
    return Measured(name, metrics, differences, [{"prompt": "<b>2+2?", "completion": "4\n", "reward": reward}])


def results(change: Interval, agreement: float = 0.55) -> RoundsResults:
    overall = {"estimate": agreement, "low": agreement - 0.1, "high": agreement + 0.1}
    curve = [{"confidence": 0.1, "count": 9, "interval": overall}, {"confidence": 2.0, "count": 9, "interval": overall}]
    labels = {
        "round-1": {
            "sample": {"prompts": 9, "responses": 18, "unfinished": 3, "distinct_2": 0.5},
            "label": {"agreement": {"overall": overall, "curve": curve, "pairs": 18}},
            "pair": {"pairs": 7, "left_out": {"tie": 2}, "longer_chosen": 0.25},
        }
    }
    stage = Manifest("round-1/sample", "f", {}, {}, facts={"cost": {"sampled tokens": 12345}}, seconds=75.0, attempts=2)
    return RoundsResults(
        title="Two & two",
        policies=[measured("start", -0.2), measured("seed", 0.1), measured("round-1", 0.3, change)],
        labels=labels,
        trainings={"round-1": {"last": {"suspect_threshold": -0.5}, "suspected": 0.1}},
        stages=[stage],
        config="recipe: {name: spa}\n",
    )


def test_what_the_numbers_say() -> None:
    clear = reading(results(Interval(0.2, 0.05, 0.35)))
    assert clear[0].startswith("Mean reward goes from 0.1 (seed) to 0.3 (round-1): +0.2 [+0.05, +0.35]")
    assert clear[0].endswith("the interval excludes zero.")
    assert "agree with the reward on 55% of 18 pairs" in clear[1] and "not expected to help" in clear[1]
    noise = reading(results(Interval(0.2, -0.05, 0.45), agreement=0.7))
    assert "[−0.05, +0.45]; the interval includes zero" in noise[0]
    assert "not expected" not in noise[1]


def test_the_page() -> None:
    page = render_rounds(results(Interval(0.2, 0.05, 0.35)), planned=4)
    assert "Two &amp; two" in page and "&lt;b&gt;2+2?" in page and "<b>2+2?" not in page
    assert "1 of 4 stages are finished" in page
    for words in ("tie: 2", "17%", "12,345 sampled tokens", "1 min 15 s", "−0.2", "agreement by gap of the label"):
        assert words in page, words
    assert "nan" not in page.replace("nance", "")
    assert page == render_rounds(results(Interval(0.2, 0.05, 0.35)), planned=4)


def test_a_page_of_nothing_says_so() -> None:
    empty = RoundsResults("Nothing", [], {}, {}, [], "")
    page = render_rounds(empty, planned=4)
    assert page.count("Not shown") == 5
