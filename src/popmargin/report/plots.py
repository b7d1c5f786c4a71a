"""The report's charts, as inline SVG. Every arm has the same colour, marker and dash in all of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from popmargin.report.metrics import decimals, has_bounds, is_known, metric, number
from popmargin.report.placing import Box, place_labels
from popmargin.report.results import StudyResults
from popmargin.report.svg import SHAPES, Plot, Scale, el, marker, px, shorten, span, text_width
from popmargin.report.tables import visible_text
from popmargin.statistics.intervals import Interval

COLOURS = 8  # s0 … s7 in report.css; s0 is grey and belongs to the baseline arm
BUCKETS = {
    "accuracy": "All preferences", "accuracy_weak": "Weak", "accuracy_medium": "Medium", "accuracy_strong": "Strong",
}  # fmt: skip
WIDE, WIDER, NARROW = 720.0, 860.0, 344.0


@dataclass(frozen=True)
class Style:
    """How one arm looks in every chart."""

    name: str
    label: str
    colour: str
    shape: str
    hollow: bool
    dash: str | None

    def mark(self, x: float, y: float, size: float = 5.0, hint: str = "") -> Markup:
        """The arm's marker."""
        return el("g", marker(self.shape, x, y, size, hollow=self.hollow, hint=hint), class_=self.colour)


def arm_styles(study: StudyResults) -> list[Style]:
    """One style per arm: grey for the baseline, then the palette; hollow marks and dashed lines when it repeats."""
    styles: list[Style] = []
    others, shapes = 0, list(SHAPES)
    for arm in study.arms:
        is_baseline = arm.name == study.baseline
        turn, place = (0, 0) if is_baseline else (others // (COLOURS - 1), 1 + others % (COLOURS - 1))
        # The second round starts three shapes later, so the same colour never has the same shape.
        shape = shapes[(place + 3 * turn) % len(shapes)]
        dash = (None, "7 3", "2 3", "7 3 2 3")[turn % 4]
        styles.append(Style(arm.name, visible_text(arm.label or arm.name), f"s{place}", shape, turn > 0, dash))
        others += not is_baseline
    return styles


def arm_mark(style: Style) -> Markup:
    """The arm's marker for running text and tables; hidden from screen readers, since its label is next to it."""
    return el("svg", style.mark(8, 8, 5), viewBox="0 0 16 16", width=16, height=16, aria_hidden="true", class_="key")


def legend_mark(style: Style) -> Markup:
    """The arm's line and marker for the legend of a chart with lines."""
    line = el("line", x1=0, x2=28, y1=8, y2=8, class_="line", stroke_dasharray=style.dash)
    body = el("g", line, style.mark(14, 8, 4.5), class_=style.colour)
    return el("svg", body, viewBox="0 0 28 16", width=28, height=16, aria_hidden="true", class_="key")


def short_names(styles: Sequence[Style], width: float, size: float) -> list[str]:
    """Labels shortened to a width; the arms' unique names if shortened labels would look the same."""
    texts = [[shorten(text, width, size) for text in names] for names in
             ([style.label for style in styles], [style.name for style in styles])]  # fmt: skip
    return next((names for names in texts if len(set(names)) == len(names)), texts[0])


def shown(key: str, value: Interval | None) -> str:
    """A metric's value and interval in words, for labels and tooltips."""
    entry = metric(key)
    places = decimals([value], share=entry.is_share)
    if value is None or not is_known(value):
        return "not measured"
    text = number(value.estimate, places, share=entry.is_share)
    if not has_bounds(value):
        return text
    ends = (number(end, places, share=entry.is_share) for end in (value.low, value.high))
    return f"{text} ({' to '.join(ends)})"


# --- trade-off ------------------------------------------------------------------------------------------------------


def tradeoff_axis(study: StudyResults) -> str | None:
    """The generative metric that most arms have together with accuracy, if any."""
    counts = {
        key: sum(is_known(arm.metrics.get("accuracy")) and is_known(arm.metrics.get(key)) for arm in study.arms)
        for key in ("win_rate_reference", "mean_reward")
    }
    best = max(counts, key=lambda key: counts[key])
    return best if counts[best] else None


def tradeoff(study: StudyResults, width: float = WIDE) -> Markup:
    """Accuracy against generation quality, one point per arm with the intervals of both."""
    key = tradeoff_axis(study)
    if key is None:
        return Markup("")
    entry, wide = metric(key), width > 500
    arms = [
        (style, arm.metrics["accuracy"], arm.metrics[key])
        for arm, style in zip(study.arms, arm_styles(study), strict=True)
        if is_known(arm.metrics.get("accuracy")) and is_known(arm.metrics.get(key))
    ]
    height = (0.62 if wide else 1.12) * width
    x = span((end for _, across, _ in arms for end in ends(across)), pad=0.10, floor=0, cap=1)
    floor, cap = (0, 1) if entry.is_share else (None, None)
    y = span((end for _, _, up in arms for end in ends(up)), pad=0.10, floor=floor, cap=cap)
    plot = Plot(x.on(50, width - 10), y.on(height - 42, 28))
    plot.y_axis(share=entry.is_share)
    plot.x_axis(share=True, count=6 if wide else 4)
    _note_lines(plot, study, key)
    said = [f"{style.label}: {shown('accuracy', across)} and {shown(key, up)}" for style, across, up in arms]
    hints = [f"{style.label}: accuracy {shown('accuracy', across)}, {entry.title.lower()} {shown(key, up)}"
             for style, across, up in arms]  # fmt: skip
    crosses(plot, arms, hints, width)
    plot.text(f"↑ {entry.title}", 0, 14, "axis-title")
    plot.text("Accuracy on held-out preferences →", plot.x.end, height - 6, "axis-title end")
    return plot.picture(width, height, f"Scatter plot of accuracy and {entry.title.lower()}. {'; '.join(said)}.")


def ends(value: Interval) -> tuple[float, ...]:
    """The values a scale must contain to show a value with its interval."""
    return (value.low, value.estimate, value.high)


def _baseline(study: StudyResults) -> dict[str, Interval]:
    """The baseline arm's metrics; none if the study has no such arm."""
    return next((arm.metrics for arm in study.arms if arm.name == study.baseline), dict[str, Interval]())


def _note_lines(plot: Plot, study: StudyResults, key: str) -> None:
    """Lines at the baseline arm and where generation is level with the reference."""
    base = _baseline(study)
    if is_known(base.get("accuracy")) and is_known(base.get(key)):
        plot.upright(base["accuracy"].estimate, "base")
        plot.across(base[key].estimate, "base")
    level = 0.5 if key == "win_rate_reference" else math.nan
    if key == "mean_reward" and is_known(study.reference.get(key)):
        level = study.reference[key].estimate
    if plot.y.low < level < plot.y.high:
        plot.across(level, "level")
        plot.text("level with the reference", plot.x.end - 4, plot.y(level) - 5, "tick end")


def crosses(
    plot: Plot,
    arms: Sequence[tuple[Style, Interval, Interval]],
    hints: Sequence[str],
    width: float,
    *,
    named: bool = True,
) -> None:
    """Every arm's mark with the bars of both intervals, and its name near it if they are `named`."""
    points = [(plot.x(across.estimate), plot.y(up.estimate)) for _, across, up in arms]
    bars: list[Box] = []
    for (style, across, up), (cx, cy) in zip(arms, points, strict=True):
        if has_bounds(across):
            bars.append(Box(plot.x(across.low), cy - 1, plot.x(across.high), cy + 1))
            plot.segment((bars[-1].left, bars[-1].right), (cy, cy), f"bar soft {style.colour}")
        if has_bounds(up):
            bars.append(Box(cx - 1, plot.y(up.high), cx + 1, plot.y(up.low)))
            plot.segment((cx, cx), (bars[-1].bottom, bars[-1].top), f"bar soft {style.colour}")
    if not named:
        plot.body.extend(style.mark(*at, 6, hint) for (style, _, _), at, hint in zip(arms, points, hints, strict=True))
        return
    size = 12.5 if width > 500 else 11
    names = short_names([style for style, _, _ in arms], width * 0.4, size)
    frame = Box(plot.x.start + 4, plot.y.end + 3, plot.x.end - 3, plot.y.start - 4)
    places = place_labels(points, [1.14 * text_width(name, size) + 4 for name in names], frame, bars=bars)
    for (style, _, _), (cx, cy), box in zip(arms, points, places, strict=True):
        end_x, end_y = box.nearest(cx, cy)
        if math.hypot(end_x - cx, end_y - cy) > 18:
            plot.segment((cx, end_x), (cy, end_y), f"leader {style.colour}")
    plot.body.extend(style.mark(*at, 6, hint) for (style, _, _), at, hint in zip(arms, points, hints, strict=True))
    for (style, _, _), name, box in zip(arms, names, places, strict=True):
        plot.draw("text", name, x=(box.left + box.right) / 2, y=box.bottom - 4, class_=f"name mid {style.colour}",
                  style=f"font-size:{px(size)}px")  # fmt: skip


# --- rows of dots ---------------------------------------------------------------------------------------------------

Dot = tuple[Style, Interval | None, str]  # its style, its value, and its tooltip


def draw_dots(plot: Plot, dots: Sequence[Dot], top: float, row: float, names: Sequence[str] = ()) -> None:
    """One row per dot, from ``top`` px down: its name if there are names, its interval and its mark."""
    for place, (style, value, hint) in enumerate(dots):
        y = top + row * (place + 0.5)
        if names:
            plot.text(names[place], plot.x.start - 10, y + 4, "name end")
        if value is None or not is_known(value):
            plot.text("–", plot.x.start + 4, y + 4, "tick")
            continue
        if has_bounds(value):
            plot.segment((plot.x(value.low), plot.x(value.high)), (y, y), f"bar {style.colour}")
        plot.body.append(style.mark(plot.x(value.estimate), y, 4.6, hint))


def buckets(study: StudyResults, width: float = WIDER) -> Markup:
    """Accuracy by strength bucket: one row per arm, one panel per bucket, all on one scale."""
    titles = {key: title for key, title in BUCKETS.items() if any(is_known(arm.metrics.get(key)) for arm in study.arms)}
    if not titles.keys() - {"accuracy"}:
        return Markup("")
    styles, wide = arm_styles(study), width > 500
    base = _baseline(study)
    values = {key: [arm.metrics.get(key) for arm in study.arms] for key in titles}
    rules = {key: _rule_of_length(study, key) for key in titles}
    scale = span([*(end for found in values.values() for value in found if value and is_known(value)
                    for end in ends(value)), *rules.values()], pad=0.04, floor=0, cap=1)  # fmt: skip
    room = min(max(text_width(style.label, 12) for style in styles) + 10, width * (0.26 if wide else 0.36))
    row, gap, columns = (26.0, 20.0, len(titles)) if wide else (22.0, 0.0, 1)
    step, panel = 76 + row * len(styles), (width - room - 14 - gap * (columns - 1)) / columns
    whole = Plot(scale, Scale(0, 1, 0, 1))
    for place, (key, title) in enumerate(titles.items()):
        left, top = room + place % columns * (panel + gap), place // columns * step + 40
        plot = Plot(scale.on(left, left + panel), Scale(0, 1, top + row * len(styles), top - 4), whole.body)
        plot.text(title, left, top - 26, "panel-title")
        plot.x_axis(share=True, count=4)
        if is_known(base.get(key)):
            plot.upright(base[key].estimate, "base")
        if math.isfinite(rules[key]):
            words = "longer wins"
            half = text_width(words, 11) / 2
            plot.upright(rules[key], "level")
            plot.text(words, min(max(plot.x(rules[key]), left + half), plot.x.end - half), top - 9, "tick mid")
        dots = [(style, value, f"{style.label}, {title.lower()}: {shown(key, value)}")
                for style, value in zip(styles, values[key], strict=True)]  # fmt: skip
        draw_dots(plot, dots, top, row, short_names(styles, room - 10, 12) if left == room else ())
    said = [f"{title}: " + ", ".join(f"{style.label} {shown(key, value)}" for style, value in
                                     zip(styles, values[key], strict=True)) + "."
            for key, title in titles.items()]  # fmt: skip
    height = step * (len(titles) // columns) - 10
    return whole.picture(width, height, f"Dot plot of accuracy by strength. {' '.join(said)}")


def _rule_of_length(study: StudyResults, key: str) -> float:
    """Accuracy of "the longer response wins", a property of the data: from the first arm that has it, or nan."""
    name = "accuracy_longer" if key == "accuracy" else key.replace("accuracy_", "accuracy_longer_")
    found = (arm.metrics[name].estimate for arm in study.arms if is_known(arm.metrics.get(name)))
    return next(found, math.nan)
