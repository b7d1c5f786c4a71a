"""Delivers the events of webhooks, in the background or at the end of a command: signed, in order, and again until
they arrive."""

import hashlib
import hmac
import ipaddress
import logging
import socket
import threading
import time
from urllib.parse import urlsplit, urlunsplit

import httpx

from popmargin.errors import PopmarginError
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Event, Webhook

_LOG = logging.getLogger(__name__)
POLL_SECONDS = 1.0
BATCH = 20
TIMEOUT = 5.0
"""Seconds that connecting, sending and each wait for the answer may take."""
BATCH_SECONDS = 60.0
"""A batch begins no delivery after this, so that it ends before the claim on its webhook does."""


def signature(secret: str, moment: int, body: bytes) -> str:
    """The header `X-Popmargin-Signature` of a delivery: its time, and the HMAC-SHA-256 of time, dot and body.

    Example:
        >>> signature("secret", 1700000000, b"{}")[:31]
        't=1700000000,v1=b8569b78799ff9e'
    """
    digest = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest}"


class Sender:
    """A thread that delivers what waits in a store; several processes may do it for one store.

    Args:
        store: it stays open and belongs to the caller.
    """

    def __init__(self, store: LabelStore) -> None:
        self._store = store
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def __enter__(self) -> "Sender":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(2 * TIMEOUT)

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                send_due(self._store, self._stop)
            except PopmarginError as error:  # the database is away: the events are still there when it is back
                _LOG.warning("webhooks: %s", error)
            except Exception:  # whatever it is: one failure must not end the deliveries of all later events
                _LOG.exception("webhooks: a delivery failed")


def send_now(store: LabelStore, seconds: float) -> int:
    """Deliver what waits until nothing is due, or this many seconds are over; returns how many events arrived."""
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.daemon = True
    timer.start()
    arrived = 0
    try:
        while not stop.is_set() and (sent := send_due(store, stop)):
            arrived += sent
    finally:
        timer.cancel()
    return arrived


def send_due(store: LabelStore, stop: threading.Event | None = None) -> int:
    """Deliver what waits and may be sent now; returns how many events arrived.

    Args:
        store: where they wait.
        stop: begin no further delivery once it is set.
    """
    arrived = 0
    for number in store.webhooks.due():
        taken = store.webhooks.take(number, BATCH)
        if taken is None:
            continue
        webhook, events = taken
        end = time.monotonic() + BATCH_SECONDS
        delivered, error, stuck = list[int](), "", None
        with httpx.Client(timeout=TIMEOUT, trust_env=False, follow_redirects=False) as client:
            for event in events:
                if time.monotonic() > end or (stop is not None and stop.is_set()):
                    break
                error = _failure(client, webhook, event)
                if error:
                    stuck = event
                    break
                delivered.append(event.id)
        store.webhooks.settle(webhook, delivered, error, stuck)
        arrived += len(delivered)
    return arrived


def _failure(client: httpx.Client, webhook: Webhook, event: Event) -> str:
    """Send one event; returns why it did not arrive, or nothing."""
    body, moment = event.body.encode(), int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "popmargin",
        "X-Popmargin-Event": event.event,
        "X-Popmargin-Delivery": str(event.id),
        "X-Popmargin-Signature": signature(webhook.secret, moment, body),
    }
    try:
        url, host, extensions = _checked(webhook)
        with client.stream("POST", url, content=body, headers=headers | host, extensions=extensions) as answer:
            return "" if answer.is_success else f"it answered {answer.status_code}"
    except (httpx.HTTPError, OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def _checked(webhook: Webhook) -> tuple[str, dict[str, str], dict[str, str]]:
    """Where to connect: with a public address only, the one that was checked, so that no second look-up differs.

    Raises:
        ValueError: the host has an address that only this network reaches.
        OSError: it has none.
    """
    if webhook.private:
        return webhook.url, {}, {}
    parts = urlsplit(webhook.url)
    assert parts.hostname is not None
    found = socket.getaddrinfo(parts.hostname, parts.port or parts.scheme, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(one[4][0])) for one in found]
    for address in addresses:
        if not address.is_global or address.is_multicast:
            raise ValueError(
                f"{parts.hostname} is {address}, an address of the own network; it is only sent to with "
                "--webhook-private"
            )
    first = f"[{addresses[0]}]" if addresses[0].version == 6 else str(addresses[0])
    place = first if parts.port is None else f"{first}:{parts.port}"
    return urlunsplit(parts._replace(netloc=place)), {"Host": parts.netloc}, {"sni_hostname": parts.hostname}
