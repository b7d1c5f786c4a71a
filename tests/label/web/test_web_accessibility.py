"""axe-core over the screens of the annotator: nothing serious, small and large, light and dark.

axe-core (MPL-2.0) is not part of this project: `npm install axe-core` in the root of the repository, or name a file in
POPMARGIN_AXE.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn")

from browsing import look, sign_in, task, wait
from web_site import ADMIN

from chromium import MARKS
from popmargin.label.language.page_texts import read_language
from popmargin.label.quality.label_quality import label_quality
from popmargin.label.quality.report_page import write_label_report
from popmargin.label.store.criteria import criteria_of

_FOUND = Path(__file__).parents[3] / "node_modules" / "axe-core" / "axe.min.js"
AXE = Path(os.environ.get("POPMARGIN_AXE", _FOUND))
pytestmark = [
    *MARKS,
    pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core: npm install axe-core, or POPMARGIN_AXE=…/axe.min.js"),
]
LOOKS = [(width, height, scheme) for width, height in ((390, 844), (1366, 768)) for scheme in ("light", "dark")]
RUN = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ['violations']}).then(found => done(found.violations.flatMap(
  v => v.nodes.map(n => [v.impact, v.id, n.html.slice(0, 120), n.failureSummary]))));
"""
CRITERIA = criteria_of([("right", "Which is right?"), ("polite", "Which is more polite?")])
PROJECTS: list[tuple[str, dict[str, Any]]] = [
    ("pop", {}),
    ("preference", {"grades": True, "language": read_language("de")}),
    ("rating", {"scale": 10}),
    ("rank", {}),
    ("preference", {"criteria": CRITERIA}),
]
ANSWERS: dict[str, Any] = {"rating": "4", "rank": "2>1>4>3"}
LONG = "A *sentence* that goes on, with `code`, and [a link](https://example.org). " * 4
CODE = "line = 1\n" * 30
TABLE = "| a | b |\n|---|--:|\n" + "| wide cell | 12 |\n" * 3


def serious(browser: Any, name: str) -> Iterator[str]:
    """What axe finds that is serious or critical, in every look."""
    if not browser.execute_script("return !!window.axe"):
        browser.execute_script(AXE.read_text(encoding="utf-8"))
    browser.set_script_timeout(200)
    for width, height, scheme in LOOKS:
        look(browser, width, height, scheme)
        for impact, *rest in browser.execute_async_script(RUN):
            if impact in ("serious", "critical"):
                yield f"{name} at {width}, {scheme}: {rest}"


def rows(count: int) -> list[dict[str, Any]]:
    text = f"{LONG}\n\n{TABLE}\n\n```python\n{CODE}\n```"
    return [
        {"id": f"p{i}", "prompt": f"Question {i}?", "chosen": text, "rejected": f"Other {i}: {LONG}"}
        for i in range(count)
    ]


def test_no_screen_has_a_serious_fault(browser, serve, make_site, tmp_path: Path) -> None:
    found: list[str] = []
    for kind, settings in PROJECTS:
        site = make_site(kind, rows=rows(4), **settings)
        person, token = site.add("anna", example=False)
        server = serve(site)
        sign_in(browser, server, token)
        if kind == "pop":
            assert task(browser) == "example"
            found += serious(browser, "example")
            site.store.note_example(person.id)
            browser.get(server.url)
        wait(lambda: task(browser) == "1")
        found += serious(browser, kind)
        while (now := site.store.next_assignment(person.id)) is not None:
            said = ANSWERS.get(kind, "first")
            more = {"criteria": {"polite": "second"}} if "criteria" in settings else {}
            site.store.record(person.id, now.id, said, request=f"answer-{now.id}", **more)
        pages = {"/history": "history", f"/item/{site.store.history(person.id)[0].id}": None, "/": "finished"}
        for path, shown in pages.items() if kind == "pop" else ():
            browser.get(server.url + path)
            wait(lambda shown=shown: shown is None or task(browser) == shown)
            found += serious(browser, path)
        if kind == "pop":
            sign_in(browser, server, ADMIN)
            wait(lambda: browser.find_elements("css selector", "#quality table"))
            found += serious(browser, "admin")
            for path in ("/admin/items", f"/admin/items/{site.store.history(person.id)[0].item}"):
                browser.get(server.url + path)
                wait(lambda: browser.find_elements("css selector", "main h1, main h2"))
                found += serious(browser, path)
            browser.get(server.url + "/signed-out")
            found += serious(browser, "signed out")
        page = tmp_path / f"{kind}.html"
        write_label_report(label_quality(site.store.labels(site.project.id)), page, kind)
        browser.get(page.as_uri())
        found += serious(browser, f"report of {kind}")
    assert found == []
