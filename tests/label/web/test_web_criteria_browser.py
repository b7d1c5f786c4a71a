"""Several questions by keyboard alone: digits answer the open ones, Enter saves, and a reload keeps what was chosen."""

from collections.abc import Callable
from typing import Any

from browsing import Server, complaints, look, press, press_and_wait, sign_in, task, wait
from web_site import Site

from chromium import MARKS
from popmargin.label.store.criteria import criteria_of

pytestmark = MARKS
CRITERIA = criteria_of([("clear", "Which is clearer?"), ("kinder", "Which one is kinder?")])


def chosen(browser: Any) -> list[str]:
    return browser.execute_script("return [...document.querySelectorAll('.criteria :checked')].map(i => i.value)")


def test_keys_answer_the_open_questions_and_enter_saves(
    browser: Any, make_site: Callable[..., Site], serve: Callable[..., Server]
) -> None:
    site = make_site("preference", items=1, criteria=CRITERIA)  # two tasks
    look(browser)
    server = serve(site)
    sign_in(browser, server, site.add("anna")[1])
    press(browser, "2")
    press(browser, "3")
    assert chosen(browser) == ["right", "tie"]
    browser.refresh()
    wait(lambda: browser.execute_script("return document.readyState === 'complete' && !!window.htmx"))
    assert chosen(browser) == ["right", "tie"]
    press(browser, "1")  # nothing is open, so nothing changes by mistake
    assert chosen(browser) == ["right", "tie"] and site.store.labels(1).num_rows == 0
    assert press_and_wait(browser, "\ue007") == "2" and chosen(browser) == []  # Enter
    (row,) = site.store.labels(1).to_pylist()
    assert row["verdict"] in ("first", "second") and row["criteria"] == '{"kinder": "tie"}'
    press(browser, "1")
    press(browser, "\ue007")  # one question is open: the browser asks for it
    assert task(browser) == "2" and site.store.labels(1).num_rows == 1
    assert complaints(browser) == []


def test_on_a_phone_the_responses_keep_their_height(
    browser: Any, make_site: Callable[..., Site], serve: Callable[..., Server]
) -> None:
    site = make_site("preference", items=1, criteria=CRITERIA)
    look(browser, width=390, height=640)
    sign_in(browser, serve(site), site.add("anna")[1])
    height, above = browser.execute_script(
        "const of = name => document.querySelector(name).getBoundingClientRect();"
        "return [of('.side .response').height, of('.dock').top - of('.side .response').bottom]"
    )
    assert height > 40 and above >= 0  # all of it, and nothing lies over it
