"""Storing answers of people that were given elsewhere: they count like those given on the page."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from popmargin.data.questions import order_of
from popmargin.errors import ConfigError
from popmargin.label.store import access, items
from popmargin.label.store.answers import Answer
from popmargin.label.store.assign import shown
from popmargin.label.store.criteria import load_criteria, load_verdicts
from popmargin.label.store.database import Database
from popmargin.label.store.project_events import note_labels
from popmargin.label.store.ranked_items import drawn_order
from popmargin.label.store.sql_tables import annotator, assignment, item, label, project

_COLUMNS = ("swap_pairs", "swap_first", "swap_second")


@dataclass(frozen=True, kw_only=True)
class OutsideAnswer:
    """An answer to an item, with its time, and the order on its screen if that is known.

    Attributes:
        size: preferences of a ranking; 0 in other kinds.
        shown_order: of a ranking: its preferences from left to right; empty if that is not known.
    """

    item: int
    answer: Answer
    at: datetime
    order: tuple[bool, bool, bool] | None = None
    size: int = 0
    shown_order: tuple[int, ...] = ()


def outside_annotator(connection: Connection, number: int, name: str, now: datetime) -> int:
    """The person of this name in a project: a new one cannot sign in.

    Raises:
        ConfigError: the name is that of a model, empty or too long.
    """
    cleaned = access.clean_name(name, "annotator")
    found = connection.execute(
        select(annotator.c.id, annotator.c.kind).where(annotator.c.project == number, annotator.c.name == cleaned)
    ).one_or_none()
    if found is None:
        made, _ = access.add_annotator(connection, number, cleaned, "person", now)
        access.set_active(connection, made.id, False, now)
        return made.id
    if found.kind != "person":
        raise ConfigError(f"'{cleaned}' is a model in this project (kind '{found.kind}'), not a person. Rename one.")
    return int(found.id)


def record_outside(
    database: Database, connection: Connection, who: int, rows: Sequence[OutsideAnswer], now: datetime
) -> list[str | None]:
    """Store one person's answers to different items of their project.

    An answer takes a place of its item, or where all are taken makes room for one more. What the person has already
    answered stays.

    Returns:
        For each answer None, or the verdict that stands in its place.
    """
    person = connection.execute(
        select(annotator).where(annotator.c.id == who).with_for_update(key_share=True)
    ).one()  # fmt: skip
    found = items.lock_project(connection, person.project)
    further = {one.name for one in load_criteria(found.criteria)[1:]}
    if any(set(row.answer.criteria) != further for row in rows):
        raise ConfigError("The project asks about several criteria: a label has a verdict on each, or none is stored.")
    numbers = [row.item for row in rows]
    had = {
        row.item: row
        for row in connection.execute(
            select(assignment, label.c.verdict, label.c.criteria)
            .outerjoin(label, (label.c.assignment == assignment.c.id) & (label.c.revision == assignment.c.revision))
            .where(assignment.c.annotator == who, assignment.c.item.in_(numbers), ~assignment.c.is_repeat)
        )
    }
    stands = {number: row.verdict for number, row in had.items() if row.state == "done"}
    fresh = [row for row in rows if row.item not in stands]
    held = {number for number, row in had.items() if row.state == "leased" and row.takes_place}
    wanted = [row.item for row in fresh if row.item not in held]
    counts = not person.discarded  # whose labels do not count, holds no places
    places = _take_places(connection, person.project, wanted) if counts else dict.fromkeys(wanted, False)
    new = [row for row in fresh if row.item not in had]
    values = [
        {
            "project": person.project,
            "item": row.item,
            "annotator": who,
            "number": person.number + place,
            "state": "done",
            "expires_at": None,
            "revision": 1,
            "takes_place": places[row.item],
            "repeat_of": None,
            "is_repeat": False,
            **_order(found.seed, who, row),
            "changed_at": now,
        }
        for place, row in enumerate(new, 1)
    ]
    database.insert(connection, assignment, values)
    for row in (row for row in fresh if row.item in had):
        open_one = had[row.item]
        connection.execute(
            update(assignment)
            .where(assignment.c.id == open_one.id)
            .values(
                state="done",
                expires_at=None,
                revision=open_one.revision + 1,
                takes_place=row.item in held or places[row.item],
                changed_at=now,
                **_order(found.seed, who, row),
            )
        )
    given = connection.execute(
        select(assignment.c.item, assignment.c.id, assignment.c.revision).where(
            assignment.c.annotator == who, assignment.c.item.in_([row.item for row in fresh]), ~assignment.c.is_repeat
        )
    )
    of_item: Mapping[int, Any] = {row.item: row for row in given}
    labels = [
        {
            **row.answer.columns(),
            "assignment": of_item[row.item].id,
            "annotator": who,
            "revision": of_item[row.item].revision,
            "created_at": row.at,
        }
        for row in fresh
    ]
    database.insert(connection, label, labels)
    connection.execute(
        update(annotator)
        .where(annotator.c.id == who)
        .values(done=annotator.c.done + len(fresh), number=person.number + len(new))
    )
    note_labels(connection, who, [row.answer.request for row in fresh], now)
    others = {number: load_verdicts(had[number].criteria) for number in stands}
    return [_said(stands[row.item], others[row.item], row.answer) if row.item in stands else None for row in rows]


def _said(verdict: str, criteria: Mapping[str, str], given: Answer) -> str:
    """The verdict that stands, with those on further criteria if they are others than given."""
    if criteria == given.criteria:
        return verdict
    return "; ".join([verdict, *(f"{name}: {said}" for name, said in criteria.items())])


def _take_places(connection: Connection, number: int, wanted: Sequence[int]) -> dict[int, bool]:
    """Take a place of each item, or make one more; item -> whether it is counted, which it is not for gold."""
    if not wanted:
        return {}
    found = connection.execute(
        select(item.c.id, item.c.taken, item.c.overlap, item.c.gold).where(item.c.id.in_(wanted)).with_for_update()
    ).all()
    counted = [row for row in found if row.gold is None]
    full = [row.id for row in counted if row.taken >= row.overlap]
    if full:
        connection.execute(update(item).where(item.c.id.in_(full)).values(overlap=item.c.overlap + 1))
        more = project.c.wanted + len(full)
        connection.execute(update(project).where(project.c.id == number).values(wanted=more))
    if counted:
        one = item.c.id == bindparam("number")
        connection.execute(
            update(item)
            .where(one)
            .values(taken=item.c.taken + 1, returned=item.c.returned & (item.c.taken + 1 < item.c.overlap))
            .execution_options(synchronize_session=False),
            [{"number": row.id} for row in counted],
        )
    return {row.id: row.gold is None for row in found}


def _order(seed: int, who: int, row: OutsideAnswer) -> dict[str, bool | str | None]:
    """The order on the screen: the one that is known, or a drawn one that is marked as such."""
    drawn = shown(seed, who, row.item, repeat=False)
    values = row.order or (drawn.swap_pairs, drawn.swap_first, drawn.swap_second)
    unknown = row.order is None or (row.size > 0 and not row.shown_order)
    places = row.shown_order or drawn_order(seed, who, row.item, row.size, repeat=False)
    shown_order = order_of(places) if row.size else None
    return {**dict(zip(_COLUMNS, values, strict=True)), "shown_order": shown_order, "order_unknown": unknown}


def request_of(place: str) -> str:
    """A request key that names where an answer comes from.

    Example:
        >>> request_of("votes.csv:7").startswith("import votes.csv:7 ")
        True
    """
    return f"import {place[-150:]} {secrets.token_hex(6)}"
