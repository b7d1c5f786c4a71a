"""Drawing as SVG: elements, scales, markers, and plotting areas of two scales.

For why we do not use a charting library, see "Charts" in docs/architecture.md. Colours are CSS variables (light and
dark from one file), text stays text in the reader's own font, and builds are reproducible.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from markupsafe import Markup, escape

from popmargin.report.metrics import number

CSS = Path(__file__).parent / "templates" / "report.css"
_NARROW, _WIDE = frozenset("iIjlt.,;:'|!()[]/ fr-"), frozenset("mwMW@%—")
_A, _T = 1.25, 0.42  # arm and half its thickness, in marker sizes
_HALF = [(_A, _T), (_T, _T), (_T, _A), (-_T, _A), (-_T, _T), (-_A, _T)]
_PLUS = _HALF + [(-x, -y) for x, y in _HALF]
SHAPES: dict[str, list[tuple[float, float]]] = {  # corners, in marker sizes
    "circle": [],
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "triangle": [(0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
    "diamond": [(0, -1.3), (1.2, 0), (0, 1.3), (-1.2, 0)],
    "down": [(0, 1.2), (1.1, -0.8), (-1.1, -0.8)],
    "plus": _PLUS,
    "right": [(1.2, 0), (-0.8, 1.1), (-0.8, -1.1)],
    "cross": [((x - y) / math.sqrt(2), (x + y) / math.sqrt(2)) for x, y in _PLUS],
    "left": [(-1.2, 0), (0.8, 1.1), (0.8, -1.1)],
}


def el(tag: str, *children: str, **attributes: object) -> Markup:
    """An element; children and attribute values are escaped unless they are Markup.

    ``class_`` and ``stroke_width`` become ``class`` and ``stroke-width``; None omits an attribute.

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
    """A coordinate with at most two decimals."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def svg_file(width: float, height: float, label: str, body: Iterable[Markup]) -> str:
    """The text of a standalone SVG file, with the report's colours and the style rules it uses."""
    drawn = Markup("").join([el("rect", width=width, height=height, class_="back"), *body])
    css = CSS.read_text(encoding="utf-8")
    used = {name for names in re.findall(r'class="([^"]*)"', drawn) for name in names.split()} | {"plot"}
    rules = [
        line
        for line in css.splitlines()
        if re.match(r"\.(?!plot \{)(?!s\d)", line)
        and any(set(re.findall(r"\.([a-z][\w-]*)", names)) <= used for names in re.findall(r"([^{}]+)\{", line))
    ]
    colours = css[: css.index("\n\n")]
    style = "\n".join(["", colours, ".plot { font-family: var(--sans); }", ".back { fill: var(--bg); }", *rules, ""])
    image = el("svg", el("style", Markup(style)), drawn, xmlns="http://www.w3.org/2000/svg", width=width,
               height=height, viewBox=f"0 0 {px(width)} {px(height)}", role="img", aria_label=label,
               class_="plot")  # fmt: skip
    return re.sub(r"(?=<(?:rect|text|line|path|g)[ >])", "\n", str(image)) + "\n"


def text_width(text: str, size: float = 12) -> float:
    """Width of a text in px in a common sans-serif font; a conservative estimate."""
    units = sum(0.34 if c in _NARROW else 0.92 if c in _WIDE or ord(c) > 0x2E7F else 0.75 if c.isupper() else 0.61
                for c in text)  # fmt: skip
    return units * size


def shorten(text: str, width: float, size: float = 12) -> str:
    """Shorten a text in the middle so that it fits, since both ends of a name distinguish arms."""
    if text_width(text, size) <= width:
        return text
    keep = len(text)
    while keep > 2 and text_width(f"{text[: (keep + 1) // 2]}…{text[-(keep // 2) :]}", size) > width:
        keep -= 1
    return f"{text[: (keep + 1) // 2].rstrip()}…{text[-(keep // 2) :].lstrip()}"


def marker(shape: str, x: float, y: float, size: float = 5.0, *, hollow: bool = False, hint: str = "") -> Markup:
    """A data point in the current colour with a thin halo; ``hint`` is its tooltip."""
    inside = (el("title", hint),) if hint else ()
    look = "mark hollow" if hollow else "mark"
    if shape == "circle":
        return el("circle", *inside, cx=x, cy=y, r=size, class_=look)
    corners = " ".join(f"{px(x + a * size)},{px(y + b * size)}" for a, b in SHAPES[shape])
    return el("polygon", *inside, points=corners, class_=look)


@dataclass(frozen=True)
class Scale:
    """A linear map from values to px; values outside are clipped to the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def on(self, start: float, end: float) -> "Scale":
        """The same values on a different px range."""
        return replace(self, start=start, end=end)

    def ticks(self, count: int = 5, *, share: bool = False) -> list[tuple[float, str]]:
        """Round values inside the scale, about ``count`` of them, each with its label."""
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if rough <= factor * power * (1 + 1e-9))
        places = len(f"{step * (100 if share else 1):.6f}".rstrip("0").partition(".")[2])
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(place * step, number(place * step, places, share=share)) for place in range(first, last + 1)]


def span(values: Iterable[float], *, pad: float = 0.05, floor: float | None = None, cap: float | None = None) -> Scale:
    """A scale (still on 0..1 px) that contains every finite value, with some padding.

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


@dataclass(frozen=True)
class Plot:
    """A plotting area: its two scales (x from left to right, y from bottom to top) and its contents, in order."""

    x: Scale
    y: Scale
    body: list[Markup] = field(default_factory=list[Markup])

    def draw(self, tag: str, *children: str, **attributes: object) -> None:
        """Add an element."""
        self.body.append(el(tag, *children, **attributes))

    def text(self, words: str, x: float, y: float, look: str) -> None:
        """Add words at a place in px."""
        self.draw("text", words, x=x, y=y, class_=look)

    def segment(self, x: tuple[float, float], y: tuple[float, float], look: str) -> None:
        """Add a straight line between two places in px."""
        self.draw("line", x1=x[0], x2=x[1], y1=y[0], y2=y[1], class_=look)

    def across(self, value: float, look: str) -> None:
        """Add a line from edge to edge at a value of y."""
        self.segment((self.x.start, self.x.end), (self.y(value), self.y(value)), look)

    def upright(self, value: float, look: str) -> None:
        """Add a line from top to bottom at a value of x."""
        self.segment((self.x(value), self.x(value)), (self.y.end, self.y.start), look)

    def y_axis(self, *, share: bool = False, count: int = 5) -> None:
        """Add horizontal grid lines with labels on their left."""
        for tick, words in self.y.ticks(count, share=share):
            self.across(tick, "grid")
            self.text(words, self.x.start - 6, self.y(tick) + 4, "tick end")

    def x_axis(self, *, share: bool = False, count: int = 5, grid: bool = True) -> None:
        """Add vertical grid lines (or short ticks) with labels below."""
        for tick, words in self.x.ticks(count, share=share):
            at, bottom = self.x(tick), self.y.start
            self.segment((at, at), (self.y.end, bottom) if grid else (bottom, bottom + 4), "grid")
            self.text(words, at, bottom + 17, "tick mid")

    def line(self, points: Iterable[Sequence[float]], look: str, dash: str | None = None) -> None:
        """Add a line through (x, y), broken at non-finite values."""
        moves: list[str] = []
        pen = "M"
        for x, y in points:
            known = math.isfinite(x) and math.isfinite(y)
            if known:
                moves.append(f"{pen}{px(self.x(x))} {px(self.y(y))}")
            pen = "L" if known else "M"
        if moves:
            self.draw("path", d="".join(moves), class_=look, stroke_dasharray=dash)

    def band(self, points: Iterable[tuple[float, float, float]], look: str) -> None:
        """Add a filled area between (x, low, high)."""
        known = [point for point in points if all(math.isfinite(value) for value in point)]
        if len(known) < 2:
            return
        edge = [(x, high) for x, _, high in known] + [(x, low) for x, low, _ in reversed(known)]
        self.draw("path", d=f"M{'L'.join(f'{px(self.x(x))} {px(self.y(y))}' for x, y in edge)}Z", class_=look)

    def picture(self, width: float, height: float, label: str) -> Markup:
        """The drawing as inline SVG that scales with its box and is read out as one labelled image."""
        return el(
            "svg", *self.body, viewBox=f"0 0 {px(width)} {px(height)}", role="img", aria_label=label, class_="plot",
            style=f"aspect-ratio:{px(width)}/{px(height)}",
        )  # fmt: skip
