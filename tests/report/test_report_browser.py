"""The report in a real browser, with JavaScript switched off."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from test_report_pictures import image_study

from chromium import MARKS, chromium
from popmargin.report import StudyResults, write_report

pytestmark = MARKS
SECTIONS = ("summary", "tradeoff", "buckets", "curves", "margins", "logratios", "calibration", "overhead", "samples",
            "account", "notes", "setup")  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator:
    # Pages run no script; the driver's own commands still work.
    with chromium({"profile.managed_default_content_settings.javascript": 2}) as driver:
        yield driver


def visit(browser, study: StudyResults, folder: Path, width: int, scheme: str = "light") -> None:
    path = write_report(study, folder / "report.html")
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(path.as_uri())


def test_pages_run_no_script_here(browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<title>off</title><script>document.title = 'on'</script>", encoding="utf-8")
    browser.get(page.as_uri())
    assert browser.title == "off"


@pytest.mark.parametrize("crowded", [False, True], ids=["seven", "twelve"])
@pytest.mark.parametrize("width", [360, 390, 700, 1280])
def test_no_sideways_scrolling_and_all_sections_visible(
    browser, study: StudyResults, crowded_study: StudyResults, tmp_path: Path, width: int, crowded: bool
) -> None:
    visit(browser, crowded_study if crowded else study, tmp_path, width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    for name in SECTIONS:
        section = browser.find_element("id", name)
        assert section.is_displayed() and section.size["height"] > 80, name
        assert section.size["width"] <= width, name
    outside = browser.execute_script(
        "return [...document.querySelectorAll('p, h1, h2, h3, figure, li, dd')].filter(e => !e.closest('.strip') &&"
        " (e.getBoundingClientRect().right > innerWidth + 1)).map(e => e.outerHTML.slice(0, 80))"
    )
    assert outside == []
    assert browser.get_log("browser") == []


@pytest.mark.parametrize(("width", "arms"), [(360, 9), (500, 2), (1280, 9)])
def test_sampled_images_are_shown_without_scrolling_the_page(browser, tmp_path: Path, width: int, arms: int) -> None:
    """Of 8 × 8 pixels: loaded, large enough to see, with square pixels; a wide grid scrolls by itself."""
    visit(browser, image_study(arms), tmp_path, width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    found = browser.execute_script(
        "return [...document.querySelectorAll('.pictures img')].map(e => [e.naturalWidth, e.clientWidth, e.alt.length,"
        " getComputedStyle(e).imageRendering])"
    )
    assert len(found) == 3 * (arms + 1)
    assert all(natural == 8 and shown > 50 and words and how == "pixelated" for natural, shown, words, how in found)
    assert browser.get_log("browser") == []


def test_pictures_have_a_size_and_readable_text(browser, study: StudyResults, tmp_path: Path) -> None:
    for width in (360, 1280):
        visit(browser, study, tmp_path, width)
        sizes = browser.execute_script(
            "return [...document.querySelectorAll('svg.plot')].filter(e => e.checkVisibility()).map(e => "
            "[e.getBoundingClientRect().width, e.getBoundingClientRect().width / e.viewBox.baseVal.width])"
        )
        assert len(sizes) >= 20
        assert min(size for size, _ in sizes) > 150
        assert min(scale for _, scale in sizes) * 11 > 9  # the smallest text, in px


def test_labels_of_the_trade_off_do_not_overlap_as_drawn(browser, study: StudyResults, tmp_path: Path) -> None:
    for width in (390, 1280):
        visit(browser, study, tmp_path, width)
        boxes = browser.execute_script(
            "return [...document.querySelectorAll('#tradeoff svg text.name')].filter(e => e.checkVisibility())"
            ".map(e => { const b = e.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom] })"
        )
        assert len(boxes) == len(study.arms)
        for i, one in enumerate(boxes):
            for other in boxes[i + 1 :]:
                wide = min(one[2], other[2]) - max(one[0], other[0])
                high = min(one[3], other[3]) - max(one[1], other[1])
                # Line boxes are taller than the letters in them, so a few px of shared height are fine.
                assert wide <= 1 or high <= 4, (width, one, other)


def test_dark_mode_changes_text_and_marks(browser, study: StudyResults, tmp_path: Path) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        visit(browser, study, tmp_path, 1280, scheme)
        colours[scheme] = browser.execute_script(
            "const c = q => getComputedStyle(document.querySelector(q));"
            "return [c('body').backgroundColor, c('h1').color, c('#tradeoff .s1').color, c('.plot text').fill]"
        )
    assert all(light != dark for light, dark in zip(colours["light"], colours["dark"], strict=True))


def test_prints_on_a4(browser, study: StudyResults, tmp_path: Path) -> None:
    visit(browser, study, tmp_path, 1280)
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    assert len(printed["data"]) > 50_000
