"""A database that goes away and comes back, connections that send nothing, and overlap that nobody can reach."""

import socket
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy.exc import InterfaceError
from test_web_pages import fields
from web_site import ADMIN, Site

from popmargin.label.store.database import AwayError
from popmargin.label.web import serve as serving


@pytest.mark.parametrize(
    "error", [InterfaceError("connect", {}, Exception("network error")), ConnectionResetError(104, "reset")], ids=type
)
def test_a_database_that_does_not_answer_is_503_everywhere(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """In the guard, which looks for the session first, on pages, in the API and for the admin; then it is over."""
    _, token = site.add("anna")
    client, admin = site.client(token), site.client(ADMIN)
    bearer = {"authorization": f"Bearer {token}"}
    data = {**fields(client.get("/").text, "/answer"), "choice": "left"}

    def gone(*_: Any, **__: Any) -> Any:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(site.store._database._engine, "connect", gone)
        answers = [client.get("/"), client.post("/answer", data=data), admin.get("/admin")]
        answers += [client.get("/api/next", headers=bearer), client.get(f"/login/{token}")]
        with pytest.raises(AwayError, match="the database does not answer"):
            site.store.projects()
    with pytest.raises(AwayError, match="the database does not answer"), site.store._database.read():
        gone()  # in the middle of a statement
    with pytest.raises(AwayError, match="the database does not answer"):
        site.store._database.write(gone)
    assert [one.status_code for one in answers] == [503] * 5
    assert "error" in answers[3].json() and "Content-Security-Policy" in answers[0].headers
    assert client.post("/answer", data=data).status_code == 200 and site.store.labels(site.project.id).num_rows == 1


@pytest.mark.slow
def test_a_restart_of_postgres_is_503_and_then_over(new_database: Callable[[], str]) -> None:
    """Every connection that the pool holds is ended by the server, as in a restart."""
    import pg8000
    from web_site import preferences_of, rows_of

    from popmargin.label.store.label_store import LabelStore
    from popmargin.label.web.app import create_app

    url = new_database()
    host, port = url.rpartition("/")[0].rpartition("@")[2].split(":")
    with LabelStore.open(url) as store:
        project = store.create_project("demo")
        store.import_preferences(project.id, preferences_of(rows_of(4)))
        store.add_items(project.id, "pop", ["p0", "p1"], ["p2", "p3"])
        site = Site(store, create_app(store), project)
        client = site.client(site.add("anna")[1], raise_server_exceptions=False)
        assert client.get("/").status_code == 200
        with closing(pg8000.connect(user="popmargin", host=host, port=int(port), database="postgres")) as other:
            other.autocommit = True
            name = url.rpartition("/")[2]
            mine = f"FROM pg_stat_activity WHERE datname = '{name}'"

            def end_all() -> None:
                other.cursor().execute(f"SELECT pg_terminate_backend(pid) {mine}")
                while other.cursor().execute(f"SELECT count(*) {mine}").fetchone()[0]:  # the signal is only sent
                    time.sleep(0.01)

            end_all()
            assert client.get("/").status_code == 200  # a dead connection is replaced
            other.cursor().execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            end_all()
            assert client.get("/").status_code == 503
            other.cursor().execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            assert client.get("/").status_code == 200


def test_connections_without_a_request_end(
    site: Site, serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing sent, half a head, or a body that does not come: closed; and meanwhile the server answers others."""
    monkeypatch.setattr(serving, "REQUEST_SECONDS", 0.3)
    server = serve(site)
    starts = [b"", b"GET / HT", b"POST /answer HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nhalf"]
    sockets = [socket.create_connection(("127.0.0.1", server.port)) for _ in starts]
    for one, start in zip(sockets, starts, strict=True):
        one.settimeout(20)
        one.sendall(start)
    whole = socket.create_connection(("127.0.0.1", server.port))
    whole.settimeout(20)
    whole.sendall(b"GET /static/annotate.css HTTP/1.1\r\nHost: x\r\n\r\n")
    assert whole.recv(15).startswith(b"HTTP/1.1 200")
    for one in [*sockets, whole]:
        while one.recv(65536):
            pass
        one.close()


def test_overlap_that_nobody_can_reach_is_said(make_site: Callable[..., Site]) -> None:
    site = make_site(items=3, overlap=3)
    admin = site.client(ADMIN)
    assert "not all labels can be reached" not in admin.get("/admin").text  # nobody is there yet
    people = [site.add(name)[0] for name in ("anna", "ben")]
    assert "asks for labels by 3 people, but the project has 2" in admin.get("/admin").text
    site.add("carl")
    assert "not all labels" not in admin.get("/admin").text
    site.store.set_active(people[0].id, False)  # who has left without a label
    assert "but the project has 2" in admin.get("/admin").text
