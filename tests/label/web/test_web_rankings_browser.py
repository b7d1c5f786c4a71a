"""Rankings by keyboard alone: digits fill the places, a pair has one of them, and Enter saves."""

from collections.abc import Callable
from typing import Any

from browsing import Server, complaints, look, press, press_and_wait, sign_in, wait
from web_site import Site

from chromium import MARKS

pytestmark = MARKS


def places(browser: Any) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll('.criteria fieldset')].map(s => s.querySelector(':checked')?.value ?? '')"
    )


def last(browser: Any) -> str:
    return browser.execute_script("return document.querySelector('[data-last]').textContent")


def test_keys_fill_the_places_and_enter_saves(
    browser: Any, make_site: Callable[..., Site], serve: Callable[..., Server]
) -> None:
    site = make_site("rank", items=2)
    look(browser)
    sign_in(browser, serve(site), site.add("anna")[1])
    press(browser, "2")
    assert places(browser) == ["2", "", ""] and last(browser) == "the pair that is left"
    press(browser, "2")  # again: the pair has no place
    assert places(browser) == ["", "", ""]
    for key in "321":
        press(browser, key)
    assert places(browser) == ["3", "2", "1"] and last(browser) == "Pair 4"
    browser.refresh()
    wait(lambda: browser.execute_script("return document.readyState === 'complete' && !!window.htmx"))
    assert places(browser) == ["3", "2", "1"] and last(browser) == "Pair 4"
    look(browser, width=390, height=700)
    width = browser.execute_script("return document.documentElement.scrollWidth")
    look(browser)
    assert width <= 390
    press_and_wait(browser, "\ue007")  # Enter
    (row,) = site.store.labels(1).to_pylist()
    shown = [int(number) for number in row["shown_order"].split(">")]
    assert row["verdict"] == ">".join(str(shown[place - 1]) for place in (3, 2, 1, 4))
    assert complaints(browser) == []
