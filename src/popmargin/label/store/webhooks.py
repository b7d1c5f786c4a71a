"""Webhooks: the events of a project, kept in the store until they are delivered, in order."""

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from sqlalchemy import Connection, delete, exists, func, select, update

from popmargin.errors import ConfigError
from popmargin.label.store import items
from popmargin.label.store.database import Database
from popmargin.label.store.records import Event, Webhook
from popmargin.label.store.sql_tables import webhook, webhook_event

LEASE = timedelta(minutes=2)
"""A process that delivers has the webhook to itself for so long; one that ends leaves it to others then."""
PATIENCE = timedelta(days=3)
_FIRST_WAIT, _LONGEST_WAIT = 5.0, 3600.0
_ERROR_CHARACTERS = 500


class Webhooks:
    """The webhooks of a store, one a project; every method is one small transaction.

    Args:
        database: that of the store.
        clock: returns the time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def set(self, number: int, url: str, *, private: bool = False) -> Webhook:
        """Send the events of a project to an address from now on, signed with a new secret; the earlier one ends.

        Args:
            number: id of the project.
            url: http:// or https://.
            private: allow addresses of the own network and machine.

        Raises:
            ConfigError: no such URL.
            DataError: there is no such project.
        """
        check_url(url)
        secret, now = secrets.token_urlsafe(32), self._clock()

        def change(connection: Connection) -> Webhook:
            items.lock_project(connection, number)
            _remove(connection, number)
            connection.execute(
                webhook.insert().values(
                    project=number, url=url, secret=secret, private=private, attempts=0, due_at=now, error="",
                    given_up=0,
                )
            )  # fmt: skip
            found = _of(connection, number)
            assert found is not None
            return found

        return self._database.write(change)

    def remove(self, number: int) -> None:
        """Send nothing more of a project, also not what waits."""
        self._database.write(lambda connection: _remove(connection, number))

    def of(self, number: int) -> Webhook | None:
        """The webhook of a project."""
        with self._database.read() as connection:
            return _of(connection, number)

    def due(self) -> list[int]:
        """Ids of webhooks for which something waits that may be sent now."""
        waits = exists().where(webhook_event.c.webhook == webhook.c.id)
        with self._database.read() as connection:
            return list(
                connection.execute(select(webhook.c.id).where(webhook.c.due_at <= self._clock(), waits)).scalars()
            )

    def waiting(self) -> list[Webhook]:
        """The webhooks for which something waits, also what may not be sent yet."""
        with self._database.read() as connection:
            numbers = connection.execute(select(webhook.c.project).order_by(webhook.c.id)).scalars().all()
            found = [_of(connection, number) for number in numbers]
        return [one for one in found if one is not None and one.waiting]

    def take(self, number: int, most: int) -> tuple[Webhook, list[Event]] | None:
        """The next events of a webhook, for this process alone until `LEASE` is over; None if another one has it.

        Args:
            number: id of the webhook.
            most: how many at most.
        """

        def claim(connection: Connection) -> tuple[Webhook, list[Event]] | None:
            now = self._clock()
            mine = (webhook.c.id == number) & (webhook.c.due_at <= now)
            if not connection.execute(update(webhook).where(mine).values(due_at=now + LEASE)).rowcount:
                return None
            row = connection.execute(select(webhook).where(webhook.c.id == number)).mappings().one()
            waiting = connection.execute(
                select(webhook_event).where(webhook_event.c.webhook == number).order_by(webhook_event.c.id).limit(most)
            ).all()
            events = [Event(id=one.id, event=one.event, body=one.body, created_at=one.created_at) for one in waiting]
            return Webhook(**row, waiting=len(events)), events

        return self._database.write(claim)

    def settle(self, found: Webhook, delivered: list[int], error: str = "", stuck: Event | None = None) -> None:
        """Note what became of the events that `take` gave out.

        Args:
            found: the webhook.
            delivered: ids of events that are sent no more.
            error: why the next one failed; empty if none did.
            stuck: that event; one older than `PATIENCE` is given up.
        """
        now = self._clock()
        given_up = stuck is not None and now - stuck.created_at > PATIENCE
        attempts = 0 if not error or delivered else found.attempts
        wait = min(_FIRST_WAIT * 2.0 ** min(attempts, 20), _LONGEST_WAIT) if error else 0.0
        gone = [*delivered, *([stuck.id] if stuck is not None and given_up else [])]

        def note(connection: Connection) -> None:
            connection.execute(delete(webhook_event).where(webhook_event.c.id.in_(gone)))
            values = {
                "attempts": attempts + 1 if error else 0,
                "error": error[:_ERROR_CHARACTERS],
                "due_at": now + timedelta(seconds=wait),
                "given_up": webhook.c.given_up + int(given_up),
            }
            connection.execute(update(webhook).where(webhook.c.id == found.id).values(**values))

        self._database.write(note)


def check_url(url: str) -> None:
    """Raise a ConfigError unless events can be sent to this address."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = None, None
    if parts is None or parts.scheme not in ("http", "https") or not host or parts.username or len(url) > 2000:
        raise ConfigError(
            f"The webhook '{url}' is no address to send to: give https://HOST/PATH, or http:// in your own network, "
            "without a user name."
        )


def _of(connection: Connection, number: int) -> Webhook | None:
    row = connection.execute(select(webhook).where(webhook.c.project == number)).mappings().one_or_none()
    if row is None:
        return None
    waiting = select(func.count()).select_from(webhook_event).where(webhook_event.c.webhook == row["id"])
    return Webhook(**row, waiting=connection.execute(waiting).scalar_one())


def _remove(connection: Connection, number: int) -> None:
    theirs = select(webhook.c.id).where(webhook.c.project == number)
    connection.execute(delete(webhook_event).where(webhook_event.c.webhook.in_(theirs)))
    connection.execute(delete(webhook).where(webhook.c.project == number))
