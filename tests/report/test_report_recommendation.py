"""The page of recommenders in a real browser: nothing hangs over the edge, and what is wide scrolls by itself."""

import math
from pathlib import Path

import pytest

from chromium import MARKS, chromium
from popmargin.report import ArmResult, StudyResults
from popmargin.report.recommendation_page import write_recommendation_report
from popmargin.statistics.intervals import Interval

pytestmark = MARKS
SECTIONS = ("summary", "shown", "costs", "account", "notes", "setup")


def study(arms: int) -> StudyResults:
    """Arms with long names, all metrics, and differences from the first."""

    def arm(place: int) -> ArmResult:
        ranks = {f"{name}@{k}": Interval(0.02 * k + 0.01 * place, 0.01, 0.6)
                 for name in ("recall", "ndcg") for k in (5, 10, 20)}  # fmt: skip
        shown = {f"{name}@{k}": Interval(0.5, math.nan, math.nan)
                 for name in ("coverage", "popularity", "gini") for k in (5, 10, 20)}  # fmt: skip
        gaps = {} if not place else {name: Interval(-0.02, -0.03, -0.01, 0.001) for name in ranks}
        costs = {"fit_seconds": 0.002 * 50**place, "rank_seconds": 0.1, "peak_memory_mb": 500.0}
        label = f"A recommender with_a_long_name_{place}"
        return ArmResult(f"arm{place}", "preferdiff", label, "ours", [0, 1], ranks | shown, gaps, overhead=costs)

    verdict = "None of the 3 denoisers beats item-kNN: the best has NDCG@10 0.2198 against 0.3491 of item_knn."
    facts = {"Source": "/a/long/path/without/any/space/in/it/" + "x" * 80}
    return StudyResults("A shop", [arm(place) for place in range(arms)], {}, "arm0", [verdict, "More."], facts)


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_no_sideways_scrolling_and_the_verdict_first(tmp_path: Path, width: int) -> None:
    path = write_recommendation_report(study(6), tmp_path / "report.html")
    with chromium() as browser:
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(path.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.execute_script("return document.querySelector('p.lead').innerText").startswith("None of the 3")
        for name in SECTIONS:
            section = browser.find_element("id", name)
            assert section.is_displayed() and section.size["width"] <= width, name
        outside = browser.execute_script(
            "return [...document.querySelectorAll('p, h1, h2, figure, li, dd')].filter(e =>"
            " e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
        )
        assert outside == [] and browser.get_log("browser") == []
        pictures = browser.execute_script(
            "return [...document.querySelectorAll('svg.plot')].filter(e => e.checkVisibility()).length"
        )
        assert pictures == 1


def test_a_comparison_without_arms_says_so(tmp_path: Path) -> None:
    page = write_recommendation_report(StudyResults("Nothing", [], {}, "x"), tmp_path / "empty.html").read_text()
    assert "no finished arm" in page and "Not shown" in page
