import itertools
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popmargin.report import render
from popmargin.report.placing import Box, place_labels
from popmargin.report.plots import COLOURS, arm_styles
from popmargin.report.svg import SHAPES, Plot, el, marker, shorten, span, svg_file, text_width


def test_elements_escape_text_and_attributes() -> None:
    assert el("text", "</text><script>", title='"><i') == (
        '<text title="&#34;&gt;&lt;i">&lt;/text&gt;&lt;script&gt;</text>'
    )


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=8))
def test_scale_holds_all_finite_values_with_few_round_ticks(values: list[float]) -> None:
    scale = span(values).on(0, 100)
    assert scale.low < scale.high
    known = [value for value in values if math.isfinite(value)]
    assert all(scale.low <= value <= scale.high for value in known)
    ticks = scale.ticks(5)
    assert 1 <= len(ticks) <= 8
    labels = [label for _, label in ticks]
    if scale.high - scale.low > 1e-5:
        assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(
    ("low", "high", "share", "labels"),
    [
        (0.0, 1.0, True, ["0%", "20%", "40%", "60%", "80%", "100%"]),
        (0.655, 0.7375, True, ["66%", "68%", "70%", "72%"]),
        (0.71, 0.815, True, ["72.5%", "75.0%", "77.5%", "80.0%"]),
        (-0.05, 0.05, False, ["−0.04", "−0.02", "0.00", "0.02", "0.04"]),
        (0.0, 5000.0, False, ["0", "1,000", "2,000", "3,000", "4,000", "5,000"]),
    ],
)
def test_ticks_have_as_many_decimals_as_their_step(low: float, high: float, share: bool, labels: list[str]) -> None:
    assert [label for _, label in span([low, high], pad=0).ticks(5, share=share)] == labels


def test_lines_break_and_bands_close_over_what_is_missing() -> None:
    scale = span([0, 3], pad=0).on(0, 3)
    plot = Plot(scale, scale)
    plot.line([(0, 0), (1, 1), (2, math.nan), (3, 3)], "line")
    plot.line([(0, math.nan)], "line")
    plot.band([(0, 0, 1), (1, math.nan, 2), (3, 2, 3)], "area")
    plot.band([(0, 0, 1)], "area")
    assert plot.body == [
        '<path d="M0 0L1 1M3 3" class="line"></path>',
        '<path d="M0 1L3 3L3 2L0 0Z" class="area"></path>',
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_markers_stand_on_their_point_with_a_hint(shape: str) -> None:
    """The middle of a marker's extent is within a fifth of its size of the point, and so it is at every size."""
    drawn = ElementTree.fromstring(marker(shape, 40, 30, 10, hint="a < b"))
    assert drawn.findtext("title") == "a < b"
    if shape == "circle":
        assert (drawn.get("cx"), drawn.get("cy"), drawn.get("r")) == ("40", "30", "10")
        return
    corners = np.array([corner.split(",") for corner in (drawn.get("points") or "").split()], dtype=float)
    low, high = corners.min(axis=0), corners.max(axis=0)
    assert np.abs((low + high) / 2 - [40, 30]).max() <= 2 and 17 <= (high - low).max() <= 26


def test_a_file_stands_alone_with_the_rules_of_what_is_in_it() -> None:
    body = [el("text", "a", class_="tick end"), el("path", class_="line s1"), marker("square", 1, 1)]
    text = svg_file(100, 50, "a < b", body)
    style = ElementTree.fromstring(text).findtext("{http://www.w3.org/2000/svg}style") or ""
    for rule in (
        ".plot .tick {",
        ".plot .mid {",
        ".line {",
        ".mark {",
        ".s1 {",
        ".back {",
        "prefers-color-scheme: dark",
    ):
        assert rule in style
    for rule in (".band", ".grid {", ".mark.hollow", ".cards", ".plot .name", ".wide"):
        assert rule not in style
    assert text.count("http") == 1 and "url(" not in text and text == svg_file(100, 50, "a < b", body)


DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.svg")), ids=lambda path: path.stem)
def test_figures_of_the_docs_have_a_rule_for_every_class_and_a_name(path: Path) -> None:
    """One colour scheme for all of them, light and dark; nothing is loaded from elsewhere."""
    text = path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    style = root.findtext("{http://www.w3.org/2000/svg}style") or ""
    used = {name for part in root.iter() for name in (part.get("class") or "").split()}
    assert used and used <= set(re.findall(r"\.([a-z][\w-]*)", style))
    assert len(root.get("aria-label") or "") > 20 and root.get("role") == "img"
    assert palettes_of(style) == palettes()
    assert (
        text.count("http") == 1 and "url(" not in text and not {"script", "image"} & {part.tag for part in root.iter()}
    )


@given(st.text(min_size=1, max_size=80), st.floats(30, 200))
def test_shorten_fits_and_keeps_both_ends(text: str, width: float) -> None:
    cut = shorten(text, width)
    assert cut == text or (text_width(cut) <= width or len(cut) <= 4)
    assert cut[0] == text[0] or cut[0] == "…" or text[0].isspace()


@settings(max_examples=15)
@given(st.lists(st.tuples(st.floats(60, 640), st.floats(40, 360)), min_size=1, max_size=9))
def test_labels_stay_inside_the_frame(points: list[tuple[float, float]]) -> None:
    frame = Box(50, 30, 700, 400)
    for box in place_labels(points, [110.0] * len(points), frame, passes=2):
        assert frame.left <= box.left and box.right <= frame.right
        assert frame.top <= box.top and box.bottom <= frame.bottom


def test_no_points_have_no_labels() -> None:
    assert place_labels([], [], Box(0, 0, 9, 9)) == []


def test_labels_of_a_tight_cluster_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    points = [(float(x), float(y)) for x, y in rng.normal((360, 220), (45, 30), (7, 2))]
    boxes = place_labels(points, [130.0] * 7, Box(50, 30, 710, 400))
    for first, second in itertools.combinations(boxes, 2):
        assert not overlap(first, second)
    for box, (x, y) in itertools.product(boxes, points):
        assert not overlap(box, Box(x - 4, y - 4, x + 4, y + 4))


def overlap(one: Box, other: Box) -> bool:
    return one.left < other.right and other.left < one.right and one.top < other.bottom and other.top < one.bottom


# --- colours --------------------------------------------------------------------------------------------------------

# Machado, Oliveira & Fernandes 2009, severity 1, linear RGB.
VISION = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}


def palettes() -> list[dict[str, str]]:
    return palettes_of((Path(render.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8"))


def palettes_of(css: str) -> list[dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", css, flags=re.S)
    return [dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", part)) for part in (light, dark)]


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def oklab(rgb: np.ndarray) -> np.ndarray:
    cones = np.cbrt(
        [[0.41222, 0.53633, 0.05145], [0.2119, 0.6807, 0.1074], [0.0883, 0.28172, 0.62998]] @ np.clip(rgb, 0, 1)
    )
    return [[0.21045, 0.79362, -0.00407], [1.978, -2.42859, 0.45059], [0.0259, 0.78277, -0.80868]] @ cones


@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark"])
def test_text_and_marks_have_contrast(palette: dict[str, str]) -> None:
    for text, back in itertools.product(("ink", "soft", "good", "bad", "link"), ("bg", "panel")):
        assert contrast(palette[text], palette[back]) >= 4.5, (text, back)
    for row in range(COLOURS):
        assert contrast(palette[f"s{row}"], palette["bg"]) >= 3.5, row


@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark"])
@pytest.mark.parametrize("vision", VISION)
def test_arm_colours_differ_also_for_the_colour_blind(palette: dict[str, str], vision: str) -> None:
    seen = [oklab(np.asarray(VISION[vision]) @ linear(palette[f"s{row}"])) for row in range(COLOURS)]
    nearest = min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2))
    assert nearest > 0.065  # about three times a just noticeable difference


def test_every_arm_looks_different(crowded_study) -> None:
    styles = arm_styles(crowded_study)
    looks = {(style.colour, style.shape, style.hollow) for style in styles}
    lines = {(style.colour, style.dash) for style in styles}
    assert len(looks) == len(lines) == len(styles) == 12
    assert [style.name for style in styles if style.colour == "s0"] == [crowded_study.baseline]
