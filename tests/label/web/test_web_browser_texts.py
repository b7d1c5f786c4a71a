"""Texts, small screens and second tabs in a real browser."""

import itertools

import pytest

pytest.importorskip("uvicorn")

from browsing import complaints, look, press, press_and_wait, sign_in, task, wait

from chromium import MARKS

pytestmark = MARKS
SIZES = ((721, 900), (768, 1024), (900, 700), (1000, 700), (1024, 768), (844, 390), (640, 512), (320, 256))
WORDS = "The quick brown fox jumps over the lazy dog near the old stone bridge at dawn. " * 4
RICH = "### Answer\n\n\\(a_1 + 2*3*4\\) is `x`.\n\n# Table\n\n| n | m |\n|:--|--:|\n| 1 | 2 |\n\nשלום עולם\n"
BROKEN = """
const broken = [];
for (const e of document.querySelectorAll('.answers > button, .wrong > summary')) {
  const walk = document.createTreeWalker(e, NodeFilter.SHOW_TEXT);
  for (let n = walk.nextNode(); n; n = walk.nextNode()) {
    for (const m of n.textContent.matchAll(/\\S+/g)) {
      const r = document.createRange();
      r.setStart(n, m.index); r.setEnd(n, m.index + m[0].length);
      if (new Set([...r.getClientRects()].map(b => Math.round(b.top))).size > 1) broken.push(m[0]);
    }
  }
}
return broken;
"""
ROOM = """
const dock = document.querySelector('.dock'), box = dock.getBoundingClientRect();
const stays = getComputedStyle(dock).position === 'sticky';
return (stays ? innerHeight - box.height : innerHeight) / innerHeight;
"""
RANKS = """
return [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].filter(e => e.checkVisibility()).map(e => +e.tagName[1])
"""


@pytest.mark.parametrize("kind", ["pop", "preference", "rating"])
def test_buttons_keep_their_words_and_the_task_has_room(browser, serve, make_site, kind: str) -> None:
    """Between phone and desk, in landscape, and a screen of 1280 by 1024 at 200% and 400%."""
    site = make_site(kind, items=2, **({"scale": 10} if kind == "rating" else {}))
    look(browser)
    sign_in(browser, serve(site), site.add("anna")[1])
    for width, height in (
        (721, 900),
        (768, 1024),
        (900, 700),
        (1000, 700),
        (1024, 768),
        (844, 390),
        (640, 512),
        (320, 256),
    ):
        look(browser, width, height)
        wait(lambda width=width: browser.execute_script("return innerWidth") == width)
        assert browser.execute_script(BROKEN) == [], (width, height)
        assert browser.execute_script(ROOM) > 0.6, (width, height)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("kind", ["pop", "preference", "rating"])
def test_rich_texts_keep_to_the_page(browser, serve, make_site, kind: str) -> None:
    """Nothing that the content policy refuses, no heading that skips a rank, every paragraph in its own direction."""
    rows = [{"id": str(i), "prompt": RICH, "chosen": RICH + "a", "rejected": RICH + "b"} for i in range(2)]
    site = make_site(kind, rows=rows)
    look(browser)
    sign_in(browser, serve(site), site.add("anna")[1])
    assert complaints(browser) == []
    ranks = browser.execute_script(RANKS)
    assert 3 in ranks and all(after - before <= 1 for before, after in itertools.pairwise(ranks))
    text = browser.execute_script("return document.querySelector('.response .text').innerText")
    assert "\\(a_1 + 2*3*4\\)" in text
    aligned = "return getComputedStyle(document.querySelector('.response td.right')).textAlign"
    assert browser.execute_script(aligned) == "right"
    assert browser.execute_script(
        "const p = [...document.querySelectorAll('.response .text p')].find(e => e.textContent.includes('שלום'));"
        "const r = document.createRange(); r.selectNodeContents(p);"
        "return r.getBoundingClientRect().right > p.getBoundingClientRect().right - 2"
    )
    press(browser, "t")
    shown = "return [...document.querySelectorAll('#task .raw')].map(e => e.innerText).join()"
    wait(lambda: "### Answer" in browser.execute_script(shown))
    hidden = "return [...document.querySelectorAll('#task .text')].some(e => e.checkVisibility())"
    assert not browser.execute_script(hidden)
    press(browser, "t")
    wait(lambda: browser.execute_script(hidden))


def test_differences_are_marked_where_most_is_common(browser, serve, make_site) -> None:
    rows = [
        {"id": "0", "prompt": "q", "chosen": WORDS, "rejected": WORDS.replace("lazy", "idle")},
        {"id": "1", "prompt": "q", "chosen": WORDS, "rejected": "Something else entirely, said in other terms."},
    ]
    site = make_site("preference", rows=rows)
    look(browser)
    sign_in(browser, serve(site), site.add("anna")[1])
    seen = {}
    for _ in rows:
        text = browser.execute_script("return document.getElementById('task').innerText")
        seen["Something" in text] = browser.execute_script("return document.getElementById('differences').checked")
        press(browser, "d")  # asked for, or not wanted
        press_and_wait(browser, "3")
    assert seen == {False: True, True: False}


def test_a_second_tab_replaces_nothing_unseen(browser, serve, make_site) -> None:
    """And what was done is shown to those who see, too."""
    site = make_site("preference", items=3)
    person, token = site.add("anna")
    server = serve(site)
    look(browser)
    sign_in(browser, server, token)
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get(server.url)
    wait(lambda: task(browser) == "1" and browser.find_elements("css selector", "html.scripted"))
    press_and_wait(browser, "2")
    said = "return document.getElementById('said').textContent"
    wait(lambda: browser.execute_script(said) == "Saved.")
    browser.close()
    browser.switch_to.window(first)
    stands = site.store.history(person.id)[0].label
    press(browser, "1")
    wait(lambda: task(browser) == "stale")
    assert "It stands as Response 2" in browser.execute_script("return document.getElementById('task').innerText")
    wait(lambda: browser.execute_script(said) == "Not saved.")
    assert site.store.history(person.id)[0].label == stands
    press(browser, "r")  # replace it
    wait(lambda: task(browser) == "2")
    assert site.store.history(person.id)[0].label.revision == 2
    press_and_wait(browser, "s")
    wait(lambda: browser.execute_script(said) == "Skipped.")
