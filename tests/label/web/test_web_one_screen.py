"""Everything to be judged on one screen: long responses scroll by themselves, pairs side by side or one swipe apart."""

import pytest

pytest.importorskip("uvicorn")

from browsing import complaints, fits, look, press, press_and_wait, sign_in, task, wait
from web_site import preferences_of

from chromium import MARKS
from popmargin.label.projects.open_project import open_project

pytestmark = MARKS
LONG = "A sentence that goes on for a while and says little of interest to anybody. " * 40
BOXES = """
return [...document.querySelectorAll('.response > .text, .answers > button, .wrong > summary')].map(e => {
  const b = e.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom, b.height] })
"""


def long_rows(count: int, *, prompt: str = "") -> list[dict]:
    return [
        {"id": f"p{i}", "prompt": prompt or f"Question {i}? {LONG}"}
        | {side: f"{word} {i}. {LONG}" for side, word in (("chosen", "Good"), ("rejected", "Poor"))}
        for i in range(count)
    ]


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (1920, 1080), (1024, 768)])
@pytest.mark.parametrize(("kind", "grades"), [("pop", False), ("preference", True)])
def test_all_responses_and_answers_are_in_sight_at_once(browser, serve, make_site, kind, grades, width, height) -> None:
    site = make_site(kind, rows=long_rows(4), grades=grades, guidelines="")
    look(browser, width, height)
    sign_in(browser, serve(site), site.add("anna")[1])
    boxes = browser.execute_script(BOXES)
    assert len(boxes) == {"pop": 4 + 5, "preference": 2 + 8}[kind]
    for left, top, right, bottom, tall in boxes:
        assert left >= 0 and top >= 0 and right <= width and bottom <= height and tall >= 36
    assert browser.execute_script("return document.documentElement.scrollHeight") <= height
    hints = "return [...document.querySelectorAll('.answers > button, .wrong > summary')].map(e => ["
    hints += "e.getBoundingClientRect().left, e.querySelector('kbd').textContent])"
    assert [hint for _, hint in sorted(browser.execute_script(hints))] == [
        str(n + 1) for n in range(8 if grades else 5)
    ]
    # A response scrolls by itself, from the keyboard too.
    browser.execute_script("document.querySelector('.response > .text').focus()")
    press(browser, "\ue00f")  # Page Down
    wait(lambda: browser.execute_script("return document.querySelector('.response > .text').scrollTop") > 0)
    assert complaints(browser) == []


def test_the_second_pair_is_one_press_away_on_a_phone(browser, serve, make_site) -> None:
    site = make_site(rows=long_rows(4), guidelines="")
    look(browser, 390, 844)
    sign_in(browser, serve(site), site.add("anna")[1])
    assert fits(browser, 390)
    place = "return document.getElementById('right').getBoundingClientRect().left"
    assert browser.execute_script(place) >= 300
    links = browser.find_elements("css selector", ".pairs a")
    assert [link.text for link in links] == ["Pair 1", "Pair 2"] and all(link.is_displayed() for link in links)
    links[1].send_keys("\ue007")  # from a keyboard
    wait(lambda: 0 <= browser.execute_script(place) < 40)
    current = "return document.querySelector('.pairs [aria-current]').textContent"
    wait(lambda: browser.execute_script(current) == "Pair 2")
    assert browser.execute_script("return document.getElementById('right').getBoundingClientRect().top") < 400
    assert browser.execute_script("return document.documentElement.scrollHeight") <= 844


def test_the_second_pair_can_be_reached_on_a_phone_without_scripts(browser, serve, make_site) -> None:
    site = make_site(rows=long_rows(4), guidelines="")
    token, server = site.add("anna")[1], serve(site)
    look(browser, 390, 844)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.delete_all_cookies()
        browser.get(f"{server.url}/login/{token}")
        links = wait(lambda: browser.find_elements("css selector", ".pairs a"))
        links[1].click()
        wait(lambda: 0 <= browser.find_element("id", "right").rect["x"] < 40)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_one_prompt_stands_once_and_what_stays_keeps_its_place(browser, serve, make_site) -> None:
    site = make_site(rows=long_rows(2, prompt="Is it so?"), guidelines="")
    project = open_project(site.store, preferences_of(long_rows(9, prompt="Is it so?")), "chain", say=lambda _: None)
    person, token = site.store.add_annotator(project.id, "anna")
    site.store.note_example(person.id)
    look(browser, 1366, 768)
    sign_in(browser, serve(site), token)
    assert len(browser.find_elements("css selector", ".prompt")) == 1
    sides = "return [...document.querySelectorAll('.side')].map(e => { const text = e.querySelector('.response .text');"
    sides += "return [text.textContent, text.scrollTop, e.matches('[data-stays]')] })"
    browser.execute_script("document.querySelectorAll('.response .text').forEach(e => { e.scrollTop = 50 })")
    first = browser.execute_script(sides)
    press_and_wait(browser, "1")
    second = browser.execute_script(sides)
    stayed = [stays for _, _, stays in second]
    assert sorted(stayed) == [False, True] and [stays for _, _, stays in first] == [False, False]
    place = stayed.index(True)
    assert second[place][:2] == first[place][:2] and second[place][1] == 50 and second[1 - place][1] == 0


def test_the_worked_example_comes_first_once_and_can_be_seen_again(browser, serve, make_site) -> None:
    site = make_site(wording="more convincing")
    person, token = site.add("anna", example=False)
    server = serve(site)
    look(browser)
    sign_in(browser, server, token)
    assert task(browser) == "example"
    words = browser.find_element("id", "task").text
    assert (
        "more convincing by the larger margin" in words
        and "not the more convincing one, choose the other pair" in words
    )
    assert site.store.history(person.id) == []  # no clock runs while it is read
    press(browser, "\ue007")
    wait(lambda: task(browser) == "1")
    assert "not the more convincing one, choose the other pair" in browser.find_element("id", "task").text
    browser.refresh()
    assert task(browser) == "1"
    press(browser, "e")
    wait(lambda: task(browser) == "example")
    press(browser, "\ue007")
    wait(lambda: task(browser) == "1")
    assert complaints(browser) == []


def test_a_grade_is_one_key_press_and_can_be_changed(browser, serve, make_site) -> None:
    site = make_site("preference", items=4, grades=True)
    person, token = site.add("anna")
    look(browser)
    sign_in(browser, serve(site), token)
    assert "Response 1 is much better" in " ".join(
        browser.find_element("css selector", "[value=left-3]").get_attribute("textContent").split()
    )
    for key in "12345678":
        press_and_wait(browser, key)
    given = {one.number: one for one in site.store.history(person.id)}
    left = {number: "second" if one.shown.swap_first else "first" for number, one in given.items()}
    other = {"first": "second", "second": "first"}
    said = [(given[n].label.verdict, given[n].label.grade) for n in range(1, 9)]
    assert said == [(left[1], 3), (left[2], 2), (left[3], 1), ("tie", None), (other[left[5]], 1), (other[left[6]], 2),
                    (other[left[7]], 3), ("unsure", None)]  # fmt: skip
    press(browser, "h")
    wait(lambda: task(browser) == "history")
    assert "Response 2 is clearly better" in browser.find_element("id", "n6").text
    browser.find_element("css selector", "#n6 a").click()
    wait(lambda: browser.find_elements("css selector", "[value=right-2][aria-pressed=true]"))
    press(browser, "1")
    wait(lambda: task(browser) == "history")
    label = next(one for one in site.store.history(person.id) if one.number == 6).label
    assert (label.grade, label.revision) == (3, 2)
