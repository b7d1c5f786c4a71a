"""The events of a project: queued for its webhook in the transaction that writes what they tell, whoever writes it.

Every function runs inside one write transaction, and does nothing where a project has no webhook.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, func, select

from popmargin.label.store.criteria import load_verdicts
from popmargin.label.store.label_counts import label_counts
from popmargin.label.store.sql_tables import annotator, assignment, item, label, project, webhook, webhook_event

EVENTS = (
    "label.saved",
    "item.finished",
    "project.done",
    "guidelines.changed",
    "annotator.changed",
    "project.changed",
)
_PART = 500
_PERSON = ("active", "discarded", "adjudicator", "lead", "held", "quota", "weight")
"""What `annotator.changed` tells; none of it names anybody."""


def note(connection: Connection, number: int, event: str, values: Mapping[str, Any], now: datetime) -> None:
    """Queue an event of a project."""
    _queue(connection, number, [(event, values)], now)


def note_annotator(connection: Connection, before: Any, now: datetime, *, forgotten: bool = False) -> None:
    """Queue that something about an annotator is other than in this row, which was read before; or that the name,
    notes and access are gone."""
    row = connection.execute(select(annotator).where(annotator.c.id == before.id)).one()
    if not forgotten and all(getattr(row, name) == getattr(before, name) for name in _PERSON):
        return
    said = {name: bool(getattr(row, name)) for name in _PERSON[:-2]}
    weight = 1.0 if row.weight is None else row.weight
    values = {"annotator": row.id, "annotator_kind": row.kind, **said, "quota": row.quota, "weight": weight}
    note(connection, row.project, "annotator.changed", {**values, "forgotten": forgotten}, now)


def note_labels(connection: Connection, who: int, requests: Sequence[str], now: datetime) -> None:
    """Queue the events of answers that were just written: that each was saved, and what it finished.

    Args:
        connection: of the transaction that wrote them.
        who: whose they are; one annotator's answers to different items.
        requests: those of the answers.
        now: the time.
    """
    number = connection.execute(
        select(annotator.c.project).join_from(annotator, webhook, annotator.c.project == webhook.c.project)
        .where(annotator.c.id == who)
    ).scalar()  # fmt: skip
    if number is None:
        return
    finishing = False
    for start in range(0, len(requests), _PART):
        rows = _written(connection, who, requests[start : start + _PART])
        counts = _counts(connection, [row.item for row in rows if _is_new(row) and row.takes_place])
        finishing |= any(_is_new(row) for row in rows)
        _queue(connection, number, list(_told(rows, counts)), now)
    if finishing:
        items, done, wanted = label_counts(connection, number)
        if done >= wanted:
            values = {"items": items, "labels_done": done, "labels_wanted": wanted}
            note(connection, number, "project.done", values, now)


def _written(connection: Connection, who: int, requests: Sequence[str]) -> Sequence[Any]:
    """The labels, with what they answer, and the verdict that each replaces."""
    earlier = label.alias("earlier")
    before = and_(earlier.c.assignment == label.c.assignment, earlier.c.revision == label.c.revision - 1)
    return connection.execute(
        select(
            label, assignment.c.item, assignment.c.adjudicates, assignment.c.is_repeat, assignment.c.takes_place,
            item.c.kind, item.c.overlap, item.c.gold, annotator.c.kind.label("annotator_kind"),
            annotator.c.discarded, earlier.c.verdict.label("before"),
        )
        .join(assignment, assignment.c.id == label.c.assignment)
        .join(item, item.c.id == assignment.c.item)
        .join(annotator, annotator.c.id == label.c.annotator)
        .outerjoin(earlier, before)
        .where(label.c.annotator == who, label.c.request.in_(requests))
        .order_by(label.c.id)
    ).all()  # fmt: skip


def _is_new(row: Any) -> bool:
    """Whether a label may finish something: a person's first answer to an item, which counts."""
    counts = row.annotator_kind == "person" and not row.discarded and not row.adjudicates
    return counts and row.verdict is not None and row.before is None and not row.is_repeat


def _counts(connection: Connection, items: Sequence[int]) -> dict[int, int]:
    """Item -> answers that take its places."""
    held = assignment.c.item.in_(items) & (assignment.c.state == "done") & assignment.c.takes_place
    rows = connection.execute(select(assignment.c.item, func.count()).where(held).group_by(assignment.c.item))
    return {row[0]: row[1] for row in rows}


def _told(rows: Sequence[Any], counts: Mapping[int, int]) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in rows:
        about = {"item": row.item, "kind": row.kind}
        yield (
            "label.saved",
            {
                **about, "label": row.id, "assignment": row.assignment, "annotator": row.annotator,
                "annotator_kind": row.annotator_kind, "revision": row.revision, "verdict": row.verdict,
                "wrong": row.wrong, "confidence": row.confidence, "grade": row.grade,
                "criteria": load_verdicts(row.criteria), "seconds": row.seconds,
                "guidelines_version": row.guidelines_version, "repeat": row.is_repeat,
                "adjudicates": bool(row.adjudicates), "given_at": row.created_at.isoformat(),
            },
        )  # fmt: skip
        if row.gold is None and _is_new(row) and counts.get(row.item) == row.overlap:
            yield "item.finished", {**about, "labels": row.overlap}


def _queue(connection: Connection, number: int, events: Sequence[tuple[str, Mapping[str, Any]]], now: datetime) -> None:
    found = connection.execute(
        select(webhook.c.id, project.c.name).join_from(webhook, project).where(webhook.c.project == number)
    ).one_or_none()
    if found is None or not events:
        return
    head = {"project": {"id": number, "name": found.name}, "at": now.isoformat()}
    rows = [
        {
            "webhook": found.id,
            "event": event,
            "body": json.dumps({"event": event, **head, **values}, ensure_ascii=False),
            "created_at": now,
        }
        for event, values in events
    ]
    connection.execute(webhook_event.insert().values(rows))
