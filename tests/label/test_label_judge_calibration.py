"""Models beside people: agreement and calibration, counted by hand and against a simulation."""

import math
from typing import Any

import numpy as np
import pytest
from test_label_quality import table

from popmargin.judges.labeller import Order, orders_note
from popmargin.label.quality.judge_calibration import JudgeCalibration, judge_calibrations
from popmargin.label.quality.label_quality import label_quality
from popmargin.label.quality.report_page import quality_json, reading, render_label_report
from popmargin.statistics.calibration import confidence_curve


def said(item: int, verdict: str, who: str = "Ada", **more: Any) -> dict[str, Any]:
    return {"item": item, "kind": "preference", "second": None, "annotator": who, "verdict": verdict} | more


def judged(item: int, verdict: str, confidence: float | None = None, note: str = "", **more: Any) -> dict[str, Any]:
    own: dict[str, Any] = {"annotator_kind": "judge", "confidence": confidence, "note": note}
    return said(item, verdict, "judge:x", **own | more)


def of(*rows: dict[str, Any]) -> list[JudgeCalibration]:
    return judge_calibrations([row for row in table(*rows).to_pylist() if row["repeat_of"] is None])


def test_agreement_and_curve_by_hand() -> None:
    """Shares of people who agree: item 0: 1 of 2; 1: a tie, ½; 2: 1; 3: the judge's tie; 4: nobody; 5: unsure."""
    rows = [said(0, "first"), said(0, "second", "Ben"), said(1, "tie"), said(2, "second"), said(3, "first")]
    rows += [said(5, "unsure"), said(2, "first", "Ben", repeat_of=4)]
    verdicts = [("first", 0.6), ("first", 0.7), ("second", 0.9), ("tie", 0.5), ("first", 0.99), ("second", 0.8)]
    notes = [orders_note([Order("A", 0.6), Order("B", 0.4)])] * 6
    rows += [judged(n, v, c, note) for n, ((v, c), note) in enumerate(zip(verdicts, notes, strict=True))]
    [one] = of(*rows)
    assert (one.items, one.people, one.ties, one.source) == (3, 4, 1, "probabilities")
    assert one.agreement.estimate == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert one.confidence == pytest.approx((0.6 + 0.7 + 0.9) / 3)
    [only] = one.curve
    assert (only.low, only.high, only.count) == (0.6, 0.9, 3) and only.right == one.agreement


def test_where_a_confidence_is_from() -> None:
    both = orders_note([Order("A"), Order("B")])
    people = [said(n, "first") for n in range(2)]

    def source(*rows: dict[str, Any]) -> tuple[str, int]:
        [one] = of(*people, *rows)
        return one.source, len(one.curve)

    assert source(judged(0, "first", 1.0, both), judged(1, "second", 1.0, both)) == ("orders", 1)
    assert source(judged(0, "first", 1.0, orders_note([Order("A")]))) == ("", 0)  # asked once, without probabilities
    assert source(judged(0, "first", 0.7, orders_note([Order("A", 0.7)]))) == ("probabilities", 1)
    assert source(judged(0, "first", annotator_kind="reward")) == ("", 0)
    assert source(judged(0, "first", 0.8, annotator_kind="reward")) == ("own", 1)
    assert of(*people, judged(7, "first", 0.9)) == [] and of(*people, judged(0, "tie", 0.5, both)) == []


def simulated(sharpness: float, items: int = 1500) -> list[dict[str, Any]]:
    """People are right with the probability p that a judge knows, who says p to the power of its sharpness (in logits);
    an independent computation of bins stands in the test."""
    rng = np.random.default_rng(1)
    rows: list[dict[str, Any]] = []
    for item in range(items):
        logit = rng.normal(0, 1.5)
        person = rng.random() < 1 / (1 + math.exp(-logit))
        p = 1 / (1 + math.exp(-sharpness * logit))
        note = orders_note([Order("A", p), Order("B", 1 - p)])
        rows.append(said(item, "first" if person else "second"))
        rows.append(judged(item, "first" if p > 0.5 else "second", max(p, 1 - p), note))
    return rows


def test_a_calibrated_judge_has_no_error_and_a_sharp_one_has() -> None:
    [calibrated], [sharp] = of(*simulated(1.0)), of(*simulated(3.0))
    assert calibrated.error.low <= 0.0 and calibrated.error.estimate < 0.02 and len(calibrated.curve) == 10
    assert sum(row.right.low <= row.confidence <= row.right.high for row in calibrated.curve) >= 8
    assert calibrated.agreement == sharp.agreement
    assert sharp.confidence - sharp.agreement.estimate == pytest.approx(sharp.error.estimate, abs=0.02)
    assert sharp.error.low > 0.1


def test_bins_are_those_of_a_plain_sort() -> None:
    rng = np.random.default_rng(2)
    sure = rng.permutation(np.linspace(0.5, 1, 60))
    right = (rng.random(60) < sure).astype(float)
    order = np.argsort(sure)
    curve = confidence_curve(sure, right, bins=3)
    for found, rows in zip(curve, np.split(order, 3), strict=True):
        assert found.confidence == pytest.approx(sure[rows].mean()) and found.count == 20
        assert found.right.estimate == pytest.approx(right[rows].mean())
        low, high = wilson(int(right[rows].sum()), 20)
        assert (found.right.low, found.right.high) == (pytest.approx(low), pytest.approx(high))


def wilson(hits: int, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    share = hits / trials
    centre, half = share + z * z / (2 * trials), z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return (centre - half) / (1 + z * z / trials), (centre + half) / (1 + z * z / trials)


def test_the_report_shows_every_judge_and_says_who_gives_no_confidence() -> None:
    rows = simulated(3.0, 100)
    rows += [said(n, "first", "score", annotator_kind="reward") for n in range(50)]
    quality = label_quality(table(*rows))
    sentences = " ".join(reading(quality))
    assert "100 items (preferences) that people and judge:x decided" in sentences
    assert "surer than people bear out" in sentences and "score decided" in sentences
    assert "It gives no confidence, so nothing says which of its labels to trust more." in sentences
    page = render_label_report(quality, "demo")
    assert 'id="calibration"' in page and "Reliability of judge:x" in page and "Reliability of score" not in page
    found = {one["name"]: one for one in quality_json(quality)["calibration"]}
    assert len(found["judge:x"]["curve"]) == 5 and found["score"]["curve"] == []
    assert found["score"]["error"]["estimate"] is None and found["score"]["source"] == ""
