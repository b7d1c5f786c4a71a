"""Small SVG primitives: elements, scales, axes, markers and labels that keep out of each other's way.

Charts are written by hand, not by a plotting library: colours are CSS variables (light and dark from one file), text
stays text in the reader's own font, and there are no ids, dates or hashes that could differ between two builds.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

from popmargin.report.metrics import MINUS

_NARROW, _WIDE = frozenset("iIjlt.,;:'|!()[]/ fr-"), frozenset("mwMW@%—")
_MARKERS = {
    "triangle": [(0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
    "diamond": [(0, -1.3), (1.2, 0), (0, 1.3), (-1.2, 0)],
    "down": [(0, 1.2), (1.1, -0.8), (-1.1, -0.8)],
    "right": [(1.2, 0), (-0.8, 1.1), (-0.8, -1.1)],
    "left": [(-1.2, 0), (0.8, 1.1), (0.8, -1.1)],
}
SHAPES = ("circle", "square", "triangle", "diamond", "down", "plus", "right", "cross", "left")


def el(tag: str, *children: str, **attributes: object) -> Markup:
    """An element; children and attribute values are escaped unless they are Markup.

    ``class_`` and ``stroke_width`` become ``class`` and ``stroke-width``; None leaves an attribute out.

    Example:
        >>> str(el("text", "a<b", x=1.50, class_="tick"))
        '<text x="1.5" class="tick">a&lt;b</text>'
    """
    parts = [tag]
    for key, value in attributes.items():
        if value is not None:
            shown = px(value) if isinstance(value, (int, float)) else escape(value)
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{shown}"')
    return Markup(f"<{' '.join(parts)}>{Markup('').join(children)}</{tag}>")


def px(value: float) -> str:
    """A coordinate with two decimals at most."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def picture(width: float, height: float, label: str, body: Iterable[Markup]) -> Markup:
    """A whole inline SVG that scales with its box and reads as one image with a label."""
    return el(
        "svg", *body, viewBox=f"0 0 {px(width)} {px(height)}", role="img", aria_label=label, class_="plot",
        style=f"aspect-ratio:{px(width)}/{px(height)}",
    )  # fmt: skip


def text_width(text: str, size: float = 12) -> float:
    """Width of a text in px in a usual sans-serif font; an estimate on the safe side."""
    units = sum(0.34 if c in _NARROW else 0.92 if c in _WIDE or ord(c) > 0x2E7F else 0.75 if c.isupper() else 0.61
                for c in text)  # fmt: skip
    return units * size


def shorten(text: str, width: float, size: float = 12) -> str:
    """Cut a text in the middle so that it fits, since both ends of a name tell arms apart."""
    if text_width(text, size) <= width:
        return text
    keep = len(text)
    while keep > 2 and text_width(f"{text[: (keep + 1) // 2]}…{text[-(keep // 2) :]}", size) > width:
        keep -= 1
    return f"{text[: (keep + 1) // 2].rstrip()}…{text[-(keep // 2) :].lstrip()}"


@dataclass(frozen=True)
class Scale:
    """A linear map from values to px; values outside are moved to the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def on(self, start: float, end: float) -> "Scale":
        """The same values on other px."""
        return replace(self, start=start, end=end)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values inside the scale, about ``count`` of them."""
        step = _round_step((self.high - self.low) / count)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [position * step for position in range(first, last + 1)]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if rough <= factor * power * (1 + 1e-9))


def span(values: Iterable[float], *, pad: float = 0.05, floor: float | None = None, cap: float | None = None) -> Scale:
    """A scale (still on 0..1 px) that holds every finite value with some room.

    Example:
        >>> span([0.0, 10.0], pad=0.1).low, span([], pad=0).high
        (-1.0, 1.0)
    """
    known = [value for value in values if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    room = (high - low) * pad if high > low else abs(high) * 0.05 or 0.05
    low, high = low - room, high + room
    low = low if floor is None else max(low, floor)
    high = high if cap is None else min(high, cap)
    return Scale(low, high, 0.0, 1.0) if high > low else Scale(low, low + 1.0, 0.0, 1.0)


def tick_text(value: float, ticks: Sequence[float], *, share: bool = False) -> str:
    """A tick label with as many decimals as the step between ticks needs."""
    step = (ticks[1] - ticks[0]) if len(ticks) > 1 else (abs(value) or 1.0)
    factor = 100 if share else 1
    places = 0
    while places < 6 and abs(round(step * factor, places) - step * factor) > 1e-6 * step * factor:
        places += 1
    text = f"{value * factor:,.{places}f}"
    text = text if text.strip("-0.,") else text.lstrip("-")
    return text.replace("-", MINUS) + ("%" if share else "")


def y_axis(y: Scale, left: float, right: float, *, share: bool = False, count: int = 5) -> list[Markup]:
    """Horizontal grid lines with labels on their left."""
    ticks = y.ticks(count)
    out: list[Markup] = []
    for tick in ticks:
        out.append(el("line", x1=left, x2=right, y1=y(tick), y2=y(tick), class_="grid"))
        out.append(el("text", tick_text(tick, ticks, share=share), x=left - 6, y=y(tick) + 4, class_="tick end"))
    return out


def x_axis(
    x: Scale, top: float, bottom: float, *, share: bool = False, count: int = 5, grid: bool = True
) -> list[Markup]:
    """Vertical grid lines (or short ticks) with labels below."""
    ticks = x.ticks(count)
    out: list[Markup] = []
    for tick in ticks:
        start = top if grid else bottom
        out.append(el("line", x1=x(tick), x2=x(tick), y1=start, y2=bottom + (0 if grid else 4), class_="grid"))
        out.append(el("text", tick_text(tick, ticks, share=share), x=x(tick), y=bottom + 17, class_="tick mid"))
    return out


def path(points: Iterable[tuple[float, float]], x: Scale, y: Scale, **attributes: object) -> Markup:
    """A line through points, broken where a value is not finite."""
    moves: list[str] = []
    pen_down = False
    for step, value in points:
        if not (math.isfinite(step) and math.isfinite(value)):
            pen_down = False
            continue
        moves.append(f"{'L' if pen_down else 'M'}{px(x(step))} {px(y(value))}")
        pen_down = True
    return el("path", d="".join(moves), **attributes) if moves else Markup("")


def band(points: Sequence[tuple[float, float, float]], x: Scale, y: Scale, **attributes: object) -> Markup:
    """A filled area between (step, low, high)."""
    known = [point for point in points if all(math.isfinite(value) for value in point)]
    if len(known) < 2:
        return Markup("")
    edge = [f"{px(x(s))} {px(y(high))}" for s, _, high in known]
    edge += [f"{px(x(s))} {px(y(low))}" for s, low, _ in reversed(known)]
    return el("path", d=f"M{'L'.join(edge)}Z", **attributes)


def marker(shape: str, x: float, y: float, size: float = 5.0, *, hollow: bool = False, hint: str = "") -> Markup:
    """A data point in the current colour with a thin halo; ``hint`` shows on hover."""
    inside = (el("title", hint),) if hint else ()
    class_ = "mark hollow" if hollow else "mark"
    if shape == "circle":
        return el("circle", *inside, cx=x, cy=y, r=size, class_=class_)
    if shape == "square":
        return el("rect", *inside, x=x - size * 0.9, y=y - size * 0.9, width=size * 1.8, height=size * 1.8,
                  class_=class_)  # fmt: skip
    if shape in ("plus", "cross"):
        arm, thick = size * 1.25, size * 0.42
        corners = [(arm, thick), (thick, thick), (thick, arm)]
        corners += [(-a, b) for a, b in reversed(corners)]
        corners += [(a, -b) for a, b in reversed(corners)]
        turn = f"rotate(45 {px(x)} {px(y)})" if shape == "cross" else None
        return _polygon([(x + a, y + b) for a, b in corners], class_, inside, transform=turn)
    return _polygon([(x + a * size, y + b * size) for a, b in _MARKERS[shape]], class_, inside)


def _polygon(
    corners: Sequence[tuple[float, float]], class_: str, inside: tuple[Markup, ...], **attributes: object
) -> Markup:
    return el("polygon", *inside, points=" ".join(f"{px(a)},{px(b)}" for a, b in corners), class_=class_, **attributes)


@dataclass(frozen=True)
class Box:
    """An axis-parallel box in px."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "Box") -> float:
        """Shared area in px²."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(wide, 0.0) * max(high, 0.0)

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the box that is nearest to (x, y)."""
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)


def place_labels(
    points: Sequence[tuple[float, float]], widths: Sequence[float], frame: Box, *, bars: Sequence[Box] = (),
    height: float = 16, passes: int = 8,
) -> list[Box]:  # fmt: skip
    """Boxes for labels near their points that do not cover one another, a point or, if it can be, a bar.

    Coordinate descent over a fixed set of places around each point, so that the same input gives the same answer.

    Args:
        points: centres of the markers in px, (N, 2).
        widths: width of each label in px, (N,).
        frame: where labels may be.
        bars: thin boxes that labels should rather not cover.
        height: height of a label in px.
        passes: how often every label is placed again.

    Returns:
        One box for each point.
    """
    dots = [Box(x - 8, y - 8, x + 8, y + 8) for x, y in points]
    choices = [_places(x, y, width, height, frame) for (x, y), width in zip(points, widths, strict=True)]
    places = [boxes[0][0] for boxes in choices]
    for _ in range(passes):
        before = list(places)
        for i, (x, y) in enumerate(points):
            others = places[:i] + places[i + 1 :]
            rest = dots[:i] + dots[i + 1 :]

            def cost(choice: tuple[Box, float], i: int = i, x: float = x, y: float = y, others: list[Box] = others,
                     rest: list[Box] = rest) -> float:  # fmt: skip
                box, distance = choice
                end_x, end_y = box.nearest(x, y)
                steps = [Box(x + t * (end_x - x) - 2, y + t * (end_y - y) - 2, x + t * (end_x - x) + 2,
                             y + t * (end_y - y) + 2) for t in (0.25, 0.5, 0.75)]  # fmt: skip
                total = 20 * sum(box.overlap(other) for other in others)
                total += 12 * sum(box.overlap(dot) for dot in dots) + 0.6 * sum(box.overlap(bar) for bar in bars)
                total += 4 * sum(step.overlap(other) for step in steps for other in [*others, *rest])
                return total + distance

            places[i] = min(choices[i], key=cost)[0]
        if places == before:
            break
    return places


def _places(x: float, y: float, width: float, height: float, frame: Box) -> list[tuple[Box, float]]:
    """Candidate boxes around a point with their distance, kept inside the frame."""
    out: list[tuple[Box, float]] = []
    for reach in (9, 14, 22, 34, 50, 70, 95, 125):
        for turn in range(16):
            angle = turn * math.pi / 8
            dx, dy = math.cos(angle), math.sin(angle)
            left = x + dx * reach + (dx - 1) * width / 2
            top = y + dy * reach + (dy - 1) * height / 2
            left = min(max(left, frame.left), frame.right - width)
            top = min(max(top, frame.top), frame.bottom - height)
            out.append((Box(left, top, left + width, top + height), float(reach)))
    return out
