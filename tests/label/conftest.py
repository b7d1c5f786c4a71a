"""Label stores on a real SQLite file and on a real PostgreSQL server."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from label_stores import Clock, preferences
from served import Served

from popmargin.label.store.database import Database
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    running: list[Served] = []

    def start(mode: str = "") -> Served:
        running.append(Served(tmp_path / f"server{len(running)}", mode))
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database."""
    if request.param == "sqlite":
        return str(tmp_path / "labels.db")
    return request.getfixturevalue("new_database")()


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[LabelStore]:
    with LabelStore(Database(url), clock=clock) as opened:
        yield opened


@pytest.fixture
def make_project(store: LabelStore) -> Callable[..., Project]:
    """A project with `items` pairs p0 p1, p1 p2, …"""

    def make(items: int = 10, *, gold: Any = None, kind: Any = "pop", **settings: Any) -> Project:
        project = store.create_project("demo", **settings)
        store.import_preferences(project.id, preferences(items + 1))
        first, second = [f"p{row}" for row in range(items)], [f"p{row + 1}" for row in range(items)]
        store.add_items(project.id, kind, first, second if kind == "pop" else None, gold=gold)
        return store.project("demo")

    return make


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server that lives as long as the tests; it may not run as root, so another user owns it."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = str(programs[-1]) if programs else shutil.which("initdb")
    if found is None:
        pytest.skip("PostgreSQL is not installed (no initdb)")
    home = Path(tempfile.mkdtemp(prefix="postgres-"))
    prefix: list[str] = []
    if os.geteuid() == 0:
        users = [name for name in ("postgres", "nobody") if name in {user.pw_name for user in pwd.getpwall()}]
        if not users or shutil.which("setpriv") is None:
            pytest.skip("PostgreSQL does not run as root, and there is no other user or no setpriv")
        owner = pwd.getpwnam(users[0])
        os.chown(home, owner.pw_uid, owner.pw_gid)
        prefix = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = home / "data"
    options = {"cwd": home, "check": True, "stdout": subprocess.DEVNULL}
    subprocess.run(
        [*prefix, found, "-D", data, "-U", "popmargin", "-A", "trust", "-E", "UTF8", "--no-locale"], **options
    )
    settings = [f"-p{port}", f"-k{home}", "-clisten_addresses=127.0.0.1", "-cmax_connections=100", "-cfsync=off"]
    log = (home / "log").open("wb")
    server = subprocess.Popen(
        [*prefix, str(Path(found).parent / "postgres"), "-D", str(data), *settings], cwd=home, stderr=log
    )
    try:
        _wait_for(port, server)
        yield f"postgresql://popmargin@127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)  # ends sessions that are open, other than SIGTERM
        server.wait(30)
        log.close()
        shutil.rmtree(home, ignore_errors=True)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    import pg8000

    for _ in range(300):
        assert server.poll() is None, "the PostgreSQL server ended"
        try:
            pg8000.connect(user="popmargin", host="127.0.0.1", port=port, database="postgres").close()
        except (pg8000.InterfaceError, pg8000.DatabaseError):
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the PostgreSQL server does not answer")


@pytest.fixture
def new_database(postgres: str) -> Callable[[], str]:
    """Makes databases on the server; they go with it."""
    import pg8000

    host, port = postgres.rpartition("@")[2].split(":")

    def make() -> str:
        name = f"labels_{time.monotonic_ns()}"
        connection = pg8000.connect(user="popmargin", host=host, port=int(port), database="postgres")
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {name}")
        connection.close()
        return f"{postgres}/{name}"

    return make
