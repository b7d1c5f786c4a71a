"""Who may label: the annotators of a project and their tokens."""

import hashlib
import hmac
import itertools
import secrets
from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select, update

from popmargin.errors import ConfigError, DataError, counted, did_you_mean
from popmargin.label.store import assign, items, offers
from popmargin.label.store.answers import clean
from popmargin.label.store.changes import log_change
from popmargin.label.store.criteria import load_criteria
from popmargin.label.store.project_events import note_annotator
from popmargin.label.store.records import ANNOTATOR_KINDS, Annotator, Project
from popmargin.label.store.shown_columns import load_names
from popmargin.label.store.sql_tables import annotator, assignment, item, label, project, project_change

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
        "token": digest_of(token),
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
    _change(connection, number, {"token": digest_of(token)})
    return token


def note_example(connection: Connection, number: int) -> None:
    """Note that an annotator has read the worked example.

    Raises:
        DataError: there is no such annotator.
    """
    _change(connection, number, {"example_seen": True})


def annotators(connection: Connection, number: int) -> list[Annotator]:
    """All annotators of a project, oldest first."""
    query = select(annotator).where(annotator.c.project == number).order_by(annotator.c.id)
    return [_annotator_of(row) for row in connection.execute(query)]


def set_active(connection: Connection, number: int, active: bool, now: datetime) -> None:
    """Activate or deactivate an annotator; a deactivated one's open items are returned.

    If the answers of one who is activated were discarded, they count again, and take their places that are still free.

    Raises:
        DataError: there is no such annotator.
    """
    row = connection.execute(select(annotator).where(annotator.c.id == number)).one_or_none()
    _change(connection, number, {"active": active} | ({"discarded": False} if active else {}), now)
    if active and row is not None and row.discarded and row.kind == "person":
        answered = (
            select(assignment.c.id, assignment.c.item)
            .join_from(assignment, item, item.c.id == assignment.c.item)
            .where(
                assignment.c.annotator == number,
                assignment.c.state == "done",
                ~assignment.c.is_repeat,
                item.c.gold.is_(None),
            )
        )
        back = [one.id for one in connection.execute(answered).all() if assign.take_place(connection, one.item)]
        for start in range(0, len(back), 1000):
            part = assignment.c.id.in_(back[start : start + 1000])
            connection.execute(update(assignment).where(part).values(takes_place=True))
    if not active:
        _return_open(connection, number, now)
        offers.take_back(connection, number, None)


def _return_open(connection: Connection, number: int, now: datetime) -> None:
    leased = select(assignment).where(assignment.c.annotator == number, assignment.c.state == "leased")
    for row in connection.execute(leased).all():
        assign.end_lease(connection, row, "expired", now)


def discard(connection: Connection, number: int, now: datetime) -> int:
    """Deactivate an annotator whose answers shall not count; nothing is deleted, and `set_active` takes it back.

    Returns:
        How many places are free again, so that others are asked.

    Raises:
        DataError: there is no such annotator.
    """
    set_active(connection, number, False, now)
    _change(connection, number, {"discarded": True}, now)
    held = (assignment.c.annotator == number) & (assignment.c.state == "done") & assignment.c.takes_place
    theirs = select(assignment.c.item).where(held)
    connection.execute(
        update(item)
        .where(item.c.id.in_(theirs))
        .values(taken=item.c.taken - 1, returned=item.c.taken - 1 < item.c.overlap)
    )
    assign.forget_surplus(connection, theirs)
    free = connection.execute(
        select(func.count()).select_from(item).where(item.c.id.in_(theirs), item.c.taken < item.c.overlap)
    ).scalar_one()
    connection.execute(update(assignment).where(held).values(takes_place=False))
    return free


def acknowledge(connection: Connection, number: int, version: int) -> None:
    """Note that an annotator has read a version of the guidelines; their next labels are under it.

    Raises:
        DataError: there is no such annotator, or not yet such a version.
    """
    newest = connection.execute(
        select(project.c.guidelines_version).join_from(annotator, project).where(annotator.c.id == number)
    ).scalar()
    if not 1 <= version <= (newest or 1):
        raise DataError(f"The guidelines have no version {version}; the newest is {newest or 1}.")
    _change(connection, number, {"guidelines_seen": version})


def let_in(connection: Connection, number: int, now: datetime) -> None:
    """Let an annotator go on who got too few training items right.

    Raises:
        DataError: there is no such annotator.
    """
    _change(connection, number, {"held": False}, now)


def set_quota(connection: Connection, number: int, quota: int | None, now: datetime) -> None:
    """Ask an annotator for this many answers in all, or without a limit.

    Raises:
        ConfigError: the number is below 0.
        DataError: there is no such annotator.
    """
    if quota is not None and not 0 <= quota < 2**31:
        raise ConfigError(f"A quota of {quota} answers: give a number from 0, or none for no limit.")
    _change(connection, number, {"quota": quota}, now)


def set_lead(connection: Connection, number: int, lead: bool, now: datetime) -> None:
    """Let a person see the admin pages of their project, or not any more.

    Raises:
        DataError: there is no such annotator, or it is a model.
    """
    _refuse_model(connection, number, "lead a project")
    _change(connection, number, {"lead": lead}, now)


def set_weight(connection: Connection, number: int, weight: float, who: str, now: datetime) -> None:
    """Let each label of an annotator count so much; the change is logged.

    Raises:
        ConfigError: the weight is not above 0 and at most 1.
        DataError: there is no such annotator.
    """
    if not 0 < weight <= 1:
        raise ConfigError(
            f"A weight of {weight:g}: give a number above 0 and at most 1. Labels that shall not count at all are "
            "discarded."
        )
    row = connection.execute(select(annotator).where(annotator.c.id == number)).one_or_none()
    _change(connection, number, {"weight": None if weight == 1 else weight}, now)
    before = 1.0 if row is None or row.weight is None else row.weight
    if row is not None and before != weight:
        log_change(connection, row.project, who, f"weight of {row.name}"[:40], f"{before:g}", f"{weight:g}", now)


def _refuse_model(connection: Connection, number: int, what: str) -> None:
    row = connection.execute(select(annotator).where(annotator.c.id == number)).one_or_none()
    if row is not None and row.kind != "person":
        raise DataError(f"'{row.name}' is a model; only people {what}.")


def set_adjudicator(connection: Connection, number: int, adjudicator: bool, now: datetime) -> None:
    """Let an annotator decide items on which others disagree, or label like others again; what is open is returned.

    Raises:
        DataError: there is no such annotator, or it is a model.
    """
    _refuse_model(connection, number, "adjudicate")
    _change(connection, number, {"adjudicator": adjudicator}, now)
    _return_open(connection, number, now)
    if adjudicator:
        offers.take_back(connection, number, None)


def forget(connection: Connection, number: int, now: datetime) -> str:
    """Remove an annotator's name, notes and access for good; the labels stay under a pseudonym, which is returned.

    Raises:
        DataError: there is no such annotator.
    """
    row = connection.execute(select(annotator).where(annotator.c.id == number)).one_or_none()
    if row is None:
        raise DataError(f"There is no annotator {number}.")
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")  # else the bytes stay in the file
    items.lock_project(connection, row.project)
    known = {found.name for found in annotators(connection, row.project)}
    pseudonym = next(name for count in itertools.count(1) if (name := f"person {count}") not in known)
    set_active(connection, number, False, now)
    token = digest_of(secrets.token_urlsafe(32))
    _change(connection, number, {"name": pseudonym, "token": token})
    connection.execute(update(label).where(label.c.annotator == number).values(note=""))
    theirs = (project_change.c.project == row.project) & (project_change.c.who == row.name)
    connection.execute(update(project_change).where(theirs).values(who=pseudonym))
    note_annotator(connection, row, now, forgotten=True)
    return pseudonym


def refuse_unknown(connection: Connection, number: int, names: Collection[str]) -> None:
    """Raise a DataError if the project has no annotator of one of these names."""
    known = [found.name for found in annotators(connection, number)] if names else []
    for name in names:
        if name not in known:
            raise DataError(f"The project has no annotator '{name}'. {did_you_mean(name, known)}")


def annotator_of(connection: Connection, token: str) -> tuple[Project, Annotator] | None:
    """Project and annotator of a token; None if it is nobody's, or the annotator is not active.

    The database looks up the token's hash, so timing tells an attacker nothing about a token.
    """
    digest = digest_of(token)
    row = connection.execute(select(annotator).where(annotator.c.token == digest)).one_or_none()
    if row is None or not hmac.compare_digest(row.token, digest) or not row.active:
        return None
    owner = connection.execute(select(project).where(project.c.id == row.project)).one()
    return project_of(owner), _annotator_of(row)


def is_switched_off(connection: Connection, token: str) -> bool:
    """Whether a token is that of an annotator who is not active."""
    found = connection.execute(select(annotator.c.active).where(annotator.c.token == digest_of(token))).scalar()
    return found is False


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
    values |= {
        "images": bool(row.images),
        "guidelines_version": row.guidelines_version or 1,
        "state": row.state or "open",
        "votes_hidden": bool(row.votes_hidden),
    }
    values |= {"wording": row.wording or "better", "grades": bool(row.grades), "shown": load_names(row.shown)}
    values |= {"both_bad": bool(row.both_bad), "criteria": load_criteria(row.criteria)}
    return Project(**values)


def _change(connection: Connection, number: int, values: dict[str, Any], now: datetime | None = None) -> None:
    """Change a row of the table of annotators; with a time, whoever watches the project is told what is different."""
    before = None
    if now is not None:
        before = connection.execute(select(annotator).where(annotator.c.id == number)).one_or_none()
    changed = connection.execute(update(annotator).where(annotator.c.id == number).values(**values))
    if changed.rowcount != 1:
        raise DataError(f"There is no annotator {number}.")
    if before is not None and now is not None:
        note_annotator(connection, before, now)


def digest_of(token: str) -> str:
    """What is stored of a token: its SHA-256."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _annotator_of(row: Any) -> Annotator:
    return Annotator(
        id=row.id,
        name=row.name,
        kind=row.kind,
        active=row.active,
        discarded=bool(row.discarded),
        guidelines_seen=row.guidelines_seen or 0,
        held=bool(row.held),
        adjudicator=bool(row.adjudicator),
        quota=row.quota,
        example_seen=bool(row.example_seen),
        lead=bool(row.lead),
        weight=1.0 if row.weight is None else row.weight,
    )
