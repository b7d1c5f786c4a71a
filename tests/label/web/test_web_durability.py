"""Acknowledged labels survive kill -9 of the real server; many people at once meet no error."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from web_site import preferences_of, rows_of

from popmargin.label.store.label_store import LabelStore
from popmargin.label.web.serve import listen

pytestmark = pytest.mark.slow
# Imports once and forks: a hundred starts of the real command would mostly be a hundred imports.
NURSERY = """
import os, sys, popmargin.label.store.label_store, popmargin.label.web.app, popmargin.cli.annotate
from popmargin.cli.main import main
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os._exit(main(line.rstrip().split("|")))
    print("pid", child, flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


def fill(path: str | Path, *, items: int, people: int, overlap: int) -> list[str]:
    """A store with a project, and its people's tokens."""
    with LabelStore.open(path) as store:
        project = store.create_project("default", overlap=overlap)
        rows = rows_of(items + 1)
        store.import_preferences(project.id, preferences_of(rows))
        ids = [row["id"] for row in rows]
        store.add_items(project.id, "pop", ids[:-1], ids[1:])
        return [store.add_annotator(project.id, f"person {i}")[1] for i in range(people)]


class Server:
    """The real command, in a process of its own, as often as wanted."""

    def __init__(self, path: str | Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = "|".join(
            ["annotate", "--db", str(path), "--no-browser", "--port", str(self.port), "--annotators", "person 0"]
        )
        self.nursery = subprocess.Popen(
            [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.start()

    def start(self) -> None:
        """Start it; it answers when this returns."""
        assert self.nursery.stdin is not None
        self.nursery.stdin.write(self.command + "\n")
        self.nursery.stdin.flush()
        self.pid = int(self.read("pid ").split()[1])
        assert f":{self.port}/" in self.read("  (admin)")
        self.read("Every answer")

    def read(self, start: str) -> str:
        assert self.nursery.stdout is not None
        for line in self.nursery.stdout:
            if line.startswith(start):
                return line
            if line.startswith("gone"):
                break
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.read("gone")

    def close(self) -> None:
        """Kill it for good."""
        self.kill()
        self.nursery.kill()
        self.nursery.communicate()


def free_port() -> int:
    with listen("127.0.0.1", 0) as listening:
        return int(listening.getsockname()[1])


class Client(threading.Thread):
    """Labels until the end, like the page: an answer is sent with the same key until it is acknowledged."""

    def __init__(self, url: str, token: str, name: int, stop: threading.Event, most: int = 10**9) -> None:
        super().__init__()
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60)
        self.number, self.stop, self.most = name, stop, most
        self.acknowledged = dict[str, tuple[int, str]]()
        self.statuses = Counter[int]()
        self.lost_connections = 0

    def call(self, method: str, path: str, **body: Any) -> Any:
        while True:
            try:
                response = self.http.request(method, path, **body)
            except httpx.TransportError:
                self.lost_connections += 1
                time.sleep(0.05)
                continue
            self.statuses[response.status_code] += 1
            return response.json()

    def run(self) -> None:
        rng = Random(self.number)
        with self.http:
            while not self.stop.is_set() and len(self.acknowledged) < self.most and self.answer(rng):
                pass

    def answer(self, rng: Random) -> bool:
        task = self.call("GET", "/api/next").get("task")
        if task is None:
            return False
        key = f"client-{self.number}-{len(self.acknowledged)}"
        choice = rng.choice(["left", "right", "tie", "unsure"])
        body = {"assignment": task["assignment"], "choice": choice, "request": key, "note": key}
        saved = self.call("POST", "/api/labels", json=body)
        if "label" in saved:
            self.acknowledged[key] = (saved["label"], choice)
        return True


def labels_of(path: str | Path) -> list[dict[str, Any]]:
    with LabelStore.open(path) as store:
        return store.label_history(store.projects()[0].id).to_pylist()


def check(path: str | Path, clients: list[Client], *, in_flight: int) -> None:
    """Every acknowledged answer is stored once and as it was given; nothing else is, but answers still in flight."""
    rows = labels_of(path)
    by_note = Counter(row["note"] for row in rows)
    assert max(by_note.values()) == 1
    acknowledged = {key: value for client in clients for key, value in client.acknowledged.items()}
    stored = {row["note"]: row for row in rows}
    assert set(acknowledged) - set(stored) == set()
    assert len(set(stored) - set(acknowledged)) <= in_flight
    for key, (label, choice) in acknowledged.items():
        row = stored[key]
        assert row["label"] == label and row["revision"] == 1
        swap = row["swap_pairs"]
        meant = {"left": "second" if swap else "first", "right": "first" if swap else "second"}.get(choice, choice)
        assert row["verdict"] == meant


def test_kill_nine_a_hundred_times_under_load(tmp_path: Path) -> None:
    kills = int(os.environ.get("POPMARGIN_KILLS", "100"))
    path = tmp_path / "labels.db"
    tokens = fill(path, items=4000, people=8, overlap=8)
    server = Server(path)
    stop = threading.Event()
    clients = [Client(server.url, token, i, stop) for i, token in enumerate(tokens)]
    for client in clients:
        client.start()
    rng = Random(0)
    try:
        for _ in range(kills):
            time.sleep(0.05 + 0.4 * rng.random())
            server.kill()
            server.start()
    finally:
        stop.set()
        for client in clients:
            client.join()
        server.close()
    check(path, clients, in_flight=0)
    assert sum(client.lost_connections for client in clients) >= kills // 2  # the load did meet the kills
    assert {status for client in clients for status in client.statuses} == {200}
    print(json.dumps({"kills": kills, "labels": sum(len(client.acknowledged) for client in clients)}))


def test_thirty_two_people_at_once(url: str) -> None:
    each = int(os.environ.get("POPMARGIN_LABELS", "100"))
    tokens = fill(url, items=each, people=32, overlap=32)
    server = Server(url)
    begin = time.monotonic()
    try:
        clients = [Client(server.url, token, i, threading.Event(), each) for i, token in enumerate(tokens)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    finally:
        server.close()
    assert {status for client in clients for status in client.statuses} == {200}
    assert sum(len(client.acknowledged) for client in clients) == 32 * each
    assert len(labels_of(url)) == 32 * each
    check(url, clients, in_flight=0)
    print(json.dumps({"labels": 32 * each, "seconds": round(time.monotonic() - begin, 1)}))
