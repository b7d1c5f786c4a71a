"""Tasks about images in a real browser: sizes, enlarging, keys, and images that come late or not at all."""

import threading
from typing import Any

import pytest
from browsing import CONTRAST, NAMELESS, complaints, fits, look, press, press_and_wait, sign_in, task, wait
from web_site import image_rows, picture

from chromium import MARKS
from popmargin.label.web.screen import verdict_of

pytestmark = MARKS
ESCAPE, ENTER, TAB = "\ue00c", "\ue007", "\ue004"
SIZES = [(8, 8), (640, 400), (300, 500), (512, 512)]
BOXES = (
    "return [...document.querySelectorAll('.picture > :is(.box, .failed):not([hidden])')]"
    ".filter(e => e.checkVisibility()).map(e => { const b = e.getBoundingClientRect();"
    " return [b.left, b.top, b.width, b.height].map(v => Math.round(v * 10) / 10) })"
)
READY = "return [...document.querySelectorAll('.box img')].every(e => e.complete && e.naturalWidth > 0)"
ENABLED = "return [...document.querySelectorAll('#answer [name=choice]')].filter(e => !e.disabled).map(e => e.value)"
ZOOM = (
    "const d = document.getElementById('zoom'); return d.open ? [document.getElementById('zoom-title').textContent,"
    " [...d.querySelectorAll('img')].map(e => new URL(e.src).pathname), +d.querySelector('.panes').dataset.scale]"
    " : null"
)
NOTE = "return document.getElementById('note').value"


def pictures(count: int) -> list[dict[str, Any]]:
    """Preferences with images of many sizes."""
    return image_rows(count, [picture(number, *SIZES[number % 4]) for number in range(2 * count)])


def ready(browser: Any) -> None:
    wait(lambda: browser.execute_script(READY) and browser.execute_script(ENABLED))


def sources(browser: Any) -> list[str]:
    return browser.execute_script("return [...document.querySelectorAll('.box img')].map(e => new URL(e.src).pathname)")


def test_pairs_of_images_by_keyboard(browser, serve, make_site) -> None:
    site = make_site("pop", rows=pictures(12))
    person, token = site.add("anna")
    look(browser, 1200, 800)
    sign_in(browser, serve(site), token)
    keys = {"1": "left", "2": "right", "3": "tie", "4": "unsure"}
    for number, key in enumerate(keys, 1):
        ready(browser)
        assert task(browser) == str(number)
        press_and_wait(browser, key)
    ready(browser)
    press(browser, "5")
    press_and_wait(browser, "2")
    ready(browser)
    press_and_wait(browser, "u")
    ready(browser)
    press_and_wait(browser, "1")
    given = {one.number: one for one in site.store.history(person.id)}
    for number, choice in enumerate([*keys.values(), "left"], 1):
        assert (given[number].label.verdict, given[number].label.wrong) == verdict_of(choice, given[number])
    assert complaints(browser) == []


def test_both_images_of_a_pair_are_enlarged_side_by_side(browser, serve, make_site) -> None:
    site = make_site("pop", rows=pictures(4))
    look(browser, 1200, 800)
    sign_in(browser, serve(site), site.add("anna")[1])
    ready(browser)
    files = sources(browser)
    assert browser.execute_script(ZOOM) is None
    press(browser, "z")
    assert browser.execute_script(ZOOM) == ["Pair 1", files[:2], 1]
    sides = browser.execute_script(
        "return [...document.querySelectorAll('#zoom .view')].map(e => e.getBoundingClientRect().toJSON())"
    )
    assert sides[0]["top"] == sides[1]["top"] and sides[0]["right"] <= sides[1]["left"]
    assert sides[0]["width"] == sides[1]["width"] >= 550 and sides[0]["height"] == sides[1]["height"] >= 600
    press(browser, "1")  # no answer
    press(browser, "s")
    press(browser, "z")
    assert browser.execute_script(ZOOM) == ["Pair 2", files[2:], 1] and task(browser) == "1"
    press(browser, "+")
    press(browser, "+")
    assert browser.execute_script(ZOOM)[2] == 4
    for axis, ends in (("scrollLeft", "scrollWidth"), ("scrollTop", "scrollHeight")):  # both show the same place
        browser.execute_script(f"document.querySelectorAll('#zoom .view')[1].{axis} = 700")
        places = f"return [...document.querySelectorAll('#zoom .view')].map(e => e.{axis} / e.{ends})"
        wait(lambda places=places: abs(float.__sub__(*map(float, browser.execute_script(places)))) < 0.002)
        assert browser.execute_script(places)[0] > 0.2
    press(browser, "-")
    assert browser.execute_script(ZOOM)[2] == 2
    press(browser, ESCAPE)
    wait(lambda: browser.execute_script(ZOOM) is None)
    # With Tab and Enter, and the focus comes back.
    browser.execute_script("document.querySelectorAll('#task a.box')[3].focus()")
    press(browser, ENTER)
    assert browser.execute_script(ZOOM) == ["Pair 2", files[2:], 1]
    for _ in range(8):
        press(browser, TAB)
        assert not browser.execute_script("return document.activeElement.closest('#task') !== null")
    press(browser, ESCAPE)
    wait(lambda: browser.execute_script(ZOOM) is None)
    assert browser.execute_script("return document.activeElement === document.querySelectorAll('#task a.box')[3]")
    # With the mouse: on an image to enlarge, in the image to zoom.
    browser.find_elements("css selector", "a.box")[0].click()
    assert browser.execute_script(ZOOM) == ["Pair 1", files[:2], 1]
    browser.find_elements("css selector", "#zoom .view")[1].click()
    assert browser.execute_script(ZOOM)[2] == 2
    browser.find_element("css selector", "[data-zoom=close]").click()
    assert browser.execute_script(ZOOM) is None
    assert press_and_wait(browser, "3") == "2" and complaints(browser) == []


@pytest.mark.parametrize("kind", ["pop", "preference", "rating"])
@pytest.mark.parametrize(("width", "height"), [(400, 844), (1200, 800)])
def test_boxes_are_of_one_size_and_large(browser, serve, make_site, kind: str, width: int, height: int) -> None:
    site = make_site(kind, rows=pictures(4))
    look(browser, width, height)
    sign_in(browser, serve(site), site.add("anna")[1])
    least = {("pop", 400): 150, ("pop", 1200): 250, ("preference", 400): 320, ("rating", 400): 320}.get(
        (kind, width), 350
    )
    while task(browser) != "finished":
        ready(browser)
        assert fits(browser, width)
        boxes = browser.execute_script(BOXES)
        assert len(boxes) == {"pop": 4, "preference": 2, "rating": 1}[kind]
        for _, _, wide, tall in boxes:
            assert abs(wide - boxes[0][2]) < 0.2 and abs(tall - boxes[0][3]) < 0.2 and max(wide, tall) >= least
        if width == 1200:  # seen whole, above the answers
            dock = browser.execute_script("return document.querySelector('.dock').getBoundingClientRect().top")
            assert all(top + tall <= dock for _, top, _, tall in boxes)
        for path, drawn, small in browser.execute_script(
            "return [...document.querySelectorAll('.box img')].map(e => [e.src,"
            " [getComputedStyle(e).objectFit, getComputedStyle(e).imageRendering], e.naturalWidth <= 128])"
        ):
            assert drawn == ["contain", "pixelated" if small else "auto"], path
        if kind != "rating":
            browser.find_elements("css selector", "a.box")[0].click()
            views = browser.execute_script(
                "return [...document.querySelectorAll('#zoom .view')].map(e => e.getBoundingClientRect().toJSON())"
            )
            assert (views[0]["bottom"] <= views[1]["top"]) == (width == 400)  # on a phone below one another
            assert all(view["width"] >= width / 2 - 30 and view["bottom"] <= height for view in views)
            press(browser, ESCAPE)
        press_and_wait(browser, "3")


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets a site's images wait until they are let go, or fail: by the digits of their names."""

    class Hold:
        def __init__(self) -> None:
            self.go, self.lost = threading.Event(), set[str]()

        def on(self, site: Any) -> None:
            given = site.store.image_file

            def image_file(project: int, name: str, *, reduced: bool = False) -> Any:
                self.go.wait(20)
                return None if name.removeprefix("image:") in self.lost else given(project, name, reduced=reduced)

            monkeypatch.setattr(site.store, "image_file", image_file)

    held = Hold()
    yield held
    held.go.set()


def test_no_answer_before_the_images_are_there_and_nothing_moves(browser, serve, make_site, hold) -> None:
    site = make_site("preference", rows=pictures(3))
    person, token = site.add("anna")
    hold.on(site)
    hold.go.set()
    browser.execute_cdp_cmd("Network.clearBrowserCache", {})
    look(browser, 1200, 800)
    sign_in(browser, serve(site), token)
    ready(browser)
    hold.go.clear()
    assert press_and_wait(browser, "1") == "2"
    before = browser.execute_script(BOXES)
    assert browser.execute_script(ENABLED) == [] and len(before) == 2
    press(browser, "1")
    press(browser, "4")
    hold.go.set()
    ready(browser)
    assert task(browser) == "2" and site.store.progress(site.project.id, person.id).own_done == 1
    assert browser.execute_script(BOXES) == before
    assert browser.execute_script(NOTE) == "" and press_and_wait(browser, "1") == "3"


def test_what_does_not_load_is_said_and_never_judged_blind(browser, serve, make_site, hold) -> None:
    site = make_site("preference", rows=pictures(3))
    person, token = site.add("anna")
    hold.on(site)
    hold.go.set()
    first = site.store.next_assignment(person.id)
    hold.lost.add(first.first.chosen.removeprefix("image:"))
    browser.execute_cdp_cmd("Network.clearBrowserCache", {})
    look(browser, 1200, 800)
    sign_in(browser, serve(site), token)
    wait(lambda: browser.find_elements("css selector", ".failed:not([hidden])"))
    which = "Image 2" if first.shown.swap_first else "Image 1"
    assert "did not load" in browser.find_element("css selector", ".failed:not([hidden])").text
    assert browser.execute_script(ENABLED) == ["unsure"]
    boxes = browser.execute_script(BOXES)
    assert boxes[0][2:] == boxes[1][2:]
    assert browser.execute_script(NOTE) == f"Did not load: {which}."
    assert browser.execute_script(CONTRAST) == [] and browser.execute_script(NAMELESS) == []
    press(browser, "1")
    press(browser, "3")
    press_and_wait(browser, "s")
    ready(browser)
    assert browser.execute_script(NOTE) == ""
    press_and_wait(browser, "1")
    ready(browser)
    press_and_wait(browser, "2")
    # The skipped one again: it is reported, undone, and loads at last.
    wait(lambda: browser.execute_script(ENABLED) == ["unsure"])
    press_and_wait(browser, "4")
    label = next(one.label for one in site.store.history(person.id) if one.item == first.item)
    assert (label.verdict, label.note) == ("unsure", f"Did not load: {which}.")
    press_and_wait(browser, "u")
    wait(lambda: browser.execute_script(ENABLED) == ["unsure"])
    hold.lost.clear()
    press(browser, "r")
    ready(browser)
    assert browser.execute_script(NOTE) == "" and not browser.find_elements("css selector", ".failed:not([hidden])")
    press_and_wait(browser, "1")
    label = next(one.label for one in site.store.history(person.id) if one.item == first.item)
    assert label.verdict in ("first", "second") and label.note == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_names(browser, serve, make_site, scheme: str) -> None:
    site = make_site("pop", rows=pictures(4))
    server = serve(site)
    look(browser, 1200, 800, scheme)
    sign_in(browser, server, site.add("anna")[1])
    ready(browser)
    for key in ("", "z", "?"):
        press(browser, key)
        assert browser.execute_script(CONTRAST) == [] and browser.execute_script(NAMELESS) == [], key
        press(browser, ESCAPE)
        wait(lambda: not browser.find_elements("css selector", "dialog[open]"))
    press_and_wait(browser, "1")
    browser.get(server.url + "/history")
    assert browser.execute_script(CONTRAST) == [] and fits(browser, 1200)
    wait(lambda: browser.execute_script("return document.querySelector('.thumbnail').naturalWidth > 0"))
    assert complaints(browser) == []


def test_without_scripts_an_image_is_a_link_to_its_file(browser, serve, make_site) -> None:
    site = make_site("preference", rows=pictures(1))
    person, token = site.add("anna")
    site.store.acknowledge(person.id, 1)
    server = serve(site)
    look(browser, 1200, 800)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.delete_all_cookies()
        browser.get(f"{server.url}/login/{token}")
        wait(lambda: browser.find_elements("css selector", "a.box"))
        wait(lambda: not browser.find_element("css selector", "[data-enlarge]").is_displayed())
        address = browser.find_element("css selector", "a.box").get_attribute("href")
        browser.find_element("css selector", "a.box").click()
        wait(lambda: browser.current_url == address)
        browser.back()
        browser.find_element("css selector", "[value=left]").click()
        wait(lambda: site.store.progress(site.project.id, person.id).own_done == 1)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
