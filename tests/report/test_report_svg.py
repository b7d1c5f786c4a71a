import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popmargin.report import build
from popmargin.report.plots import COLOURS, arm_styles
from popmargin.report.svg import Box, el, path, place_labels, shorten, span, text_width, tick_text


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
    labels = [tick_text(tick, ticks) for tick in ticks]
    if scale.high - scale.low > 1e-5:
        assert len(set(labels)) == len(labels)


def test_path_breaks_where_a_value_is_missing() -> None:
    scale = span([0, 3], pad=0).on(0, 3)
    drawn = path([(0, 0), (1, 1), (2, math.nan), (3, 3)], scale, scale)
    assert 'd="M0 0L1 1M3 3"' in drawn


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


def test_labels_of_a_tight_cluster_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    points = [(float(x), float(y)) for x, y in rng.normal((360, 220), (45, 30), (7, 2))]
    boxes = place_labels(points, [130.0] * 7, Box(50, 30, 710, 400))
    for first, second in itertools.combinations(boxes, 2):
        assert first.overlap(second) == 0
    for box, (x, y) in itertools.product(boxes, points):
        assert box.overlap(Box(x - 4, y - 4, x + 4, y + 4)) == 0


# --- colours --------------------------------------------------------------------------------------------------------

# Machado, Oliveira & Fernandes 2009, severity 1, linear RGB.
VISION = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}


def palettes() -> list[dict[str, str]]:
    css = (Path(build.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
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
