"""Models beside people in sentences and pictures: their agreement, and whether their confidence can be believed."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from popmargin.errors import counted
from popmargin.label.quality.judge_calibration import JudgeCalibration, Source
from popmargin.report.metrics import has_bounds, is_known, number
from popmargin.report.svg import Plot, Scale, el
from popmargin.report.tables import visible_text

SOURCES: dict[Source, str] = {
    "probabilities": "probabilities",
    "orders": "both orders",
    "own": "the model",
    "pooled": "pooling",
    "": "none given",
}
"""Where a confidence is from, in the table."""
_WIDTH, _HEIGHT = 344.0, 300.0


def calibration_sentences(found: Sequence[JudgeCalibration]) -> list[str]:
    """What the figures say, in sentences."""
    sentences: list[str] = []
    for one in found:
        what = "comparisons of preferences" if one.asked == "pop" else "preferences"
        said = (
            f"On {counted(one.items, 'item')} ({what}) that people and {one.name} decided, people agree with it in "
            f"{_share(one)} of votes"
        )
        if not one.source:
            sentences.append(f"{said}. It gives no confidence, so nothing says which of its labels to trust more.")
        elif one.source == "orders":
            sentences.append(
                f"{said}. It gives no probabilities: where it names a side at all, both orders agree and it counts as "
                "sure, so nothing tells its surer labels."
            )
        elif is_known(one.error):
            sure = number(one.confidence, 1, share=True)
            sentences.append(f"{said}; its mean confidence is {sure}{_verdict(one)}.{_calibrated(one)}")
    return sentences


def _calibrated(one: JudgeCalibration) -> str:
    """What calibration by people makes of its error, if there are items enough."""
    if not is_known(one.after):
        return ""
    before, after = number(one.error.estimate, 3), number(one.after.estimate, 3)
    return f" Calibrated by people (label export --calibrate) its error is {after}; as it is, {before}."


def _verdict(one: JudgeCalibration) -> str:
    """Whether confidence and agreement differ, as far as can be told."""
    if not has_bounds(one.agreement):
        return ""
    if one.confidence > one.agreement.high:
        return ", so it is surer than people bear out"
    if one.confidence < one.agreement.low:
        return ", so it could be surer"
    return ", which lies within that interval"


def _share(one: JudgeCalibration) -> str:
    text = number(one.agreement.estimate, 1, share=True)
    if not has_bounds(one.agreement):
        return text
    return f"{text} ({number(100 * one.agreement.low, 1)} to {number(one.agreement.high, 1, share=True)})"


def reliability_pictures(found: Sequence[JudgeCalibration]) -> list[Markup]:
    """Confidence against the share of people who agree, a picture for each model with more than one bin."""
    return [_picture(one) for one in found if len(one.curve) > 1]


def _picture(one: JudgeCalibration) -> Markup:
    least = min(end for row in one.curve for end in (0.5, row.right.estimate, row.right.low) if math.isfinite(end))
    x = Scale(0.5, 1, 46, _WIDTH - 12)
    y = Scale(max(0.0, math.floor((least - 0.02) * 10) / 10) if least < 0.5 else 0.5, 1, _HEIGHT - 40, 44)
    plot = Plot(x, y)
    plot.y_axis(share=True, count=4)
    plot.x_axis(share=True, count=4)
    plot.segment((x.start, x.end), (y(0.5), y.end), "base")
    plot.line([(row.confidence, row.right.estimate) for row in one.curve], "line thin s1")
    most = max(row.count for row in one.curve)
    hints: list[str] = []
    for row in one.curve:
        sure, right = (number(share, 1, share=True) for share in (row.confidence, row.right.estimate))
        hint = f"{sure} sure, {right} of people agree, {counted(row.count, 'item')}"
        hints.append(hint)
        across = x(row.confidence)
        if has_bounds(row.right):
            plot.segment((across, across), (y(row.right.low), y(row.right.high)), "bar s1")
        plot.draw("circle", el("title", hint), cx=across, cy=y(row.right.estimate),
                  r=2 + 4 * math.sqrt(row.count / most), class_="dot s1")  # fmt: skip
    plot.text(visible_text(one.name), 0, 14, "panel-title")
    plot.text("↑ people who agree", 0, 34, "tick")
    plot.text("how sure →", x.end, _HEIGHT - 4, "tick end")
    return plot.picture(_WIDTH, _HEIGHT, f"Reliability of {one.name}. {'; '.join(hints)}.")
