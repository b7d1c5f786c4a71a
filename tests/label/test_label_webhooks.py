"""Webhooks: events wait in the store, arrive signed and in order, and never hold up an answer."""

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pyarrow as pa
import pytest
from label_stores import Clock

from popmargin.cli.main import main
from popmargin.errors import ConfigError
from popmargin.label.store.answers import Answer
from popmargin.label.store.database import Database
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.outside_answers import OutsideAnswer
from popmargin.label.store.records import Project
from popmargin.label.store.webhooks import LEASE, PATIENCE
from popmargin.label.web.webhook_sender import Sender, send_due

Make = Callable[..., Project]


class Receiver:
    """A server that keeps what it is sent, and answers with the statuses it is given, then 204."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((dict(self.headers), body))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True, args=(0.01,)).start()

    @property
    def events(self) -> list[str]:
        return [json.loads(body)["event"] for _, body in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


def answer(store: LabelStore, who: int, request: str, verdict: Any = "first") -> Any:
    given = store.next_assignment(who)
    assert given is not None
    return store.record(who, given.id, verdict, request=request)


def test_events_of_a_project_arrive_signed_and_in_order(
    store: LabelStore, make_project: Make, receiver: Receiver, clock: Clock
) -> None:
    project = make_project(2, kind="preference", overlap=2)
    hook = store.webhooks.set(project.id, receiver.url, private=True)
    anna, ben = (store.add_annotator(project.id, name)[0].id for name in ("anna", "ben"))
    first = answer(store, anna, "a1")
    store.record(anna, first.assignment, "first", request="a1")  # repeated, so no event
    store.record(anna, first.assignment, "second", request="a2")  # changed: saved again, nothing finished
    store.undo(anna)
    answer(store, anna, "a3")
    answer(store, anna, "a4")
    store.set_guidelines(project.id, "New.")
    answer(store, ben, "b1")
    answer(store, ben, "b2")
    assert receiver.got == []  # nothing is sent while people answer
    assert send_due(store) == 11 and send_due(store) == 0
    assert receiver.events == [
        *["label.saved"] * 5, "guidelines.changed", "label.saved", "item.finished", "label.saved", "item.finished",
        "project.done",
    ]  # fmt: skip
    bodies = [json.loads(body) for _, body in receiver.got]
    assert [one.get("verdict", "-") for one in bodies[:5]] == ["first", "second", None, "first", "first"]
    assert bodies[0]["project"] == {"id": project.id, "name": "demo"} and bodies[0]["annotator"] == anna
    assert bodies[5]["version"] == 2 and bodies[10]["labels_done"] == bodies[10]["labels_wanted"] == 4
    assert not any(word in body for _, body in receiver.got for word in (b"anna", b"good 0"))  # no names, no texts
    for headers, body in receiver.got:
        moment, digest = (part.split("=")[1] for part in headers["X-Popmargin-Signature"].split(","))
        assert digest == hmac.new(hook.secret.encode(), moment.encode() + b"." + body, hashlib.sha256).hexdigest()


def test_whatever_changes_the_store_raises_events(
    store: LabelStore, make_project: Make, receiver: Receiver, clock: Clock
) -> None:
    """Also labels of judges, and those from elsewhere; repeated and refused ones are no events."""
    project = make_project(2, kind="preference")
    store.webhooks.set(project.id, receiver.url, private=True)
    judge = store.add_annotator(project.id, "gpt", kind="judge")[0].id
    items = [row["item"] for batch in store.items(project.id) for row in batch.to_pylist()]
    verdicts = {"item": items, "verdict": ["first", "unsure"], "request": ["r1", "r2"], "note": ["good 0", ""]}
    assert store.record_many(judge, pa.table(verdicts)) == 2
    assert store.record_many(judge, pa.table(verdicts)) == 0
    rows = [OutsideAnswer(item=item, answer=Answer(verdict="second", request=f"o{item}"), at=clock()) for item in items]
    assert store.record_outside(project.id, "zoe", rows) == [None, None]
    assert store.record_outside(project.id, "zoe", rows) == ["second", "second"]
    zoe = next(who.id for who in store.annotators(project.id) if who.name == "zoe")
    store.change(project.id, overlap=2)
    store.set_weight(zoe, 0.5)
    store.set_active(zoe, False)  # as it was
    store.discard(zoe)
    store.forget(zoe)
    assert send_due(store) == 12
    assert receiver.events == [
        "label.saved", "label.saved", "annotator.changed", "label.saved", "item.finished", "label.saved",
        "item.finished", "project.done", "project.changed", *["annotator.changed"] * 3,
    ]  # fmt: skip
    bodies = [json.loads(body) for _, body in receiver.got]
    assert [(one["item"], one["verdict"], one["annotator_kind"]) for one in bodies[:4] if "label" in one] == [
        (items[0], "first", "judge"), (items[1], "unsure", "judge"), (items[0], "second", "person"),
    ]  # fmt: skip
    assert bodies[8]["setting"] == "overlap"
    changes = [(one["annotator"], one["weight"], one["discarded"], one["forgotten"]) for one in bodies[9:]]
    assert changes == [(zoe, 0.5, False, False), (zoe, 0.5, True, False), (zoe, 0.5, True, True)]
    assert not any(word in body for _, body in receiver.got for word in (b"zoe", b"gpt", b"good 0"))


def test_failures_are_repeated_later_and_nothing_is_lost(
    url: str, make_project: Make, store: LabelStore, receiver: Receiver, clock: Clock
) -> None:
    """In order, ever later, also by a server that was started again; what is too old is given up and counted."""
    project = make_project(4, kind="preference")
    store.webhooks.set(project.id, receiver.url, private=True)
    anna = store.add_annotator(project.id, "anna")[0].id
    receiver.answers = [204, 500, 302, 200]
    for number in range(2):
        answer(store, anna, f"a{number}")
    assert send_due(store) == 1 and len(receiver.got) == 2  # saved arrived, finished did not
    found = store.webhooks.of(project.id)
    assert found is not None and (found.waiting, found.attempts, found.error) == (3, 1, "it answered 500")
    assert send_due(store) == 0 and len(receiver.got) == 2  # not before it is due
    clock.pass_seconds(6)
    assert send_due(store) == 0 and len(receiver.got) == 3  # a redirect is not followed
    clock.pass_seconds(6)
    assert send_due(store) == 0 and len(receiver.got) == 3
    clock.pass_seconds(5)
    with LabelStore(Database(url), clock=clock) as restarted:
        assert send_due(restarted) == 3
    assert receiver.events[-3:] == ["item.finished", "label.saved", "item.finished"]
    receiver.answers = [404]
    answer(store, anna, "late")
    clock.pass_seconds(PATIENCE.total_seconds() + 1)
    assert send_due(store) == 0
    clock.pass_seconds(6)
    assert send_due(store) == 1
    found = store.webhooks.of(project.id)
    assert found is not None and (found.waiting, found.given_up, found.error) == (0, 1, "")


def test_one_process_delivers_at_a_time(store: LabelStore, make_project: Make, clock: Clock) -> None:
    project = make_project(3, kind="preference")
    hook = store.webhooks.set(project.id, "https://example.org/hook")
    answer(store, store.add_annotator(project.id, "anna")[0].id, "a1")
    assert store.webhooks.due() == [hook.id]
    taken = store.webhooks.take(hook.id, 20)
    assert taken is not None and [event.event for event in taken[1]] == ["label.saved", "item.finished"]
    assert store.webhooks.take(hook.id, 20) is None and store.webhooks.due() == []
    clock.pass_seconds(LEASE.total_seconds())  # it ended without a word
    assert store.webhooks.take(hook.id, 20) is not None


def test_addresses_of_the_own_network_need_permission(
    store: LabelStore, make_project: Make, receiver: Receiver
) -> None:
    project = make_project(1, kind="preference")
    for host in ("127.0.0.1", "localhost", "10.0.0.1", "169.254.169.254", "[::1]", "0.0.0.0"):
        store.webhooks.set(project.id, f"http://{host}:{receiver.server.server_port}/hook")
        store.set_guidelines(project.id, f"New for {host}.")
        assert send_due(store) == 0 and receiver.got == []
        found = store.webhooks.of(project.id)
        assert found is not None and "an address of the own network" in found.error and found.waiting == 1
    for address in ("ftp://example.org", "example.org/hook", "https://", "http://[", "https://ann@b.org"):
        with pytest.raises(ConfigError, match="is no address to send to"):
            store.webhooks.set(project.id, address)


def test_a_webhook_on_the_command_line_and_a_sender_in_the_background(
    store: LabelStore, make_project: Make, receiver: Receiver, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(1, kind="preference")
    db = ["--db", url]
    assert main(["label", "set", "--webhook", receiver.url, "--webhook-private", *db]) == 0
    shown = capsys.readouterr()
    hook = store.webhooks.of(project.id)
    assert hook is not None and hook.secret in shown.err and hook.secret not in shown.out
    assert f"webhook {receiver.url}: 0 events waiting" in shown.out
    with LabelStore.open(url) as opened, Sender(opened):  # at the time of the command line
        opened.set_guidelines(project.id, "New.")
        for _ in range(400):
            if receiver.got and opened.webhooks.of(project.id).waiting == 0:
                break
            time.sleep(0.05)
    assert receiver.events == ["guidelines.changed"]
    store.set_guidelines(project.id, "Newer.")
    assert main(["label", "set", "--json", *db]) == 0
    assert json.loads(capsys.readouterr().out)["webhook"]["waiting"] == 1
    assert receiver.events == ["guidelines.changed"] * 2  # the command has sent what waited
    store.add_annotator(project.id, "anna")
    assert main(["label", "annotators", "discard", "anna", *db]) == 0
    assert "webhook: 2 events sent" in capsys.readouterr().err
    receiver.answers = [500]
    assert main(["label", "annotators", "activate", "anna", *db]) == 0
    shown = capsys.readouterr()
    assert "1 event waits for `popmargin annotate`" in shown.err and "it answered 500" in shown.err
    assert "anna is active" in shown.out
    assert main(["label", "set", "--no-webhook", *db]) == 0
    assert store.webhooks.of(project.id) is None
    assert main(["label", "set", "--webhook-private", *db]) == 2
