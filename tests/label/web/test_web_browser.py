"""The annotator in a real browser, on a real server."""

import time

import pytest

pytest.importorskip("uvicorn")

from browsing import CONTRAST, NAMELESS, complaints, fits, look, press, press_and_wait, sign_in, task, wait
from test_web_text import ATTACKS
from web_site import ADMIN

from chromium import MARKS
from popmargin.label.web.screen import screen_of, verdict_of

pytestmark = MARKS
STRANGE = ("script", "iframe", "img", "svg", "style", "object", "base")
COMPLETE = "return document.readyState === 'complete'"  # with its styles
LONG = "A sentence that goes on for a while and says little of interest to anybody. " * 60
CODE = """Use a *generator*:

```python
def squares(n: int):
    for i in range(n):
        yield i * i  # lazily
```

It is lazy."""
TABLE = "| a | b |\n|---|---|\n" + "| wide cell | and another |\n" * 3


def test_twenty_tasks_by_keyboard_with_undo_and_refresh(browser, serve, make_site) -> None:
    site = make_site(items=20)
    person, token = site.add("anna")
    server = serve(site)
    look(browser)
    sign_in(browser, server, token)
    browser.execute_script("window.never_left = true")  # gone if a page is loaded
    for index in range(20):
        assert task(browser) == str(index + 1)
        if index == 7:
            press_and_wait(browser, "u")
            assert task(browser) == "7"
            assert press_and_wait(browser, "2") == "8"
        if index == 9:
            assert browser.execute_script("return window.never_left")
            browser.refresh()
            assert task(browser) == "10"
        press_and_wait(browser, ["1", "2", "3", "4", "=", "0"][index % 6])
    assert task(browser) == "finished"
    done = {a.number: a for a in site.store.history(person.id)}
    assert len(done) == 20 and site.store.labels(site.project.id).num_rows == 20
    meant = ["left", "right", "tie", "unsure", "tie", "unsure"]
    for number, assignment in done.items():
        choice = "right" if number == 7 else meant[(number - 1) % 6]
        assert assignment.label.verdict == verdict_of(choice, assignment)[0], number
    assert complaints(browser) == []


def test_the_screen_in_the_browser_is_the_stored_order(browser, serve, make_site) -> None:
    site = make_site(items=8, seed=5)
    person, token = site.add("anna")
    look(browser)
    sign_in(browser, serve(site), token)
    for _ in range(8):
        seen = browser.execute_script(
            "return [...document.querySelectorAll('.side .text')].map(e => [e.textContent.trim(),"
            " e.getBoundingClientRect().left, e.getBoundingClientRect().top])"
        )
        ordered = [text for text, _, _ in sorted(seen, key=lambda row: (row[1] > 600, row[2]))]
        screen = screen_of(site.store.next_assignment(person.id))
        assert ordered == [text for side in screen.sides for text in (side.prompt, *(r.text for r in side.responses))]
        press_and_wait(browser, "3")


def test_wrong_note_skip_and_switches_by_keyboard(browser, serve, make_site) -> None:
    rows = [{"id": f"{i}", "prompt": f"Q{i}", "chosen": f"A {i} good", "rejected": f"A {i} bad"} for i in range(8)]
    site = make_site(rows=rows)
    person, token = site.add("anna")
    look(browser)
    sign_in(browser, serve(site), token)
    press(browser, "n")
    wait(lambda: browser.switch_to.active_element.get_attribute("id") == "note")
    press(browser, "123 s u")  # letters, not answers
    press(browser, "\ue00c")  # Escape
    assert task(browser) == "1"
    press(browser, "w")
    wait(lambda: browser.execute_script("return document.querySelector('details.wrong').open"))
    press(browser, "\ue00c")
    assert not browser.execute_script("return document.querySelector('details.wrong').open")
    press(browser, "5")
    wait(lambda: browser.execute_script("return document.querySelector('details.wrong').open"))
    press_and_wait(browser, "2")
    assignment = site.store.history(person.id)[0]
    assert (assignment.label.verdict, assignment.label.wrong) == verdict_of("wrong-right", assignment)
    assert assignment.label.note == "123 s u"
    press_and_wait(browser, "s")
    assert site.store.progress(site.project.id, person.id).own_skipped == 1
    colour = "return getComputedStyle(document.querySelector('mark')).backgroundColor"
    marked = browser.execute_script(colour)
    press(browser, "d")
    wait(lambda: browser.execute_script(colour) != marked)
    press_and_wait(browser, "1")
    assert browser.execute_script(colour) != marked  # kept over tasks
    press(browser, "g")
    wait(lambda: browser.execute_script("return document.getElementById('guidelines').open"))
    press(browser, "?")
    wait(lambda: browser.execute_script("return document.getElementById('help').open"))
    press(browser, "1")  # not an answer while the help is open
    assert task(browser) == "4"
    press(browser, "\ue00c")
    press(browser, "h")
    wait(lambda: task(browser) == "history" and browser.find_elements("css selector", "html.scripted"))
    press(browser, "\ue007")
    wait(lambda: task(browser) == "4")


def test_ratings_by_keyboard_alone(browser, serve, make_site) -> None:
    """Ten responses from 1 to 10, 0 being 10, with a note, undo, skip, a reload and a changed answer."""
    site = make_site("rating", items=3, scale=10)
    person, token = site.add("anna")
    server = serve(site)
    look(browser)
    sign_in(browser, server, token)
    browser.execute_script("window.never_left = true")
    hints = browser.execute_script("return [...document.querySelectorAll('.answers kbd')].map(e => e.textContent)")
    assert hints == [*"1234567890", "x"]
    assert press_and_wait(browser, "0") == "2"
    press(browser, "n")
    wait(lambda: browser.switch_to.active_element.get_attribute("id") == "note")
    press(browser, "7 x u")  # letters, not answers
    press(browser, "\ue00c")
    assert press_and_wait(browser, "7") == "3"
    assert press_and_wait(browser, "x") == "4"
    assert press_and_wait(browser, "u") == "3"
    assert press_and_wait(browser, "1") == "4"
    assert press_and_wait(browser, "s") == "5"
    assert browser.execute_script("return window.never_left")
    press(browser, "n")
    wait(lambda: browser.switch_to.active_element.get_attribute("id") == "note")
    press(browser, "kept\ue00c")
    browser.refresh()
    wait(lambda: browser.execute_script("return document.readyState === 'complete' && !!window.htmx"))
    assert task(browser) == "5" and browser.execute_script("return document.getElementById('note').value") == "kept"
    press(browser, "?")
    wait(lambda: browser.execute_script("return document.getElementById('help').open"))
    assert "0 is 10" in browser.find_element("id", "help").text
    press(browser, "\ue00c")
    for key in "2345689":
        press_and_wait(browser, key)
    while task(browser) != "finished":
        press_and_wait(browser, "9")
    given = {one.number: one.label for one in site.store.history(person.id)}
    said = ["10", "7", "1", "9", "2", "3", "4", "5", "6", "8", "9", "9"]  # the fourth was skipped, and came last
    assert [given[number].verdict for number in range(1, 13)] == said
    assert (given[2].note, given[3].revision, given[5].note) == ("7 x u", 3, "kept")
    press(browser, "h")
    wait(lambda: task(browser) == "history")
    assert complaints(browser) == []


LEVEL = "return document.querySelector('[name=confidence]:checked')?.value ?? null"


def test_how_sure_by_keyboard(browser, serve, make_site) -> None:
    site = make_site(items=3)
    person, token = site.add("anna")
    server = serve(site)
    look(browser)
    sign_in(browser, server, token)
    hints = browser.execute_script("return [...document.querySelectorAll('.sure kbd')].map(e => e.textContent)")
    assert hints == ["7", "8", "9"]
    press_and_wait(browser, "1")  # no key more for those who do not say
    press(browser, "7")
    press(browser, "9")
    assert browser.execute_script(LEVEL) == "1.0"
    press(browser, "9")
    assert browser.execute_script(LEVEL) is None
    press(browser, "8")
    press(browser, "n")
    wait(lambda: browser.switch_to.active_element.get_attribute("id") == "note")
    press(browser, "half a thought\ue00c")
    browser.refresh()
    wait(lambda: browser.execute_script("return document.readyState === 'complete' && !!window.htmx"))
    assert browser.execute_script(LEVEL) == "0.75" and task(browser) == "2"
    assert browser.execute_script("return document.getElementById('note').value") == "half a thought"
    assert press_and_wait(browser, "2") == "3"
    assert browser.execute_script(LEVEL) is None  # the next task begins without
    press_and_wait(browser, "u")
    assert browser.execute_script(LEVEL) == "0.75"
    browser.execute_script("document.querySelector('[name=confidence]:checked').focus()")
    press(browser, "\ue007")  # Enter answers nothing
    time.sleep(0.3)
    press(browser, "\ue014")  # the arrow goes to the next level
    assert browser.execute_script(LEVEL) == "1.0" and task(browser) == "2"
    press(browser, "9")  # taken back, where the focus is there too
    assert browser.execute_script(LEVEL) is None
    press(browser, "8")
    assert press_and_wait(browser, "3") == "3"
    given = {a.number: a.label for a in site.store.history(person.id)}
    assert [given[1].confidence, given[2].confidence] == [None, 0.75]
    assert (given[2].verdict, given[2].revision, given[2].note) == ("tie", 3, "half a thought")
    assert complaints(browser) == []


def test_an_answer_survives_a_server_that_is_away(browser, serve, make_site) -> None:
    site = make_site(items=3)
    person, token = site.add("anna")
    server = serve(site)
    look(browser)
    sign_in(browser, server, token)
    server.stop()
    press(browser, "1")
    trouble = "return !document.getElementById('trouble').hidden"
    wait(lambda: browser.execute_script(trouble))
    assert task(browser) == "1"
    press(browser, "2")  # the answer that waits is not replaced
    assert site.store.progress(site.project.id, person.id).own_done == 0
    serve(site, server.port)
    wait(lambda: task(browser) == "2", 30)
    assert not browser.execute_script(trouble)
    (label,) = [a.label for a in site.store.history(person.id)]
    assert label.verdict == verdict_of("left", site.store.history(person.id)[0])[0] and label.revision == 1


def test_an_answer_survives_a_renewed_link(browser, serve, make_site) -> None:
    site = make_site(items=3)
    person, token = site.add("anna")
    server = serve(site)
    look(browser)
    sign_in(browser, server, token)
    renewed = site.store.new_token(person.id)
    press(browser, "1")
    wait(lambda: "signed out" in browser.execute_script("return document.getElementById('trouble').textContent"))
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get(f"{server.url}/login/{renewed}")
    browser.close()
    browser.switch_to.window(first)
    wait(lambda: task(browser) == "2", 30)
    assert site.store.progress(site.project.id, person.id).own_done == 1


def test_two_people_at_once(open_browser, browser, serve, make_site) -> None:
    site = make_site(items=6)
    people = [site.add("anna"), site.add("ben")]
    server = serve(site)
    browsers = [browser, open_browser()]
    for window, (_, token) in zip(browsers, people, strict=True):
        look(window)
        sign_in(window, server, token)
    for turn in range(6):
        window = browsers[turn % 2]
        if task(window) != "finished":
            press_and_wait(window, "1")
    for window in browsers:
        while task(window) != "finished":
            press_and_wait(window, "2")
    labels = site.store.labels(site.project.id).to_pylist()
    assert len(labels) == 6 and len({row["item"] for row in labels}) == 6
    assert {row["annotator"] for row in labels} == {"anna", "ben"}


def test_hostile_texts_do_nothing(browser, serve, make_site) -> None:
    rows = [
        {"id": str(i), "prompt": attack, "chosen": attack + " a", "rejected": attack + " b"}
        for i, attack in enumerate(ATTACKS[: len(ATTACKS) // 2 * 2])
    ]
    site = make_site(rows=rows, guidelines="\n\n".join(ATTACKS))
    server = serve(site)
    look(browser)
    sign_in(browser, server, site.add("anna")[1])
    browser.execute_script("window.alert = () => { document.title = 'attacked' }")
    while task(browser) != "finished":
        strange = browser.find_elements("css selector", ", ".join(f"#task {name}" for name in STRANGE))
        schemes = browser.execute_script("return [...document.querySelectorAll('#task a')].map(e => e.protocol)")
        assert strange == [] and set(schemes) <= {"http:", "https:", "mailto:"}
        press_and_wait(browser, "3")
    assert browser.title != "attacked"
    assert complaints(browser) == []  # nothing was even tried and refused by the policy


@pytest.mark.parametrize("kind", ["pop", "preference", "rating"])
@pytest.mark.parametrize(("width", "height"), [(390, 844), (360, 640), (768, 1024), (1280, 800)])
def test_fits_every_screen(browser, serve, make_site, kind: str, width: int, height: int) -> None:
    rows = [
        {"id": str(i), "prompt": text[:900], "chosen": text, "rejected": text.replace("while", "time")}
        for i, text in enumerate(
            [LONG, CODE, "| a | b |\n|---|---|\n" + "| wide cell | and another |\n" * 3, "x" * 400]
        )
    ]
    site = make_site(kind, rows=rows, **({"scale": 10} if kind == "rating" else {}))
    server = serve(site)
    look(browser, width, height)
    sign_in(browser, server, site.add("anna")[1])
    while task(browser) != "finished":
        assert fits(browser, width)
        boxes = browser.execute_script(
            "return [...document.querySelectorAll('.answers > button, .wrong > summary')].map(e => {"
            "const b = e.getBoundingClientRect(); return [b.left, b.right, b.top, b.bottom, b.height] })"
        )
        assert len(boxes) == {"pop": 5, "preference": 4, "rating": 11}[kind]
        if kind == "rating":  # from the worst to the best, in the order of reading
            places = [(top, left) for left, _, top, *_ in boxes]
            assert places == sorted(places)
        for left, right, top, bottom, tall in boxes:  # answers are always in sight, and big enough for a thumb
            assert left >= 0 and right <= width and top >= 0 and bottom <= height and tall >= 36
        press_and_wait(browser, "3")
    for page in ("/history", "/"):
        browser.get(server.url + page)
        assert fits(browser, width)


@pytest.mark.parametrize(
    ("kind", "scheme"), [("pop", "light"), ("pop", "dark"), ("rating", "light"), ("rating", "dark")]
)
def test_contrast_names_and_focus(browser, serve, make_site, kind: str, scheme: str) -> None:
    rows = [
        {"id": str(i), "prompt": "What?", "chosen": CODE, "rejected": CODE.replace("lazily", "eager")} for i in range(4)
    ]
    site = make_site(kind, rows=rows)
    server = serve(site)
    look(browser, scheme=scheme)
    sign_in(browser, server, site.add("anna")[1])
    press(browser, "w")
    pages = [("/", False), ("/history", True), ("/admin", True)]
    for path, load in pages:
        if path == "/admin":
            browser.get(f"{server.url}/login/{ADMIN}")
            wait(lambda: task(browser) == "admin" and browser.execute_script(COMPLETE))
        elif load:
            browser.get(server.url + path)
        assert browser.execute_script(CONTRAST) == [], path
        assert browser.execute_script(NAMELESS) == [], path
        assert len(browser.find_elements("css selector", "h1")) == 1
        assert browser.execute_script("return document.documentElement.lang") == "en"
    browser.get(server.url + "/")
    seen = set()
    for _ in range(40):  # everything can be reached with Tab, and the focus can be seen
        press(browser, "\ue004")
        element = browser.switch_to.active_element
        seen.add(element.get_attribute("value") or "".join(element.text.split()[:1]))
        outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
        assert element.tag_name == "body" or outline != "none", element.get_attribute("outerHTML")[:80]
    answers = {"pop": {"left", "right", "tie"}, "rating": {"1", "2", "3", "4", "5"}}[kind]
    assert {*answers, "unsure", "Undo", "Skip", "Note"} <= seen


def test_the_admins_figures_come_by_themselves(browser, serve, make_site) -> None:
    site = make_site()
    person, _ = site.add("anna")
    now = site.store.next_assignment(person.id)
    site.store.record(person.id, now.id, "first", request="a")
    server = serve(site)
    look(browser)
    sign_in(browser, server, ADMIN)
    assert wait(lambda: browser.find_element("css selector", "#quality table").is_displayed())
    assert complaints(browser) == []


def test_without_scripts(browser, serve, make_site) -> None:
    site = make_site(items=2)
    person, token = site.add("anna")
    server = serve(site)
    look(browser)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.delete_all_cookies()
        browser.get(f"{server.url}/login/{token}")
        wait(lambda: browser.find_elements("css selector", "form[action$='/guidelines'] button"))
        browser.find_element("css selector", "form[action$='/guidelines'] button").click()
        wait(lambda: browser.find_elements("css selector", "[value=left]"))
        browser.find_element("css selector", "[value=left]").click()
        wait(lambda: site.store.progress(site.project.id, person.id).own_done == 1)
        wait(lambda: "Task 2" in browser.page_source)
        # Enter there would press the first answer, and only a script can stop it.
        assert not browser.find_element("css selector", "[name=confidence]").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
