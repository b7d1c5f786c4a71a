"""The charts of the report, as inline SVG. Every arm keeps one colour, marker and dash in all of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from popmargin.report.metrics import decimals, has_bounds, is_known, metric, number
from popmargin.report.results import ArmResult, StudyResults
from popmargin.report.svg import (
    SHAPES,
    Box,
    Scale,
    el,
    marker,
    picture,
    place_labels,
    px,
    shorten,
    span,
    text_width,
    x_axis,
    y_axis,
)
from popmargin.report.tables import visible_text
from popmargin.statistics.intervals import Interval

COLOURS = 8  # s0 … s7 in report.css; s0 is grey and belongs to the baseline arm
BUCKETS = ("accuracy", "accuracy_weak", "accuracy_medium", "accuracy_strong")
BUCKET_TITLES = ("All preferences", "Weak", "Medium", "Strong")
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
    """One style an arm: grey for the baseline arm, then the palette; when it repeats, hollow marks and dashed lines."""
    styles: list[Style] = []
    others = 0
    for arm in study.arms:
        is_baseline = arm.name == study.baseline
        turn, place = (0, 0) if is_baseline else (others // (COLOURS - 1), 1 + others % (COLOURS - 1))
        # The second turn starts three shapes later, so that the same colour never meets the same shape.
        shape = SHAPES[(place + 3 * turn) % len(SHAPES)]
        dash = (None, "7 3", "2 3", "7 3 2 3")[turn % 4]
        styles.append(Style(arm.name, visible_text(arm.label or arm.name), f"s{place}", shape, turn > 0, dash))
        others += not is_baseline
    return styles


def arm_mark(style: Style) -> Markup:
    """The arm's marker for running text and tables; hidden from screen readers, as its label stands beside it."""
    return el("svg", style.mark(8, 8, 5), viewBox="0 0 16 16", width=16, height=16, aria_hidden="true", class_="key")


def legend_mark(style: Style) -> Markup:
    """The arm's line and marker for the legend of a chart with lines."""
    line = el("line", x1=0, x2=28, y1=8, y2=8, class_="line", stroke_dasharray=style.dash)
    body = el("g", line, style.mark(14, 8, 4.5), class_=style.colour)
    return el("svg", body, viewBox="0 0 28 16", width=28, height=16, aria_hidden="true", class_="key")


def short_names(styles: Sequence[Style], width: float, size: float) -> list[str]:
    """Labels cut to a width; the arms' unique names where cut labels would look the same."""
    texts = [[shorten(text, width, size) for text in names] for names in
             ([style.label for style in styles], [style.name for style in styles])]  # fmt: skip
    return next((names for names in texts if len(set(names)) == len(names)), texts[0])


def shown(key: str, value: Interval | None) -> str:
    """A metric's value and interval in words, for labels and hints."""
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
    """The generative metric that most arms can be placed on together with accuracy; None if there is none."""
    counts = {
        key: sum(is_known(arm.metrics.get("accuracy")) and is_known(arm.metrics.get(key)) for arm in study.arms)
        for key in ("win_rate_reference", "mean_reward")
    }
    best = max(counts, key=lambda key: counts[key])
    return best if counts[best] else None


def tradeoff(study: StudyResults, width: float = WIDE) -> Markup:
    """Accuracy against generation quality, one point an arm with the intervals of both."""
    key = tradeoff_axis(study)
    if key is None:
        return Markup("")
    entry = metric(key)
    arms = [
        (arm, style, arm.metrics["accuracy"], arm.metrics[key])
        for arm, style in zip(study.arms, arm_styles(study), strict=True)
        if is_known(arm.metrics.get("accuracy")) and is_known(arm.metrics.get(key))
    ]
    height = 0.62 * width if width > 500 else 1.12 * width
    left, right, top, bottom = 50.0, width - 10, 28.0, height - 42
    cap = 1.0 if entry.is_share else None
    x = span((v for a in arms for v in _ends(a[2])), pad=0.10, floor=0, cap=1).on(left, right)
    y = span((v for a in arms for v in _ends(a[3])), pad=0.10, floor=0 if entry.is_share else None, cap=cap)
    y = y.on(bottom, top)
    body = [*y_axis(y, left, right, share=entry.is_share, count=5)]
    body += x_axis(x, top, bottom, share=True, count=6 if width > 500 else 4)
    body += _note_lines(study, key, x, y, top, right)
    bars: list[Box] = []
    for _, style, across, up in arms:
        body.append(_cross(style, across, up, x, y, bars))
    points = [(x(across.estimate), y(up.estimate)) for _, _, across, up in arms]
    size = 12.5 if width > 500 else 11
    names = short_names([style for _, style, _, _ in arms], width * 0.4, size)
    frame = Box(left + 4, top + 3, right - 3, bottom - 4)
    places = place_labels(points, [1.14 * text_width(name, size) + 4 for name in names], frame, bars=bars)
    body += _leaders(arms, points, places)
    for (_, style, across, up), (cx, cy) in zip(arms, points, strict=True):
        hint = f"{style.label}: accuracy {shown('accuracy', across)}, {entry.title.lower()} {shown(key, up)}"
        body.append(style.mark(cx, cy, 6, hint))
    for (_, style, _, _), name, box in zip(arms, names, places, strict=True):
        middle, look = (box.left + box.right) / 2, f"font-size:{px(size)}px"
        body.append(el("text", name, x=middle, y=box.bottom - 4, class_=f"name mid {style.colour}", style=look))
    body.append(el("text", f"↑ {entry.title}", x=0, y=14, class_="axis-title"))
    body.append(el("text", "Accuracy on held-out preferences →", x=right, y=height - 6, class_="axis-title end"))
    listing = "; ".join(
        f"{style.label}: {shown('accuracy', across)} and {shown(key, up)}" for _, style, across, up in arms
    )
    return picture(width, height, f"Scatter plot of accuracy and {entry.title.lower()}. {listing}.", body)


def _ends(value: Interval) -> tuple[float, ...]:
    return (value.low, value.estimate, value.high)


def _note_lines(study: StudyResults, key: str, x: Scale, y: Scale, top: float, right: float) -> list[Markup]:
    """Where the baseline arm stands and where generation is level with the reference."""
    out: list[Markup] = []
    base = next((arm.metrics for arm in study.arms if arm.name == study.baseline), dict[str, Interval]())
    if is_known(base.get("accuracy")) and is_known(base.get(key)):
        at_x, at_y = x(base["accuracy"].estimate), y(base[key].estimate)
        out.append(el("line", x1=at_x, x2=at_x, y1=top, y2=y.start, class_="base"))
        out.append(el("line", x1=x.start, x2=right, y1=at_y, y2=at_y, class_="base"))
    level = 0.5 if key == "win_rate_reference" else math.nan
    if key == "mean_reward" and is_known(study.reference.get(key)):
        level = study.reference[key].estimate
    if y.low < level < y.high:
        out.append(el("line", x1=x.start, x2=right, y1=y(level), y2=y(level), class_="level"))
        out.append(el("text", "level with the reference", x=right - 4, y=y(level) - 5, class_="tick end"))
    return out


def _cross(style: Style, across: Interval, up: Interval, x: Scale, y: Scale, bars: list[Box]) -> Markup:
    """Interval bars in both directions; their boxes are added to ``bars``."""
    cx, cy = x(across.estimate), y(up.estimate)
    lines: list[Markup] = []
    if has_bounds(across):
        lines.append(el("line", x1=x(across.low), x2=x(across.high), y1=cy, y2=cy, class_="bar"))
        bars.append(Box(x(across.low), cy - 1, x(across.high), cy + 1))
    if has_bounds(up):
        lines.append(el("line", x1=cx, x2=cx, y1=y(up.low), y2=y(up.high), class_="bar"))
        bars.append(Box(cx - 1, y(up.high), cx + 1, y(up.low)))
    return el("g", *lines, class_=f"{style.colour} soft")


def _leaders(
    arms: Sequence[tuple[ArmResult, Style, Interval, Interval]],
    points: Sequence[tuple[float, float]],
    places: Sequence[Box],
) -> list[Markup]:
    """Thin lines from labels that stand away from their point."""
    out: list[Markup] = []
    for (_, style, _, _), (cx, cy), box in zip(arms, points, places, strict=True):
        end_x, end_y = box.nearest(cx, cy)
        if math.hypot(end_x - cx, end_y - cy) > 18:
            out.append(el("line", x1=cx, y1=cy, x2=end_x, y2=end_y, class_=f"leader {style.colour}"))
    return out


# --- accuracy by strength -------------------------------------------------------------------------------------------


def buckets(study: StudyResults, width: float = WIDER) -> Markup:
    """Accuracy by strength bucket: one row an arm, one panel a bucket, all on one scale."""
    present = [(key, title) for key, title in zip(BUCKETS, BUCKET_TITLES, strict=True)
               if any(is_known(arm.metrics.get(key)) for arm in study.arms)]  # fmt: skip
    if not any(key != "accuracy" for key, _ in present):
        return Markup("")
    styles = arm_styles(study)
    wide = width > 500
    room = min(max(text_width(style.label, 12) for style in styles) + 10, width * (0.26 if wide else 0.36))
    rules = {key: _rule_of_length(study, key) for key, _ in present}
    values = [v for key, _ in present for arm in study.arms if is_known(value := arm.metrics.get(key)) and value
              for v in _ends(value)]  # fmt: skip
    scale = span([*values, *(rule for rule in rules.values() if rule is not None)], pad=0.04, floor=0, cap=1)
    row, head, foot, gap = (26.0 if wide else 22.0), 40.0, 26.0, 20.0
    tall = head + row * len(study.arms) + foot
    columns = len(present) if wide else 1
    panel = (width - room - 14 - gap * (columns - 1)) / columns
    body: list[Markup] = []
    for position, (key, title) in enumerate(present):
        column, line = (position, 0) if wide else (0, position)
        left, top = room + column * (panel + gap), line * (tall + 10)
        x = scale.on(left, left + panel)
        body += _bucket_panel(study, styles, key, title, x, top, head, row, rules[key], named=column == 0, room=room)
    both = list(zip(study.arms, styles, strict=True))
    listing = " ".join(
        f"{title}: " + ", ".join(f"{style.label} {shown(key, arm.metrics.get(key))}" for arm, style in both) + "."
        for key, title in present
    )
    rows = 1 if wide else len(present)
    return picture(width, rows * tall + (rows - 1) * 10, f"Dot plot of accuracy by strength. {listing}", body)


def _rule_of_length(study: StudyResults, key: str) -> float | None:
    """Accuracy of "the longer response wins", which belongs to the data: the first arm that has it."""
    name = "accuracy_longer" if key == "accuracy" else key.replace("accuracy_", "accuracy_longer_")
    found = (arm.metrics[name].estimate for arm in study.arms if is_known(arm.metrics.get(name)))
    return next(found, None)


def _bucket_panel(
    study: StudyResults, styles: Sequence[Style], key: str, title: str, x: Scale, top: float, head: float,
    row: float, rule: float | None, *, named: bool, room: float,
) -> list[Markup]:  # fmt: skip
    start, end = top + head, top + head + row * len(study.arms)
    out = [el("text", title, x=x.start, y=top + 14, class_="panel-title")]
    out += x_axis(x, start - 4, end, share=True, count=4)
    base = next((arm.metrics.get(key) for arm in study.arms if arm.name == study.baseline), None)
    if base is not None and is_known(base):
        out.append(el("line", x1=x(base.estimate), x2=x(base.estimate), y1=start - 4, y2=end, class_="base"))
    if rule is not None:
        words = "longer wins"
        at = min(max(x(rule), x.start + text_width(words, 11) / 2), x.end - text_width(words, 11) / 2)
        out.append(el("line", x1=x(rule), x2=x(rule), y1=start - 6, y2=end, class_="level"))
        out.append(el("text", words, x=at, y=start - 9, class_="tick mid"))
    names = short_names(styles, room - 10, 12) if named else []
    for number_, (arm, style) in enumerate(zip(study.arms, styles, strict=True)):
        y = start + row * (number_ + 0.5)
        if named:
            out.append(el("text", names[number_], x=room - 10, y=y + 4, class_="name end"))
        value = arm.metrics.get(key)
        if value is None or not is_known(value):
            out.append(el("text", "–", x=x.start + 4, y=y + 4, class_="tick"))
            continue
        if has_bounds(value):
            out.append(el("line", x1=x(value.low), x2=x(value.high), y1=y, y2=y, class_=f"bar {style.colour}"))
        out.append(style.mark(x(value.estimate), y, 4.6, f"{style.label}, {title.lower()}: {shown(key, value)}"))
    return out
