"""Pages of an annotator, without scripts: every form is a plain one."""

import re
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from web_site import Site

from popmargin.label.web.screen import screen_of, verdict_of


def fields(html: str, action: str) -> dict[str, str]:
    """Hidden fields of the form with this action."""
    form = re.search(rf'<form[^>]*action="[^"]*{action}".*?</form>', html, re.DOTALL)
    assert form, action
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form[0]))


def number(html: str) -> str:
    found = re.search(r'data-number="(\d+)"', html)
    return found[1] if found else "finished"


def answer(client: TestClient, choice: str, **changes: str) -> str:
    html = client.get("/").text
    response = client.post("/answer", data={**fields(html, "/answer"), "choice": choice, **changes})
    assert response.status_code == 200, response.text
    return response.text


def test_label_everything(site: Site) -> None:
    person, token = site.add("anna")
    client = site.client(token)
    for choice in ("left", "right", "tie", "unsure", "wrong-left", "wrong-both"):
        answer(client, choice, note=f"because {choice}")
    assert "Nothing left to do" in client.get("/").text
    rows = site.store.labels(site.project.id).to_pylist()
    assert len(rows) == 6
    for assignment in site.store.history(person.id):
        label = assignment.label
        choice = label.note.removeprefix("because ")
        assert (label.verdict, label.wrong) == verdict_of(choice, assignment)
        assert label.seconds is not None and 0 <= label.seconds < 60
    assert site.store.progress(site.project.id, person.id).own_done == 6


def test_the_screen_shows_what_the_stored_order_says(site: Site) -> None:
    person, token = site.add("anna")
    client = site.client(token)
    for _ in range(6):
        html = client.get("/").text
        screen = screen_of(site.store.next_assignment(person.id))
        texts = [text for side in screen.sides for text in (side.prompt, *(r.text for r in side.responses))]
        shown = re.sub("<[^>]*>", "", html)
        places = [shown.index(str(text)) for text in texts]
        assert places == sorted(places)
        answer(client, "tie")


def test_a_refresh_shows_the_same_task(site: Site) -> None:
    _person, token = site.add("anna")
    client = site.client(token)
    answer(client, "left")
    pages = [client.get("/").text for _ in range(3)]
    assert {number(page) for page in pages} == {"2"}
    # Also in a browser that has signed in anew, and after a restart: nothing of a session is in the server.
    assert number(site.client(token).get("/").text) == "2"


def test_the_same_request_again_saves_nothing_new(site: Site) -> None:
    _person, token = site.add("anna")
    client = site.client(token)
    data = {**fields(client.get("/").text, "/answer"), "choice": "left"}
    for _ in range(3):
        assert client.post("/answer", data=data).status_code == 200
    assert site.store.labels(site.project.id).num_rows == 1
    assert site.store.label_history(site.project.id).num_rows == 1
    assert number(client.get("/").text) == "2"


def test_skip_comes_back_and_is_not_done(site: Site) -> None:
    person, token = site.add("anna")
    client = site.client(token)
    html = client.get("/").text
    first = fields(html, "/skip")
    assert client.post("/skip", data=first).status_code == 200
    assert client.post("/skip", data=first).status_code == 200  # a second press
    progress = site.store.progress(site.project.id, person.id)
    assert (progress.own_done, progress.own_skipped) == (0, 1)
    for _ in range(5):
        answer(client, "tie")
    assert fields(client.get("/").text, "/skip")["assignment"] == first["assignment"]
    answer(client, "tie")
    assert number(client.get("/").text) == "finished"


def test_undo_shows_the_task_again_with_its_note(site: Site) -> None:
    _, token = site.add("anna")
    client = site.client(token)
    answer(client, "left", note="hasty")
    html = client.post("/undo", data=fields(client.get("/").text, "/undo")).text
    assert number(html) == "1"
    assert ">hasty</textarea>" in html
    assert site.store.labels(site.project.id).num_rows == 0
    answer(client, "right")
    assert number(client.get("/").text) == "2"


def test_undo_with_nothing_to_undo(site: Site) -> None:
    _, token = site.add("anna")
    client = site.client(token)
    assert client.post("/undo", data=fields(client.get("/").text, "/undo")).status_code == 200


def test_an_earlier_answer_is_changed(site: Site) -> None:
    person, token = site.add("anna")
    client = site.client(token)
    answer(client, "left", note="first thought")
    answer(client, "tie")
    html = client.get("/history").text
    link = re.search(r'href="(/item/\d+)">1<', html)
    assert link and "Pair 1" in html and "first thought" in html
    page = client.get(link[1]).text
    assert 'aria-pressed="true"' in page and ">first thought</textarea>" in page
    after = client.post("/answer", data={**fields(page, "/answer"), "choice": "wrong-right", "note": "second"})
    assert after.url.path == "/history" and "Pair 2 is wrong" in after.text and "changed" in after.text
    assert number(client.get("/").text) == "3"  # the open task is the same as before
    changed = next(a for a in site.store.history(person.id) if a.number == 1)
    assert changed.label.revision == 2 and changed.label.note == "second"


def level(html: str) -> list[str]:
    """The level of "how sure" that is chosen on the page."""
    return re.findall(r'name="confidence" value="([\d.]+)"[^>]*checked', html)


def test_how_sure_is_stored_and_comes_back(site: Site) -> None:
    client = site.client(site.add("anna")[1])
    assert level(client.get("/").text) == []
    answer(client, "left")  # nothing said, nothing stored
    answer(client, "right", confidence="0.75")
    html = client.post("/undo", data=fields(client.get("/").text, "/undo")).text
    assert number(html) == "2" and level(html) == level(client.get("/").text) == ["0.75"]
    answer(client, "tie", confidence="0.5")
    history = client.get("/history").text
    assert history.count('"tag">guessing<') == 1 and "sure" not in history.split("<tbody>")[1].split("</tbody>")[0]
    page = client.get(re.search(r'href="(/item/\d+)">2<', history)[1]).text
    assert level(page) == ["0.5"]
    client.post("/answer", data={**fields(page, "/answer"), "choice": "tie", "confidence": "1.0"})
    assert site.store.labels(site.project.id)["confidence"].to_pylist() == [None, 1.0]
    page = client.get(re.search(r'href="(/item/\d+)">2<', history)[1]).text
    client.post("/answer", data={**fields(page, "/answer"), "choice": "tie"})  # taken back
    assert site.store.labels(site.project.id)["confidence"].to_pylist() == [None, None]
    assert site.store.label_history(site.project.id)["confidence"].to_pylist() == [None, 0.75, 0.75, 0.5, 1.0, None]


def test_a_confidence_of_another_client_shows_as_the_nearest_level(site: Site) -> None:
    person, token = site.add("anna")
    assignment = site.store.next_assignment(person.id)
    site.store.record(person.id, assignment.id, "first", request="request-1", confidence=0.9)
    assert level(site.client(token).get(f"/item/{assignment.id}").text) == ["1.0"]


def test_history_goes_by_fifty(make_site: Callable[..., Site]) -> None:
    site = make_site(items=52)
    person, token = site.add("anna")
    client = site.client(token)
    for index in range(52):
        assignment = site.store.next_assignment(person.id)
        site.store.record(person.id, assignment.id, "tie", request=f"request-{index}")
    html = client.get("/history").text
    assert html.count("<tr id=") == 50
    older = re.search(r'href="(/history\?before=\d+)"', html)
    assert client.get(older[1]).text.count("<tr id=") == 2


def test_two_people_never_see_each_others_tasks(make_site: Callable[..., Site]) -> None:
    site = make_site(overlap=2)
    (_, anna), (_, ben) = site.add("anna"), site.add("ben")
    first, second = site.client(anna), site.client(ben)
    foreign = fields(first.get("/").text, "/answer")
    own = fields(second.get("/").text, "/answer")
    assert (
        second.post("/answer", data={**own, "assignment": foreign["assignment"], "choice": "left"}).status_code == 404
    )
    assert second.get(f"/item/{foreign['assignment']}").status_code == 404
    assert site.store.labels(site.project.id).num_rows == 0


def test_preferences_are_blind_and_have_no_wrong(make_site: Callable[..., Site]) -> None:
    site = make_site("preference", items=2)
    _, token = site.add("anna")
    client = site.client(token)
    html = client.get("/").text
    assert "Which response is better?" in html and "Preferred" not in html and "wrong-left" not in html
    refused = client.post("/answer", data={**fields(html, "/answer"), "choice": "wrong-left"})
    assert refused.status_code == 409 and "about pairs" in refused.text
    answer(client, "right")
    assert site.store.labels(site.project.id).num_rows == 1


def test_guidelines_are_rendered_and_conversations_show_roles(make_site: Callable[..., Site]) -> None:
    turn = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    rows = [
        {"id": str(i), "prompt": turn, "chosen": [{"role": "assistant", "content": f"Hello {i}"}],
         "rejected": [{"role": "assistant", "content": f"No {i}"}]}
        for i in range(2)
    ]  # fmt: skip
    site = make_site(rows=rows)
    html = site.client(site.add("anna")[1]).get("/").text
    assert "Be <strong>kind</strong>." in html
    assert '<p class="role">system</p>' in html and '<p class="role">assistant</p>' not in html


@pytest.mark.parametrize(
    "change",
    [
        {"choice": "up"},
        {"assignment": "x"},
        {"key": "<>"},
        {"assignment": str(2**70)},
        {"confidence": "1.5"},
        {"confidence": "nan"},
    ],
)
def test_nonsense_is_refused_without_an_error_of_the_server(site: Site, change: dict[str, str]) -> None:
    client = site.client(site.add("anna")[1])
    data = {**fields(client.get("/").text, "/answer"), "choice": "left", **change}
    assert client.post("/answer", data=data).status_code == 422
    assert site.store.labels(site.project.id).num_rows == 0


def test_odd_notes_are_kept(site: Site) -> None:
    person, token = site.add("anna")
    answer(site.client(token), "left", note=" NUL \x00 <b>&amp; 🙂\u2028 ")
    assert site.store.history(person.id)[0].label.note == "NUL  <b>&amp; 🙂"


def test_behind_a_proxy_with_a_prefix(make_site: Callable[..., Site]) -> None:
    site = make_site(root_path="/label")
    person, token = site.add("anna")
    site.store.acknowledge(person.id, 1)
    for prefix in ("", "/label"):  # proxies that take the prefix off, and proxies that do not
        client = TestClient(site.app, base_url="https://labels.example")
        page = client.get(f"{prefix}/login/{token}")
        assert "url=/label/" in page.text
        cookie = page.headers["set-cookie"]
        assert "Path=/label/" in cookie and "Secure" in cookie
        client.cookies.clear()
        client.headers["cookie"] = cookie.partition(";")[0]
        html = client.get(f"{prefix}/").text
        assert set(re.findall(r'(?:href|action|src)="(/[^"]*?)/?"', html)) >= {
            "/label/static/annotate.js",
            "/label/answer",
        }
        assert not re.findall(r'(?:href|action|src)="/(?!label)', html)
        assert client.get(f"{prefix}/static/annotate.css").status_code == 200


def test_what_was_done_is_confirmed_once_without_scripts(site: Site) -> None:
    client = site.client(site.add("anna")[1])
    said = re.compile(r'<p id="said" class="said"[^>]*>([^<]*)</p>')
    shown = said.search(answer(client, "left"))
    assert shown is not None and shown[1] == "Saved." and "aria-hidden" not in shown[0]
    for path, words in (("/skip", "Skipped."), ("/undo", "Last answer taken back.")):
        assert said.search(client.get("/").text)[1] == ""  # a reloaded page has said it
        html = client.post(path, data=fields(client.get("/").text, path)).text
        assert said.search(html)[1] == words
    assert (
        said.search(client.post("/undo", data=fields(client.get("/").text, "/undo")).text)[1] == ""
    )  # nothing to undo
