"""popmargin annotate: one command from a file to a server with links."""

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("sqlalchemy")

from fastapi import FastAPI
from fastapi.testclient import TestClient

from popmargin.cli.main import main
from popmargin.label.store.label_store import LabelStore
from popmargin.label.web import serve


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "prefs.jsonl"
    rows = [{"prompt": f"q{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class Stand:
    """Stands in for the server: visits the application once, while its store is open."""

    def __init__(self) -> None:
        self.visit: Callable[[TestClient], object] = lambda client: None

    def __call__(self, app: FastAPI, listening: socket.socket) -> None:
        listening.close()
        self.visit(TestClient(app, base_url="http://127.0.0.1:8000"))


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Stand:
    stand = Stand()
    monkeypatch.setattr(serve, "serve", stand)
    monkeypatch.delenv("POPMARGIN_ADMIN_TOKEN", raising=False)
    return stand


def links(out: str) -> dict[str, str]:
    rows = [line.split() for line in out.splitlines() if "/login/" in line]
    return {name: url.partition("/login/")[2] for name, url in rows}


def test_one_command_to_the_first_label(data: Path, tmp_path: Path, served: Stand, capsys) -> None:
    db = tmp_path / "labels.db"
    command = ["annotate", str(data), "--db", str(db), "--port", "0", "--no-browser"]
    assert main(command) == 0
    first = links(capsys.readouterr().out)
    assert set(first) == {"me", "(admin)"}
    titles = list[str]()

    def visit(client: TestClient) -> None:
        token = links(capsys.readouterr().out)["me"]
        client.get(f"/login/{token}")
        titles.append(client.get("/").text)
        client.cookies.clear()
        assert client.get(f"/login/{first['me']}").status_code == 401  # the link before has ended

    served.visit = visit
    assert main(["annotate", "--db", str(db), "--port", "0", "--no-browser"]) == 0  # goes on without the data
    assert "In which pair is the preferred response better by more?" in titles[0]
    with LabelStore.open(db) as store:
        (project,) = store.projects()
        assert (project.name, project.items, project.preferences) == ("default", 12, 12)
        assert "marked *Preferred*" in project.guidelines


def test_named_people_keep_their_links(data: Path, tmp_path: Path, served: Stand, capsys) -> None:
    db = str(tmp_path / "labels.db")
    command = ["annotate", str(data), "--db", db, "--port", "0", "--annotators", "anna", "ben", "--kind", "preference"]
    assert main(command) == 0
    tokens = links(capsys.readouterr().out)
    assert set(tokens) == {"anna", "ben", "(admin)"}
    served.visit = lambda client: tokens.update(status=client.get(f"/login/{tokens['anna']}").status_code)
    assert main(command) == 0
    assert tokens["status"] == 200 and "keeps the existing link" in capsys.readouterr().out


def test_a_restart_without_names_keeps_the_team_as_it_is(data: Path, tmp_path: Path, served: Stand, capsys) -> None:
    """Nobody called me joins, on this machine or for others; a project without people still gets one."""
    db = str(tmp_path / "labels.db")
    start = ["annotate", "--db", db, "--port", "0", "--no-browser"]
    assert main([*start, str(data), "--annotators", "anna", "ben"]) == 0
    capsys.readouterr()
    for more in ([], ["--host", "0.0.0.0"]):
        assert main([*start, *more]) == 0
        said = capsys.readouterr().out
        assert set(links(said)) == {"(admin)"} and said.count("keeps the existing link") == 2
    with LabelStore.open(db) as store:
        assert [who.name for who in store.annotators(store.project().id)] == ["anna", "ben"]
    assert main([*start, str(data), "--project", "alone", "--host", "0.0.0.0"]) == 2
    assert "there are no annotators" in capsys.readouterr().err
    with LabelStore.open(db) as store:
        assert len(store.projects()) == 1
    assert main([*start, str(data), "--project", "alone"]) == 0
    assert set(links(capsys.readouterr().out)) == {"me", "(admin)"}


def test_all_projects_are_served_with_one_link_each(data: Path, tmp_path: Path, served: Stand, capsys) -> None:
    """Without data and names: every project, and one link to the list of them; --project names some."""
    db = str(tmp_path / "labels.db")
    start = ["annotate", "--db", db, "--port", "0", "--no-browser"]
    for name in ("one", "two", "three"):
        assert main(["label", "import", str(data), "--db", db, "--project", name, "--kind", "preference"]) == 0
    capsys.readouterr()
    pages = list[str]()

    def visit(client: TestClient) -> None:
        client.get(f"/login/{links(capsys.readouterr().out)['me']}")
        pages.append(client.get("/").text)

    served.visit = visit
    assert main(start) == 0 and main([*start, "--project", "three", "one"]) == 0
    assert [[name for name in ("one", "two", "three") if f">{name} " in page] for page in pages] == [
        ["one", "two", "three"], ["one", "three"],
    ]  # fmt: skip
    served.visit = lambda client: None
    assert main([*start, "--project", "one", "two", "--annotators", "anna"]) == 0
    assert links(capsys.readouterr().out)["anna"].count(".") == 1
    assert main([*start, "--project", "one", "three", "--annotators", "anna"]) == 0
    said = capsys.readouterr().out
    assert links(said)["anna"].count(".") == 0 and "keeps the existing link" not in said
    assert main([*start, str(data), "--project", "one", "two"]) == 2
    assert "DATA makes one project, but --project names 2" in capsys.readouterr().err
    assert main([*start, "--project", "one", "tow"]) == 2
    assert "no project 'tow'" in capsys.readouterr().err


def test_another_address_needs_named_people(data: Path, tmp_path: Path, served: Stand, capsys) -> None:
    command = ["annotate", str(data), "--db", str(tmp_path / "labels.db"), "--host", "0.0.0.0", "--port", "0"]
    assert main(command) == 2
    assert "--annotators" in capsys.readouterr().err
    assert not (tmp_path / "labels.db").exists()
    assert main([*command, "--annotators", "anna"]) == 0


def test_data_that_make_no_project_leave_no_store_behind(data: Path, tmp_path: Path, served: Stand, capsys) -> None:
    db, one = tmp_path / "labels.db", tmp_path / "one.jsonl"
    one.write_text(data.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    for command in (["annotate", str(one), "--port", "0"], ["label", "import", str(one)]):
        assert main([*command, "--db", str(db)]) == 2
        assert "at least 2 are needed" in capsys.readouterr().err and not db.exists()
    for flags in (["--overlap", "0"], ["--scale", "7"], ["--kind", "rating", "--scale", "1"]):
        assert main(["annotate", str(data), "--port", "0", "--db", str(db), *flags]) == 2
        assert not db.exists()
    assert main(["annotate", str(one), "--port", "0", "--no-browser", "--db", str(db), "--kind", "rating"]) == 0
    assert (
        main(["annotate", str(one), "--port", "0", "--no-browser", "--db", str(db)]) == 0
    )  # goes on with what is there


def test_rating_is_a_kind_with_guidelines_of_its_own(data: Path, tmp_path: Path, served: Stand) -> None:
    db = str(tmp_path / "labels.db")
    command = ["annotate", str(data), "--db", db, "--port", "0", "--no-browser", "--kind", "rating", "--scale", "7"]
    assert main(command) == 0
    with LabelStore.open(db) as store:
        (project,) = store.projects()
    assert (project.scale, project.items) == (7, 24) and "How good is the response?" in project.guidelines


@pytest.mark.parametrize("with_data", [True, False])
def test_an_existing_project_is_not_taken_for_another_kind(
    data: Path, tmp_path: Path, served: Stand, capsys, with_data: bool
) -> None:
    db = str(tmp_path / "labels.db")
    command = ["annotate", *([str(data)] if with_data else []), "--db", db, "--port", "0", "--no-browser"]
    assert main(["label", "import", str(data), "--db", db]) == 0
    assert main(command) == 0  # without the guidelines of new projects, which this one lacks
    for flags, message in (
        (
            ["--kind", "rating"],
            "Project 'default' has items of kind 'pop'; put items of kind 'rating' in a separate project",
        ),
        (["--overlap", "2"], "overlap 1, not 2"),
        (["--kind", "pop", "--overlap", "1"], None),
    ):
        assert main([*command, *flags]) == (2 if message else 0)
        assert (message or "") in capsys.readouterr().err


def test_guidelines_and_project_names(data: Path, tmp_path: Path, served: Stand, capsys) -> None:
    guide, db = tmp_path / "guide.md", str(tmp_path / "labels.db")
    guide.write_text("Look *twice*.", encoding="utf-8")
    assert main(["annotate", str(data), "--db", db, "--port", "0", "--no-browser", "--guidelines", str(guide)]) == 0
    assert main(["annotate", str(data), "--db", db, "--port", "0", "--no-browser", "--project", "two", "--k", "2"]) == 0
    with LabelStore.open(db) as store:
        assert store.project("default").guidelines == "Look *twice*."
        assert store.project("two").items == 24
    capsys.readouterr()
    assert main(["annotate", "--db", db, "--project", "three", "--port", "0"]) == 2
    assert "three" in capsys.readouterr().err
    assert main(["annotate", "--db", str(tmp_path / "no.db"), "--port", "0"]) == 2
    assert not (tmp_path / "no.db").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--admin-token", "short"], "use at least 16"),
        (["--guidelines", "no.md"], "no.md"),
        (["--k", "0"], "k ≥ 1"),
        (["--port", "99999"], "--port 99999: use 1 to 65535"),
        (["--host", "192.0.2.1", "--annotators", "anna"], "Choose another --host or --port"),
    ],
)
def test_refusals(data: Path, tmp_path: Path, served: Stand, capsys, flags: list[str], message: str) -> None:
    command = ["annotate", str(data), "--db", str(tmp_path / "labels.db"), "--port", "0", "--no-browser", *flags]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    if flags[0] in ("--port", "--host"):
        assert not (tmp_path / "labels.db").exists()


def test_a_busy_port_gives_the_next_one() -> None:
    with serve.listen("127.0.0.1", 0) as busy:
        port = busy.getsockname()[1]
        with serve.listen("127.0.0.1", port) as other:
            assert port < other.getsockname()[1] < port + 20


def test_which_addresses_are_loopback() -> None:
    assert all(map(serve.is_loopback, ("127.0.0.1", "127.8.8.8", "localhost", "::1")))
    assert not any(map(serve.is_loopback, ("0.0.0.0", "::", "192.168.1.5", "example.org", "")))
