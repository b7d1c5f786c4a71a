"""Charts of training and calibration: curves over steps, in panels on shared scales."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import TypeVar

from markupsafe import Markup

from popmargin.report.metrics import LOG_RATIO, has_bounds, is_known, metric
from popmargin.report.plots import Style, arm_styles, short_names, shown
from popmargin.report.results import ArmResult, StudyResults
from popmargin.report.svg import Plot, Scale, el, span
from popmargin.statistics.intervals import Interval

CURVES = ("accuracy", "win_rate_reference", "kl_per_token")  # and log-ratios that are not a KL
PANEL_WIDTH = 270.0
Rows = list[list[float]]
T = TypeVar("T")


def _rows(rows: Iterable[Sequence[float]], size: int = 2) -> Rows:
    """Rows with a finite step and value, padded with nan to ``size``."""
    padded = [[*map(float, row), *([math.nan] * size)][:size] for row in rows]
    return [row for row in padded if math.isfinite(row[0]) and math.isfinite(row[1])]


def _by_step(rows: Rows) -> dict[float, float]:
    return {step: value for step, value in rows}  # noqa: C416


def curve_names(study: StudyResults) -> list[str]:
    """The metrics drawn over training."""
    others = {name for arm in study.arms for name in arm.curves if name.startswith(LOG_RATIO)}
    return [*CURVES, *sorted(others)]


def curve(study: StudyResults, key: str) -> Markup:
    """One held-out metric over training, all arms; intervals of the last step are on the right."""
    entry = metric(key)
    drawn = [(style, rows, Interval(*rows[-1][1:4]))
             for arm, style in zip(study.arms, arm_styles(study), strict=True)
             if len(rows := _rows(arm.curves.get(key, ()), 4)) > 1]  # fmt: skip
    if not drawn:
        return Markup("")
    width, height, left, bottom = 360.0, 262.0, 44.0, 222.0
    lane = min(9.0, 66.0 / len(drawn))
    right = width - 12 - lane * len(drawn)
    few = len(drawn) <= 3
    values = [value for _, rows, _ in drawn for row in rows
              for value in (row[1:] if few or row is rows[-1] else row[1:2])]  # fmt: skip
    y = span(values, floor=0 if entry.is_share or key == "kl_per_token" else None, cap=1 if entry.is_share else None)
    x = span((row[0] for _, rows, _ in drawn for row in rows), pad=0)
    plot = Plot(x.on(left, right), y.on(bottom, 30))
    plot.y_axis(share=entry.is_share)
    plot.x_axis(count=4, grid=False)
    if key == "win_rate_reference" and y.low < 0.5 < y.high:
        plot.across(0.5, "level")
    for style, rows, _ in drawn:
        if few:
            plot.band([(row[0], row[2], row[3]) for row in rows], f"area {style.colour}")
        plot.line([row[:2] for row in rows], f"line {style.colour}", style.dash)
    for position, (style, rows, last) in enumerate(drawn):
        at = right + 8 + lane * (position + 0.5)
        if has_bounds(last):
            plot.segment((at, at), (plot.y(last.low), plot.y(last.high)), f"bar {style.colour}")
        hint = f"{style.label} at step {rows[-1][0]:g}: {shown(key, last)}"
        plot.body.append(style.mark(at, plot.y(last.estimate), min(4.0, lane * 0.55), hint))
    unit = "" if entry.is_share or not entry.unit else f", {entry.unit}"
    plot.text(f"{entry.title}{unit}", 0, 13, "panel-title")
    plot.text("optimizer step", (left + right) / 2, height - 4, "tick mid")
    plot.text("at the end", width, bottom + 17, "tick end")
    said = "; ".join(f"{style.label} ends at {shown(key, last)}" for style, _, last in drawn)
    return plot.picture(width, height, f"{entry.title} over training. {said}.")


def _panels(
    study: StudyResults, data: Mapping[str, T], scales: tuple[Scale, Scale], size: tuple[float, float],
    draw: Callable[[Plot, Style, ArmResult, T], str],
) -> list[Markup]:  # fmt: skip
    """One panel per arm with data; ``draw`` draws it and describes it in words."""
    styles = arm_styles(study)
    names = short_names(styles, (size[0] - 26) / 1.14, 12.5)
    panels: list[Markup] = []
    for arm, style, name in zip(study.arms, styles, names, strict=True):
        if arm.name in data:
            plot = Plot(*scales, [style.mark(7, 10, 5)])
            plot.text(name, 20, 14.5, "panel-title")
            panels.append(plot.picture(*size, draw(plot, style, arm, data[arm.name])))
    return panels


def target_margins(study: StudyResults) -> list[Markup]:
    """Target margin (mean ± std) and clipped share over training, for the arms whose target is not constant 0."""
    means = {arm.name: _rows(arm.training.get("target_margin_mean", ())) for arm in study.arms}
    stds = {arm.name: _by_step(_rows(arm.training.get("target_margin_std", ()))) for arm in study.arms}
    bands = {name: [(step, mean - std, mean + std) for step, mean in rows for std in [stds[name].get(step, math.nan)]]
             for name, rows in means.items() if len(rows) > 1 and any(row[1] for row in rows)}  # fmt: skip
    values = [value for name, band in bands.items() for row in (*means[name], *band) for value in row[1:]]
    x = span((row[0] for band in bands.values() for row in band), pad=0).on(38, PANEL_WIDTH - 8)
    y = span([0.0, *values]).on(126, 28)

    def draw(plot: Plot, style: Style, arm: ArmResult, band: Sequence[tuple[float, float, float]]) -> str:
        rows, clipped = means[arm.name], _rows(arm.training.get("target_margin_clipped", ()))
        plot.y_axis(count=3)
        plot.band(band, f"area {style.colour}")
        plot.line(rows, f"line {style.colour}")
        strip = Plot(x, Scale(0, 1, 182, 148), plot.body)
        strip.text("clipped", x.start + 2, 143, "tick")
        strip.y_axis(share=True, count=1)
        strip.band([(step, 0.0, share) for step, share in clipped], f"area {style.colour}")
        strip.line(clipped, f"line thin {style.colour}")
        strip.x_axis(count=4, grid=False)
        end = f", clipped share {clipped[-1][1]:.0%}" if clipped else ""
        return f"Target margin of {style.label} over training: from {rows[0][1]:.2f} to {rows[-1][1]:.2f}{end}."

    return _panels(study, bands, (x, y), (PANEL_WIDTH, 206), draw)


def tau_histograms(study: StudyResults) -> list[Markup]:
    """Shares of training preferences by their scale τ, over the last tenth of the log; one panel per arm."""
    names = sorted({key for arm in study.arms for key in arm.training if key.startswith("tau_bin_")})
    series = {arm.name: [_rows(arm.training.get(name, ())) for name in names] for arm in study.arms}
    bins = {name: [fmean(row[1] for row in rows[-max(1, len(rows) // 10) :]) for rows in found]
            for name, found in series.items() if found and all(found)}  # fmt: skip
    x, y = Scale(0, max(len(names), 1), 38, PANEL_WIDTH - 8), Scale(0, 1, 126, 28)

    def draw(plot: Plot, style: Style, _: ArmResult, shares: Sequence[float]) -> str:
        plot.y_axis(share=True, count=4)
        for place, share in enumerate(shares):
            hint = el("title", f"bin {place + 1} of {len(shares)}: {share:.0%}")
            plot.draw("rect", hint, x=x(place) + 1.5, y=y(share), width=x(1) - x(0) - 3, height=y(0) - y(share),
                      class_=f"dot {style.colour}")  # fmt: skip
        plot.text("τ₀", x.start, 143, "tick")
        plot.text("τ max", x.end, 143, "tick end")
        return (
            f"Scales of {style.label} at the end: {shares[0]:.0%} in the lowest bin, {shares[-1]:.0%} in the highest."
        )

    return _panels(study, bins, (x, y), (PANEL_WIDTH, 148), draw)


ERRORS = ("winner_error_change", "loser_error_change")
"""Logged denoising errors of chosen and rejected images, minus the reference's."""


def log_ratios(study: StudyResults) -> list[Markup]:
    """Mean log-ratio of chosen and rejected responses over training (nats), one panel per arm on one scale.

    Of images, the change of the denoising error from the reference's, on forward noise.
    """
    keys = ERRORS if study.responses == "images" else ("chosen_logratio", "rejected_logratio")
    found = {arm.name: [_rows(arm.training.get(key, ())) for key in keys] for arm in study.arms}
    lines = {name: pair for name, pair in found.items() if all(len(rows) > 1 for rows in pair)}
    points = [row for pair in lines.values() for rows in pair for row in rows]
    x = span((row[0] for row in points), pad=0).on(38, PANEL_WIDTH - 58)
    y = span([0.0, *(row[1] for row in points)]).on(170, 28)

    def draw(plot: Plot, style: Style, _: ArmResult, pair: Sequence[Rows]) -> str:
        chosen, rejected = pair
        lower = _by_step(rejected)
        plot.y_axis()
        plot.band([(step, lower.get(step, math.nan), value) for step, value in chosen], f"area {style.colour}")
        plot.across(0, "zero")
        plot.line(chosen, f"line {style.colour}")
        plot.line(rejected, f"line {style.colour}", "4 3")
        up, down = y(chosen[-1][1]), y(rejected[-1][1])
        middle, apart = (up + down) / 2, max(abs(up - down), 14) / 2
        apart = apart if up <= down else -apart
        for words, at in (("chosen", middle - apart), ("rejected", middle + apart)):
            plot.text(words, x.end + 5, min(max(at, 34), 168) + 4, "name")
        plot.x_axis(count=4, grid=False)
        what = "Change of the denoising error" if study.responses == "images" else "Log-ratios"
        unit = "" if study.responses == "images" else " nats"
        return (f"{what} of {style.label} over training: chosen ends at {chosen[-1][1]:.2f}, rejected at "
                f"{rejected[-1][1]:.2f}{unit}.")  # fmt: skip

    return _panels(study, lines, (x, y), (PANEL_WIDTH, 194), draw)


# --- calibration ----------------------------------------------------------------------------------------------------


def _is_filled(one: dict[str, float]) -> bool:
    numbers = (one.get(key) for key in ("count", "predicted", "observed"))
    return all(value is not None and math.isfinite(value) for value in numbers) and one["count"] > 0


def reliability(study: StudyResults) -> list[Markup]:
    """Predicted probability against observed share, one panel per arm; the marks' area is the number of preferences."""
    found = {arm.name: [(one["predicted"], one["observed"], one["count"]) for one in arm.reliability if _is_filled(one)]
             for arm in study.arms}  # fmt: skip
    bins = {name: sorted(rows) for name, rows in found.items() if rows}
    low = min((value for rows in bins.values() for row in rows for value in row[:2]), default=0.0)
    start = max(0.0, math.floor((low - 0.02) * 10) / 10)
    x, y = Scale(start, 1, 42, 222), Scale(start, 1, 202, 28)

    def draw(plot: Plot, style: Style, arm: ArmResult, rows: Sequence[tuple[float, float, float]]) -> str:
        plot.y_axis(share=True, count=4)
        plot.x_axis(share=True, count=4)
        plot.segment((x.start, x.end), (y.start, y.end), "base")
        plot.line([row[:2] for row in rows], f"line thin {style.colour}")
        most = max(count for _, _, count in rows)
        for predicted, observed, count in rows:
            hint = el("title", f"{predicted:.0%} sure, {observed:.0%} right, {count:g} preferences")
            plot.draw("circle", hint, cx=x(predicted), cy=y(observed), r=2 + 5 * math.sqrt(count / most),
                      class_=f"dot {style.colour}")  # fmt: skip
        ece = f"ECE {shown('ece', arm.metrics.get('ece'))}" if is_known(arm.metrics.get("ece")) else "ECE –"
        plot.text(ece, x.end - 4, y.start - 8, "tick end halo")
        plot.text("↑ right", x.start + 4, y.end + 12, "tick halo")
        plot.text("how sure →", x.end, 236, "tick end")
        return f"Reliability of {style.label}: {ece}, {len(rows)} bins."

    return _panels(study, bins, (x, y), (PANEL_WIDTH - 38, 240), draw)
