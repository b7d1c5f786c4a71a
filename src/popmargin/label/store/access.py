"""Who may label: the annotators of a project and their tokens."""

import hashlib
import hmac
import secrets
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update

from popmargin.errors import ConfigError, DataError, counted, did_you_mean
from popmargin.label.store import assign, items
from popmargin.label.store.answers import clean
from popmargin.label.store.records import ANNOTATOR_KINDS, Annotator, Project
from popmargin.label.store.sql_tables import annotator, assignment, project

NAME_CHARACTERS = 200


def add_annotator(connection: Connection, number: int, name: str, kind: str, now: datetime) -> tuple[Annotator, str]:
    """A new annotator of a project and their token, of which only the SHA-256 is stored.

    Raises:
        ConfigError: the name is empty or too long, or there is no such kind.
        DataError: there is no such project.
    """
    if kind not in ANNOTATOR_KINDS:
        raise ConfigError(f"kind is {kind!r}. {did_you_mean(str(kind), ANNOTATOR_KINDS)}")
    token = secrets.token_urlsafe(32)
    values = {
        "project": number,
        "name": clean_name(name, "annotator"),
        "kind": kind,
        "active": True,
        "token": _digest(token),
        "cursor": -1,
        "number": 0,
        "done": 0,
        "repeats_done": 0,
        "created_at": now,
    }
    items.lock_project(connection, number)
    return _annotator_of(connection.execute(annotator.insert().values(**values).returning(annotator)).one()), token


def new_token(connection: Connection, number: int) -> str:
    """A new token for an annotator; the old one stops working.

    Raises:
        DataError: there is no such annotator.
    """
    token = secrets.token_urlsafe(32)
    _change(connection, number, {"token": _digest(token)})
    return token


def annotators(connection: Connection, number: int) -> list[Annotator]:
    """All annotators of a project, oldest first."""
    query = select(annotator).where(annotator.c.project == number).order_by(annotator.c.id)
    return [_annotator_of(row) for row in connection.execute(query)]


def set_active(connection: Connection, number: int, active: bool, now: datetime) -> None:
    """Activate or deactivate an annotator; a deactivated one's open items are returned.

    Raises:
        DataError: there is no such annotator.
    """
    _change(connection, number, {"active": active})
    if not active:
        leased = select(assignment).where(assignment.c.annotator == number, assignment.c.state == "leased")
        for row in connection.execute(leased).all():
            assign.end_lease(connection, row, "expired", now)


def annotator_of(connection: Connection, token: str) -> tuple[Project, Annotator] | None:
    """Project and annotator of a token; None if it is nobody's, or the annotator is not active.

    The database looks up the token's hash, so timing tells an attacker nothing about a token.
    """
    digest = _digest(token)
    row = connection.execute(select(annotator).where(annotator.c.token == digest)).one_or_none()
    if row is None or not hmac.compare_digest(row.token, digest) or not row.active:
        return None
    owner = connection.execute(select(project).where(project.c.id == row.project)).one()
    return project_of(owner), _annotator_of(row)


def clean_name(name: str, what: str) -> str:
    """A name as it is stored.

    Raises:
        ConfigError: it is empty or too long.
    """
    cleaned = clean(name).strip()
    if not 1 <= len(cleaned) <= NAME_CHARACTERS:
        raise ConfigError(
            f"The {what}'s name has {counted(len(cleaned), 'character')}; it needs 1 to {NAME_CHARACTERS}."
        )
    return cleaned


def project_of(row: Any) -> Project:
    """A row of the table of projects as a record."""
    values: dict[str, Any] = {name: getattr(row, name) for name in Project.__dataclass_fields__}
    values["images"] = bool(row.images)
    return Project(**values)


def _change(connection: Connection, number: int, values: dict[str, Any]) -> None:
    changed = connection.execute(update(annotator).where(annotator.c.id == number).values(**values))
    if changed.rowcount != 1:
        raise DataError(f"There is no annotator {number}.")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _annotator_of(row: Any) -> Annotator:
    return Annotator(id=row.id, name=row.name, kind=row.kind, active=row.active)
