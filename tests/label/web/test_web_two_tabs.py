"""A second tab, a reload, a return after hours: no answer is replaced unseen, and times are those of the work."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from test_web_pages import answer, fields, number
from web_site import ADMIN, Site

from popmargin.label.store.answers import StaleAnswerError
from popmargin.label.web import view


@pytest.mark.parametrize("stands", ["answered", "changed", "withdrawn"])
def test_a_stale_tab_says_what_stands_and_asks(make_site: Callable[..., Site], stands: str) -> None:
    """Its task was answered in another tab, or changed there after both had it; if it was withdrawn, nothing stands."""
    site = make_site("preference", items=3)
    _, token = site.add("anna")
    client = site.client(token)
    first = client.get("/").text
    task = fields(first, "/answer")
    answer(client, "right", note="considered")
    if stands != "answered":
        link = re.search(r'href="(/item/\d+)">1<', client.get("/history").text)[1]
        task = fields(client.get(link).text, "/answer")
        client.post(
            "/answer", data={**fields(client.get(link).text, "/answer"), "choice": "right", "note": "considered"}
        )
    if stands == "withdrawn":
        client.post("/undo", data=fields(client.get("/").text, "/undo"))
    before = site.store.label_history(site.project.id).num_rows
    page = client.post("/answer", data={**task, "choice": "left", "note": "hasty"})
    if stands == "withdrawn":
        assert page.status_code == 200 and site.store.labels(site.project.id)["note"].to_pylist() == ["hasty"]
        return
    assert page.status_code == 409 and site.store.label_history(site.project.id).num_rows == before
    assert "It stands as <strong>Response 2</strong>" in page.text and "“considered”" in page.text
    assert "You have now chosen <strong>Response 1</strong>" in page.text
    form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text))
    assert client.post("/answer", data=form).status_code == 200  # "Replace it"
    assert site.store.labels(site.project.id)["note"].to_pylist() == ["hasty"]
    assert site.store.label_history(site.project.id).num_rows == before + 1  # what stood is kept
    assert client.post("/answer", data=form).status_code == 200  # the same form again
    assert site.store.label_history(site.project.id).num_rows == before + 1


def test_the_api_and_the_store_refuse_a_stale_answer_if_they_are_told_what_was_seen(site: Site) -> None:
    person, token = site.add("anna")
    client = site.client()
    client.headers["authorization"] = f"Bearer {token}"
    task = client.get("/api/next").json()["task"]
    assert task["revision"] == 0
    body = {"assignment": task["assignment"], "choice": "left", "revision": 0}
    assert client.post("/api/labels", json={**body, "request": "request-1"}).json()["revision"] == 1
    refused = client.post("/api/labels", json={**body, "choice": "right", "request": "request-2"})
    assert refused.status_code == 409 and "was answered since this page was loaded" in refused.json()["error"]
    assert client.post("/api/labels", json={**body, "request": "request-1"}).status_code == 200  # a repetition
    without = {name: value for name, value in body.items() if name != "revision"}
    assert client.post("/api/labels", json={**without, "choice": "tie", "request": "request-3"}).status_code == 200
    with pytest.raises(StaleAnswerError):
        site.store.record(person.id, task["assignment"], "first", request="request-4", seen=1)


def test_earlier_answers_are_listed_as_they_stood_on_the_screen(make_site: Callable[..., Site]) -> None:
    site = make_site(items=12)
    person, token = site.add("anna")
    client, shown = site.client(token), dict[str, list[str]]()
    for _ in range(12):
        html = client.get("/").text
        shown[number(html)] = list(dict.fromkeys(re.findall(r"Prompt number \d+\?", html)))
        answer(client, "left")
    rows = client.get("/history").text.split('<tr id="n')[1:]
    assert len(rows) == 12
    for row in rows:
        assert re.findall(r"Prompt number \d+\?", row) == shown[row.partition('"')[0]]
        assert re.findall(r"([12]): Prompt", row) == ["1", "2"]
    assert any(one.shown.swap_pairs for one in site.store.history(person.id))


class Moving:
    """A time for the store and the pages, to turn."""

    def __init__(self) -> None:
        self.at = datetime(2026, 3, 1, 8, tzinfo=UTC)

    def now(self, zone: Any = None) -> datetime:
        return self.at

    def wait(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def test_a_time_counts_from_the_first_sending_without_idle_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed in again, undone, the page hidden: the time goes on, and what was idle is stored apart."""
    clock = Moving()
    monkeypatch.setattr(view, "datetime", clock)
    monkeypatch.setattr(site.store, "_clock", clock.now)
    _, token = site.add("anna")
    client = site.client(token)
    client.get("/")
    clock.wait(40)
    client = site.client(token)  # signs in again: the task is sent anew
    client.get("/")
    clock.wait(2)
    answer(client, "left")
    client.get("/")
    clock.wait(100)
    answer(client, "right", idle="70")  # the page says that it was hidden
    client.get("/")
    clock.wait(10)
    client.post("/undo", data=fields(client.get("/").text, "/undo"))  # the second is open again after 10 s
    clock.wait(5)
    answer(client, "tie")
    client.get("/")
    clock.wait(2)
    answer(client, "left", idle="1e6")  # no page is away longer than the task is open
    labels = site.store.labels(site.project.id)
    # The third was open for 10 s before the undo, 5 s meanwhile and 2 s after it.
    assert labels["seconds"].to_pylist() == pytest.approx([42.0, 105.0, 0.0])
    assert labels["idle"].to_pylist() == pytest.approx([0.0, 10.0, 17.0])
    assert site.store.label_history(site.project.id)["seconds"].to_pylist()[1] == pytest.approx(30.0)


def test_no_form_is_answered_by_a_page_that_sends_it_again(site: Site) -> None:
    """Every form of people and admin is answered by a redirect, so that reloading repeats nothing."""
    anna, token = site.add("anna")
    client, admin = site.client(token, follow_redirects=False), site.client(ADMIN, follow_redirects=False)
    html, overview = client.get(f"/p/{site.project.id}/").text, admin.get("/admin").text
    secret = {"csrf": fields(overview, "/admin/annotators")["csrf"], "project": str(site.project.id)}
    sent = [client.post("/answer", data={**fields(html, "/answer"), "choice": "left"})]
    sent += [client.post(path, data=fields(html, "/undo")) for path in ("/undo", "/logout")]
    sent += [
        admin.post(f"/admin/annotators{path}", data={**secret, **more})
        for path, more in (
            ("", {"name": "ben"}),
            (f"/{anna.id}/link", {}),
            (f"/{anna.id}/active", {"active": "false"}),
            (f"/{anna.id}/discard", {}),
        )
    ]
    assert [one.status_code for one in sent] == [303] * 7
    made = admin.get(sent[3].headers["location"]).text
    assert "Link for ben" in made and "Link for" not in admin.get(sent[3].headers["location"]).text
    assert site.client().get(sent[2].headers["location"]).status_code == 200


def test_who_is_switched_off_is_told_so(site: Site) -> None:
    anna, token = site.add("anna")
    site.store.set_active(anna.id, False)
    told = site.client().get(f"/login/{token}")
    assert told.status_code == 403 and "switched off" in told.text
    admin = site.client(ADMIN)
    data = fields(admin.get("/admin").text, f"/{anna.id}/link")
    assert (
        "It opens nothing before anna is activated" in admin.post(f"/admin/annotators/{anna.id}/link", data=data).text
    )
    assert site.client().get("/login/nobody").status_code == 401


def test_guidelines_come_first_and_are_acknowledged(site: Site) -> None:
    """Before the first task, and again after every change, which the admin can make; labels know their version."""
    _, token = site.add("anna")
    client, admin = site.client(), site.client(ADMIN)
    client.get(f"/login/{token}")
    for version in range(1, 4):
        html = client.get("/").text
        assert 'data-kind="guidelines"' in html and 'data-kind="pop"' not in html
        assert ("The guidelines have changed" in html) == (version > 1)
        html = client.post("/guidelines", data=fields(html, "/guidelines")).text
        assert 'data-kind="pop"' in html and f'data-version="{version}"' in html
        data = {**fields(admin.get("/admin").text, "/admin/guidelines"), "guidelines": f"Version {version}\r\nnew"}
        page = admin.post("/admin/guidelines", data=data)
        assert page.status_code == 200 and f"Version {version}\nnew</textarea>" in page.text
        # The task that was open is answered under the guidelines that were read; then the new ones come.
        sent = {**fields(html, "/answer"), "choice": "left"}
        assert 'data-kind="guidelines"' in client.post("/answer", data=sent).text
    assert site.store.labels(site.project.id)["guidelines_version"].to_pylist() == [1, 2, 3]
    data = fields(client.get("/").text, "/guidelines")
    assert client.post("/guidelines", data={**data, "version": "5"}).status_code == 409
    assert site.store.annotators(site.project.id)[0].guidelines_seen == 3


def test_programs_are_told_of_new_guidelines(site: Site) -> None:
    _, token = site.add("anna")
    client = site.client(headers={"Authorization": f"Bearer {token}"})
    for version, text in ((1, "Be **kind**."), (2, "new")):
        assert client.get("/api/next").json()["guidelines"] == {"version": version, "text": text}
        assert client.post("/api/guidelines", json={"version": version}).json() == {"version": version}
        assert client.get("/api/next").json()["guidelines"] is None
        site.store.set_guidelines(site.project.id, "new")
    assert client.post("/api/guidelines", json={"version": 9}).status_code == 409
