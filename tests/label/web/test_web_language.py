"""The words of the annotators' pages come from the language's file: in one of marks no word of English is left."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jinja2
import pytest
from jinja2 import nodes
from test_web_pages import answer, fields
from web_site import ADMIN, Site, image_rows, preferences_of, rows_of

import popmargin
from popmargin.errors import ConfigError
from popmargin.label.language.page_texts import SHIPPED, check, read_language, shipped, texts_of
from popmargin.label.store.criteria import criteria_of
from popmargin.label.store.database import AwayError
from popmargin.label.web.app import create_app
from popmargin.label.web.view import environment

LABEL = Path(popmargin.__file__).parent / "label"
TEMPLATES = {path.name for path in (LABEL / "web" / "templates").glob("*.html.j2")}
OF_THE_LEAD = {"admin.html.j2", "items.html.j2", "item.html.j2", "quality.html.j2"}
"""Pages that are in English alone; every other template takes its words from a file."""
ENGLISH = shipped("en").by_key
TECHNICAL = {
    "action", "aria-current", "aria-hidden", "aria-labelledby", "aria-pressed", "autocomplete", "checked", "class",
    "content", "data-assignment", "data-draggable", "data-enlarge", "data-group", "data-guidelines", "data-images",
    "data-keys", "data-kind", "data-load", "data-number", "data-pick", "data-place", "data-toggle", "data-version",
    "data-zoom", "decoding", "defer", "dir", "draggable", "for", "form", "height", "hidden", "href", "http-equiv",
    "hx-post", "hx-select", "hx-swap", "hx-target", "id", "lang", "loading", "max", "maxlength", "method", "name",
    "open", "rel", "required", "role", "rows", "scope", "src", "tabindex", "target", "type", "value", "width",
    "charset", "aria-live", "formnovalidate", "data-distinct",
}  # fmt: skip
"""Attributes that hold no words; a new one belongs here, or its words into the language's file."""


def marked() -> str:
    """A language whose texts are marks around their places, written from right to left."""
    texts = {key: "⟦" + " ".join(re.findall(r"\{\w+\}", text)) + "⟧" for key, text in ENGLISH.items()}
    return json.dumps(texts | {"lang": "qqx", "dir": "rtl"})


class Words(HTMLParser):
    """The words of a page that people see or hear."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [f"{name}={value}" for name, value in attrs if name not in TECHNICAL and value]
        if tag in ("kbd", "title", "script", "style"):
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if not self.inside or self.inside[-1] == "title" or (self.inside[-1] == "kbd" and len(data) > 1):
            self.found.append(data)


def english(html: str, own: list[str]) -> list[str]:
    """What has letters but is neither marked nor one of the project's own texts."""
    left: list[str] = []
    for words in Words(html).found:
        name, equals, value = words.partition("=")
        text = value if equals and re.fullmatch(r"[a-z-]+", name) else words
        for known in sorted(own, key=len, reverse=True):
            text = text.replace(known, "")
        if re.search(r"[^\W\d_]", text):
            left.append(words)
    return left


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of templates that pages were made from."""
    used, get = set[str](), environment().get_template

    def get_template(name: Any, *rest: Any, **more: Any) -> jinja2.Template:
        used.add(name)
        return get(name, *rest, **more)

    monkeypatch.setattr(environment(), "get_template", get_template)
    return used


def beside(
    site: Site, kind: str = "pop", items: int = 2, rows: list[dict[str, Any]] | None = None, **more: Any
) -> Site:
    """Another project in the same store, in the language of marks."""
    scale = {"scale": 5} if kind == "rating" else {}
    name = f"demo {len(site.store.projects())}"
    project = site.store.create_project(name, guidelines="«g»", language=marked(), **{**scale, **more})
    rows = rows or rows_of(2 * items)
    site.store.import_preferences(project.id, preferences_of(rows))
    ids = [row["id"] for row in rows]
    asked: dict[str, Any] = {"response": ["chosen"] * len(ids)} if kind == "rating" else {}
    if kind == "rank":
        ids, asked = ids[:1], {"others": [ids[1:]]}
    site.store.add_items(
        project.id, kind, ids[0::2] if kind == "pop" else ids, ids[1::2] if kind == "pop" else None, **asked
    )
    return replace(site, project=project)


def tasks(first: Site) -> Iterator[tuple[str, str]]:
    """A page for every kind of task, with all that can stand on it."""
    criteria = criteria_of([("clear", "«a»?"), ("kind", "«b»?")])
    turns = [{"role": role, "content": "«p»"} for role in ("user", "assistant", "user")]
    talk = [
        {"id": f"t{i}", "prompt": turns, "chosen": [{"role": "assistant", "content": f"«c{i}»"}],
         "rejected": [{"role": "assistant", "content": f"![«r{i}»](https://example.org/1)"}]}
        for i in range(2)
    ]  # fmt: skip
    sites = {
        "pop": beside(first, rows=talk),
        "pop, reworded": beside(first, wording="«w»"),
        "graded": beside(first, "preference", grades=True, both_bad=True),
        "plain": beside(first, "preference", both_bad=True),
        "rating": beside(first, "rating", scale=10),
        "ranking": beside(first, "rank", items=3),
        "ranked images": beside(first, "rank", rows=image_rows(3), wording="«w»"),
        "criteria": beside(first, "preference", criteria=criteria),
        "pop of images": beside(first, rows=image_rows(2)),
        "images": beside(first, "preference", rows=image_rows(1), wording="«w»"),
        "rated images": beside(first, "rating", rows=image_rows(1), criteria=criteria),
    }
    for name, site in sites.items():
        client = site.client(site.add("«n»")[1])
        yield name, client.get("/").text
        html = client.get("/").text
        special = {"rating": "3", "rated images": "3", "graded": "right-2"}
        special |= {"ranking": "2>1>3>4>6>5", "ranked images": "2>3>1"}
        choice = special.get(name, "left")
        sent = (
            {"choice": choice} if not site.project.criteria else {f"criterion_{one.name}": choice for one in criteria}
        )
        if name == "plain":
            sent |= {"confidence": "0.75"}
        form = fields(html, "/answer")
        assert client.post("/answer", data={**form, **sent, "note": "«note»"}).status_code == 200
        for path in ("/history", f"/item/{form['assignment']}"):
            yield f"{path}, {name}", client.get(path).text
        stale = client.post("/answer", data={**form, **sent, "key": "another-key"})
        assert stale.status_code == 409
        yield f"stale, {name}", stale.text


def queues(first: Site) -> Iterator[tuple[str, str]]:
    """Skipped, disputed and decided tasks."""
    site = beside(first, "preference", rows=rows_of(1), overlap=2)
    number = site.project.id
    for name, choice in (("«ann»", "left"), ("«ben»", "right")):
        client = site.client(site.add(name)[1])
        html = client.get("/").text
        screen_swapped = site.store.assignment(
            site.store.annotators(number)[-1].id, int(fields(html, "/answer")["assignment"])
        ).shown.swap_first
        given = choice if not screen_swapped else {"left": "right", "right": "left"}[choice]
        answer(client, given, note="«note»")
        yield "nothing left", client.get("/").text
        yield "not an adjudicator", client.get("/disputed").text
    judge, token = site.add("«judge»")
    site.store.set_adjudicator(judge.id, True)
    client = site.client(token)
    yield "disputed", client.get("/disputed").text
    client.post("/decide", data=fields(client.get("/disputed").text, "/decide"))
    yield "votes", client.get("/").text
    site.store.change(number, who="x", votes_hidden=True)
    yield "hidden votes", client.get("/").text
    client.post("/skip", data=fields(client.get("/").text, "/skip"))
    yield "skipped", client.get("/skipped").text
    yield "no older", client.get("/history?before=1").text
    yield "no answers", client.get("/history").text


def states(first: Site) -> Iterator[tuple[str, str]]:
    """Before the first task, when there is none, and what goes wrong."""
    site = beside(first)
    store, number = site.store, site.project.id
    person, token = site.add("«n»", example=False)
    client = site.client()
    yield "signing in", client.get(f"/login/{token}").text
    client.cookies.clear()
    yield "not signed in", client.get(f"/p/{number}/").text
    yield "wrong link", client.get("/login/nobody").text
    client.get(f"/login/{token}")
    yield "guidelines", client.get("/").text
    client.post("/guidelines", data=fields(client.get("/").text, "/guidelines"))
    example = client.get("/")
    assert example.url.path.endswith("/example")
    yield "example", example.text
    client.post("/example", data=fields(example.text, "/example"))
    store.set_guidelines(number, "«new»", who="x")
    yield "new guidelines", client.get("/").text
    site.read(token)
    task = client.get("/").text
    form = fields(task, "/answer")
    yield "no such task", client.get("/item/999").text
    yield "no such page", client.get("/nowhere").text
    yield "no task", client.get("/item/x").text
    yield "no answer", client.post("/answer", data=form).text
    yield "another form", client.post("/answer", data={**form, "csrf": "x"}).text
    other = {"sec-fetch-site": "cross-site"}
    yield "another site", client.post("/answer", data=form, headers=other).text
    yield "too large", client.post("/answer", content=b"x" * (2 << 20)).text
    yield "no image", client.get(f"/images/{'0' * 32}").text
    given = {**form, "choice": "left"}
    client.post("/answer", data=given)
    yield "said", client.get("/").text
    yield "another answer", client.post("/answer", data={**given, "choice": "right"}).text
    yield "answered", client.post("/resume", data={"csrf": form["csrf"], "assignment": form["assignment"]}).text
    store.set_quota(person.id, 1)
    yield "part done", client.get("/").text
    store.set_quota(person.id, None)
    for state in ("paused", "archived"):
        store.change(number, who="x", state=state)
        yield state, client.get(f"/p/{number}/").text
    yield "archived answer", client.post(f"/p/{number}/answer", data={**given, "key": "another-key"}).text
    store.change(number, who="x", state="open")
    second = store.create_project("«second»", language=marked())
    _, more = store.add_annotator(second.id, "«n»")
    client.get(f"/login/{more}")
    store.change(second.id, who="x", state="paused")
    yield "projects", client.get("/").text
    client.post(f"/p/{number}/logout", data={"csrf": form["csrf"]})
    yield "signed out", client.get("/signed-out").text
    store.set_active(person.id, False)
    yield "switched off", client.get(f"/login/{token}").text


def training(first: Site) -> Iterator[tuple[str, str]]:
    """The known answer after one's own, and waiting for the lead."""
    site = beside(first, "preference")
    number = site.project.id
    items = [row["item"] for batch in site.store.items(number) for row in batch.to_pylist()]
    site.store.set_gold(number, dict.fromkeys(items[:2], "first"))
    site.store.change(number, who="x", training=2, passing=1.0)
    client = site.client(site.add("«n»")[1])
    for _ in range(2):
        yield "told", answer(client, "tie")
    yield "waiting", client.get("/").text


OWN = [
    "demo", "«n»", "«p»", "«q»", "«w»", "«note»", "«ann»", "«ben»", "«judge»", "«a»", "«b»", "«new»", "«second»",
    "Prompt number ", "Good answer", "Poor reply", "clear", "kind", "example.org", "UTC", "«g»",
    "c0", "c1", "r0", "r1", "{images}",
]  # fmt: skip


def test_no_page_of_an_annotator_has_a_word_of_english(
    make_site: Callable[..., Site], rendered: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages, left = dict[str, str](), dict[str, list[str]]()
    site = make_site(language=marked(), items=1)
    for part in (tasks, queues, states, training):
        for name, html in part(site):
            pages[name] = html
            left |= {} if 'lang="qqx" dir="rtl"' in html else {name: ["another language"]}
            # Texts as they are written, and a message that says it is English.
            html = re.sub(
                r'<div class="raw".*?</div>|<p class="soft" lang="en" dir="ltr">.*?</p>', "", html, flags=re.S
            )
            left |= {name: words} if (words := english(html, OWN)) else {}
    assert left == {}
    assert '<p class="role">⟦⟧</p>' in pages["pop"]
    client = site.client(site.add("«n»")[1])
    monkeypatch.setattr(site.store, "annotator_of", lambda _: (_ for _ in ()).throw(AwayError("gone")))
    away = client.get(f"/p/{site.project.id}/")
    assert away.status_code == 503 and 'lang="qqx"' in away.text and english(away.text, OWN) == []
    assert rendered == TEMPLATES - OF_THE_LEAD, "every screen of annotators is asked for above"


@pytest.mark.parametrize("name", sorted(TEMPLATES - OF_THE_LEAD))
def test_templates_of_annotators_have_no_words_of_their_own(name: str) -> None:
    """Also in branches that no page above has reached; the lead's bar, which annotators do not see, aside."""
    source = (LABEL / "web" / "templates" / name).read_text(encoding="utf-8")
    source = re.sub(r"{% macro admin_bar.*?{% endmacro %}", "", source, flags=re.DOTALL)
    tree = environment().parse(source)
    texts = "".join(
        part.data if isinstance(part, nodes.TemplateData) else "0"
        for output in tree.find_all(nodes.Output)
        for part in output.nodes
    )
    assert english(texts, ["popmargin", "—"]) == []


def test_every_text_is_used_and_every_used_text_exists() -> None:
    sources = [path.read_text(encoding="utf-8") for path in LABEL.rglob("*") if path.suffix in (".py", ".j2")]
    source = "\n".join(sources)
    used = set(re.findall(r'\bt(?:\.said)?\("(\w+)"(?! ~)', source))
    used |= set(re.findall(r'(?:Sentence\(|refused\(\d+, |texts\.said\(|texts\()"(\w+)"', source))
    assert used - ENGLISH.keys() == set()
    begun = {first or second for first, second in re.findall(r'f"([a-z_]+)\{|"([a-z_]+_)" ~', source)}
    named = set(re.findall(r'"(\w+)"', source))
    unused = [key for key in ENGLISH if key not in named and not any(key.startswith(start) for start in begun)]
    assert [key for key in unused if not re.fullmatch(r"(response|image)_[12]|rule_\w+", key)] == []


def test_scripts_have_no_words() -> None:
    for path in (LABEL / "web" / "static").glob("*.js"):
        if path.name == "htmx.min.js":
            continue
        code = re.sub(r"^\s*//.*$|\s// .*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        quoted = re.findall(r'"([^"\n]*)"|`([^`]*)`', code)
        said = [
            text
            for pair in quoted
            for text in pair
            if re.search(r"^[A-Z][a-z]+ |[a-z]{2,} [a-z]{2,} [a-z]{2,}|[a-z][.!?] ?$", text)
        ]
        assert said == [], path.name


@pytest.mark.parametrize("tag", SHIPPED)
def test_shipped_languages_are_whole(tag: str) -> None:
    assert shipped(tag).lang == tag  # it is checked when it is read
    same = [key for key, text in shipped(tag).by_key.items() if text == ENGLISH[key]]
    assert tag == "en" or set(same) <= {"dir", "key_enter", "key_escape"}


def test_what_is_wrong_with_a_file_is_named(tmp_path: Path) -> None:
    def said(**changes: Any) -> str:
        texts = {key: text for key, text in {**ENGLISH, **changes}.items() if text is not None}
        with pytest.raises(ConfigError) as error:
            check(texts, "fr.yaml")
        return str(error.value)

    assert "fr.yaml: 1 text cannot be used:\n  skip: missing. In English: Skip" in said(skip=None)
    assert "safe: no such text. Did you mean save?" in said(safe="x")
    assert "tie: 3 is no text. Put it in quotes." in said(tie=3)
    assert "task: there is no place {nummer}. Places of this text: {number}." in said(task="Aufgabe {number} {nummer}")
    assert "task: the place {number} is missing. In English: Task {number}" in said(task="Aufgabe")
    assert "task: the place {number} stands there twice" in said(task="{number} {number}")
    assert "raw: expected '}' before end of string. Write a brace" in said(raw="a {b")
    assert "task: {number.x} is no name of a place" in said(task="{number.x}")
    assert "lang: 'Deutsch' is no tag" in said(lang="Deutsch") and "dir: 'left'" in said(dir="left")
    assert "and 2 more" in said(**dict.fromkeys(list(ENGLISH)[2:12]))
    with pytest.raises(ConfigError, match="there is no such file, and popmargin has en and de only"):
        read_language(str(tmp_path / "fr.yaml"))
    (tmp_path / "two.yaml").write_text("skip: a\nskip: b\n")
    with pytest.raises(ConfigError, match="the key 'skip' appears twice"):
        read_language(str(tmp_path / "two.yaml"))


def test_projects_of_one_server_have_languages_of_their_own(make_site: Callable[..., Site]) -> None:
    site = make_site("preference", language="de")
    other = site.store.create_project("other", language="en")
    site.store.import_preferences(other.id, preferences_of(rows_of(2)))
    site.store.add_items(other.id, "preference", ["p0", "p1"])
    client = site.client(site.add("anna")[1])
    page = client.get("/").text
    assert '<html lang="de" dir="ltr">' in page and "Welche Antwort ist besser?" in page
    token = site.store.add_annotator(other.id, "anna")[1]
    assert "Continue" in client.get(f"/login/{token}").text
    assert "Which response is better?" in client.get(f"/p/{other.id}/").text
    assert "Welche Antwort ist besser?" in client.get(f"/p/{site.project.id}/").text
    site.store.change(other.id, who="lead", language=marked())  # while the server runs
    assert "⟦better" not in client.get(f"/p/{other.id}/").text and 'dir="rtl"' in client.get(f"/p/{other.id}/").text
    assert [(one.setting, one.before, one.after) for one in site.store.changes(other.id)] == [("language", "en", "qqx")]
    assert '<html lang="en"' in site.client(ADMIN).get("/admin").text
    assert client.get("/api/next", headers={"authorization": "Bearer nobody"}).json()["error"].startswith("You are not")


def test_from_right_to_left_the_arrows_follow_the_screen(make_site: Callable[..., Site]) -> None:
    """The first side stands on the right there."""
    site = make_site("preference")
    for one, keys in ((site, "1 ArrowLeft"), (beside(site, "preference"), "1 ArrowRight")):
        page = one.client(one.add("anna")[1]).get("/").text
        assert f'value="left" class="main" data-keys="{keys}"' in page


def test_a_language_that_lacks_a_new_text_is_refused_at_the_start(make_site: Callable[..., Site]) -> None:
    site = make_site()
    old = json.loads(marked())
    del old["skip"]
    with site.store._database._connect() as connection, connection.begin():
        connection.exec_driver_sql("UPDATE project SET language = ?", (json.dumps(old),))
    with pytest.raises(ConfigError, match="the language of project 'demo': 1 text cannot be used:\n  skip: missing"):
        create_app(site.store)
    assert texts_of("de").lang == "de"
