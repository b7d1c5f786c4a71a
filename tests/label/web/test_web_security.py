"""Nothing without a session; forms of other sites do nothing; hostile texts stay texts."""

import re
from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.routing import BaseRoute, Mount, Route
from starlette.websockets import WebSocketDisconnect
from test_web_pages import fields, number
from test_web_text import ATTACKS, assert_safe
from web_site import ADMIN, Site

from popmargin.label.web.security import Sessions

OPEN = {"/signed-out", "/login/{token}", "/static"}


def endpoints(app: FastAPI) -> Iterator[tuple[str, str]]:
    """(method, path pattern) of every route of the application, whatever its kind."""
    for route in app.routes:
        yield from _endpoints(route)


def _endpoints(route: BaseRoute) -> Iterator[tuple[str, str]]:
    if isinstance(route, Route):
        for method in route.methods or {"GET"}:
            yield method, route.path
    elif isinstance(route, Mount):
        yield "GET", route.path
    else:
        nested = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
        assert nested, f"a kind of route that this test does not know: {route!r}"
        for inner in nested:
            yield from _endpoints(inner)


def test_every_route_but_login_and_static_wants_a_session(site: Site) -> None:
    client = site.client()
    found = set(endpoints(site.app))
    assert len(found) >= 18 and {"/login/{token}", "/answer", "/api/labels", "/admin"} <= {path for _, path in found}
    for method, path in found:
        if path in OPEN:
            continue
        url = re.sub(r"\{\w+(:\w+)?\}", "1", path)
        response = client.request(method, url)
        assert response.status_code == 401, (method, path)
    assert client.get("/no/such/page").status_code == 401  # not even what exists can be learnt
    assert client.get("/static/annotate.css").status_code == 200
    assert client.get("/static/../app.py").status_code in (401, 404)


def test_sessions_open_only_their_own_part(site: Site) -> None:
    _, token = site.add("anna")
    person, admin = site.client(token), site.client(ADMIN)
    assert person.get("/admin").status_code == 401 and admin.get("/").status_code == 401
    assert person.get("/").status_code == 200 and admin.get("/admin").status_code == 200
    # The API takes bearer tokens alone: a cookie goes along with requests that other sites cause.
    assert person.get("/api/next").status_code == 401
    assert person.get("/api/next", headers={"Authorization": f"Bearer {ADMIN}"}).status_code == 401
    assert person.get("/api/next", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_a_session_ends_with_its_token_or_its_person(site: Site) -> None:
    anna, token = site.add("anna")
    client = site.client(token)
    renewed = site.store.new_token(anna.id)
    assert client.get("/").status_code == 401
    client = site.client(renewed)
    site.store.set_active(anna.id, False)
    assert client.get("/").status_code == 401 and site.client().get(f"/login/{renewed}").status_code == 403


@pytest.mark.parametrize("token", ["x", "", "a" * 300, "%00", "%ff", "☃", "../admin"])
def test_wrong_links(site: Site, token: str) -> None:
    assert site.client().get(f"/login/{token}").status_code in (401, 404, 422)


def test_without_an_admin_token_there_is_no_admin(site: Site) -> None:
    sessions = Sessions(site.store, None)
    assert sessions.admin("") is None and sessions.admin("None") is None


def test_cookies_are_strict(site: Site) -> None:
    cookie = site.client().get(f"/login/{site.add('anna')[1]}").headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie
    assert cookie.startswith("popmargin_annotator_8000=")  # another server on this host keeps its own


def test_headers_of_every_answer(site: Site) -> None:
    client = site.client(site.add("anna")[1])
    for path in ("/", "/history", "/no", "/api/next", "/static/annotate.js"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == ("no-cache" if "static" in path else "no-store")


def test_pages_hold_no_inline_script_or_style(site: Site) -> None:
    client, admin = site.client(site.add("anna")[1]), site.client(ADMIN)
    for html in (client.get("/").text, client.get("/history").text, admin.get("/admin").text, client.get("/no").text):
        assert not re.search(r"<style|\sstyle=|\son\w+=|hx-on|<script(?! src=)", html)
        assert "http://" not in html.replace("http://127.0.0.1:8000", "") and "https://" not in html


STATE_CHANGES = ["/answer", "/skip", "/undo", "/logout"]


@pytest.mark.parametrize("path", STATE_CHANGES)
def test_forms_need_the_token_of_their_session(site: Site, path: str) -> None:
    anna, token = site.add("anna")
    _, other = site.add("ben")
    client = site.client(token)
    html = client.get("/").text
    data = {**fields(html, "/answer"), "choice": "left"}
    foreign = fields(site.client(other).get("/").text, "/answer")["csrf"]
    for csrf in ("", "x", foreign, "é"):
        assert client.post(path, data={**data, "csrf": csrf}).status_code == 403, csrf
    del data["csrf"]
    assert client.post(path, data=data).status_code == 403
    assert site.store.progress(site.project.id, anna.id).own_done == 0


def test_every_state_change_is_behind_the_check(site: Site) -> None:
    client, admin = site.client(site.add("anna")[1]), site.client(ADMIN)
    changes = [path for method, path in endpoints(site.app) if method not in ("GET", "HEAD") and "/api/" not in path]
    assert set(STATE_CHANGES) < set(changes) and len(changes) >= 7
    valid = {"assignment": "1", "choice": "left", "key": "request-1", "project": "1", "name": "x", "active": "true"}
    for path in changes:
        user = admin if path.startswith("/admin") else client
        assert user.post(re.sub(r"\{\w+\}", "1", path), data=valid).status_code == 403, path


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://127.0.0.1:8000"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9000"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://labels.example"}, 200),  # a proxy with another name
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://labels.example", "X-Forwarded-Host": "labels.example"}, 200),
        ({}, 200),
    ],
)
def test_origin_of_forms(site: Site, headers: dict[str, str], status: int) -> None:
    client = site.client(site.add("anna")[1])
    data = {**fields(client.get("/").text, "/answer"), "choice": "left"}
    assert client.post("/answer", data=data, headers=headers).status_code == status


def test_bodies_are_bounded(site: Site) -> None:
    client = site.client(site.add("anna")[1])
    assert client.post("/answer", data={"note": "x" * (2 << 20)}).status_code == 413
    assert client.post("/answer", content=iter([b"a"])).status_code == 411


@pytest.mark.parametrize("kind", ["pop", "preference"])
def test_hostile_texts_are_inert_on_every_page(make_site: Callable[..., Site], kind: str) -> None:
    rows = [
        {"id": f"{i}{attack}".replace("\0", ""), "prompt": attack, "chosen": attack, "rejected": attack + " x"}
        for i, attack in enumerate(ATTACKS)
    ]
    site = make_site(kind, rows=rows[: len(rows) // 2 * 2], guidelines="".join(ATTACKS[:2]))
    _person, token = site.add("<script>alert(1)</script>")
    client = site.client(token)
    while number(html := client.get("/").text) != "finished":
        ends = r"</div>\s*(?:</(?:div|section|details)>|<div class=\"raw\")"
        texts = re.findall(rf'<div class="text"[^>]*>(.*?){ends}', html, re.DOTALL)
        written = re.findall(r'<div class="raw"[^>]*>(.*?)</div>', html, re.DOTALL)
        assert len(written) == len(texts) - 1  # all but the guidelines
        assert not [text for text in written if "<" in text]
        for text in texts:
            assert_safe(text)
        assert html.count("<script") == 2  # our own two files
        client.post("/answer", data={**fields(html, "/answer"), "choice": "tie", "note": ATTACKS[0]})
    for page in (client.get("/history").text, site.client(ADMIN).get("/admin").text):
        assert page.count("<script") == 2 and "<img" not in page and "&lt;script&gt;" in page


def test_websockets_are_closed(site: Site) -> None:
    with pytest.raises(WebSocketDisconnect) as caught, TestClient(site.app).websocket_connect("/"):
        pass
    assert caught.value.code == 1008
