"""The charts of a report over rounds."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from popmargin.report.metrics import has_bounds, metric, number
from popmargin.report.plots import shown
from popmargin.report.svg import Plot, Scale, el, marker, shorten, span
from popmargin.rounds.gathered import Measured
from popmargin.statistics.intervals import Interval

_WIDTH, _HEIGHT = 360.0, 250.0
_CHOICE = {"random": "chosen at random", "oracle": "those known to be wrong"}


def over_rounds(policies: Sequence[Measured], key: str) -> Markup:
    """One metric of every policy in the order of the rounds, with intervals; nothing with fewer than two policies."""
    entry = metric(key)
    points = [(place, policy.name, policy.metrics[key]) for place, policy in enumerate(policies)
              if key in policy.metrics and policy.metrics[key].estimate == policy.metrics[key].estimate]  # fmt: skip
    if len(points) < 2:
        return Markup("")
    values = [value for _, _, one in points for value in (one.low, one.estimate, one.high)]
    y = span(values, floor=0 if entry.is_share else None, cap=1 if entry.is_share else None)
    x = Scale(-0.5, len(policies) - 0.5, 48, _WIDTH - 8)
    plot = Plot(x, y.on(_HEIGHT - 38, 30))
    plot.y_axis(share=entry.is_share)
    if key in ("win_rate_reference", "accuracy") and y.low < 0.5 < y.high:
        plot.across(0.5, "level")
    plot.line([(place, one.estimate) for place, _, one in points], "line s1")
    room = (x.end - x.start) / len(policies) - 4
    for place, name, one in points:
        at = plot.x(place)
        if has_bounds(one):
            plot.segment((at, at), (plot.y(one.low), plot.y(one.high)), "bar s1")
        dot = marker("circle", at, plot.y(one.estimate), 4.5, hint=f"{name}: {shown(key, one)}")
        plot.draw("g", dot, class_="s1")
        plot.text(shorten(name, room), at, _HEIGHT - 20, "tick mid")
    unit = "" if entry.is_share or not entry.unit else f", {entry.unit}"
    plot.text(f"{entry.title}{unit}", 0, 13, "panel-title")
    said = "; ".join(f"{name} {shown(key, one)}" for _, name, one in points)
    return plot.picture(_WIDTH, _HEIGHT, f"{entry.title} over rounds. {said}.")


def by_confidence(name: str, curve: Sequence[dict[str, Any]]) -> Markup:
    """Agreement of labels with the trusted score, from the least to the most certain labels of a round."""
    if not curve:
        return Markup("")
    intervals = [Interval.from_dict(row["interval"]) for row in curve]
    plot = Plot(Scale(-0.5, len(curve) - 0.5, 44, _WIDTH - 8), Scale(0.0, 1.0, _HEIGHT - 38, 30))
    plot.y_axis(share=True)
    plot.across(0.5, "level")
    plot.line([(place, one.estimate) for place, one in enumerate(intervals)], "line s2")
    for place, (one, row) in enumerate(zip(intervals, curve, strict=True)):
        at = plot.x(place)
        if has_bounds(one):
            plot.segment((at, at), (plot.y(one.low), plot.y(one.high)), "bar s2")
        hint = f"mean gap {row['confidence']:.3g}, {row['count']} pairs: {number(one.estimate, 0, share=True)}"
        plot.draw("g", marker("circle", at, plot.y(one.estimate), 4.5, hint=hint), class_="s2")
        plot.text(f"{row['confidence']:.2g}", at, _HEIGHT - 20, "tick mid")
    plot.text(f"{name}: agreement by gap of the label", 0, 13, "panel-title")
    plot.text("mean gap of the label, least certain to the left", (44 + _WIDTH - 8) / 2, _HEIGHT - 3, "tick mid")
    said = "; ".join(f"{one.estimate:.0%} of {row['count']}" for one, row in zip(intervals, curve, strict=True))
    return plot.picture(_WIDTH, _HEIGHT, f"Agreement of the labels of {name} by confidence: {said}.")


def ranked_margins(name: str, facts: Mapping[str, Any]) -> Markup:
    """Reward margins of ranked preferences, with the largest one that was dropped."""
    counts, edges = facts["histogram"]["counts"], facts["histogram"]["edges"]
    plot = Plot(span(edges).on(44, _WIDTH - 8), span([0, *counts], floor=0).on(_HEIGHT - 38, 30))
    plot.y_axis()
    plot.x_axis(grid=False)
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        hint = el("title", f"{number(low, 2)} to {number(high, 2)}: {count}")
        left, top = plot.x(low), plot.y(count)
        size = {"width": max(plot.x(high) - left - 0.5, 0.5), "height": plot.y(0) - top}
        plot.draw("rect", hint, x=left, y=top, class_="dot s1", **size)
    cut = facts["cut"] if facts["by"] == "loss" else None
    if cut is not None:
        plot.upright(cut, "level")
    plot.text(f"{name}: preferences by reward margin", 0, 13, "panel-title")
    plot.text("reward margin, reward units", (44 + _WIDTH - 8) / 2, _HEIGHT - 3, "tick mid")
    said = "nothing is dropped"
    if facts["dropped"]:
        how = f"up to {number(facts['cut'], 2)}" if facts["by"] == "loss" else _CHOICE[facts["by"]]
        said = f"{facts['dropped']} are dropped, {how}"
    below = f"{facts['contradicted']:.0%} are below zero"
    words = f"Reward margins of the {facts['rows']} preferences in {name}: {below}; {said}."
    return plot.picture(_WIDTH, _HEIGHT, words)
