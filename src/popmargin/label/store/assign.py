"""Which item an annotator gets next. Every function runs inside one write transaction.

An item has `overlap` slots. A lease and a person's answer each take a slot; an expired lease and a skip return it.
Everybody goes through the items in the project's order, so items already started are completed first. Pairs in a chain
come in runs, each of which one annotator goes through in order; who finds no run to begin takes from others' ends.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, and_, exists, func, select, text, true, update

from popmargin.data.questions import order_of
from popmargin.errors import DataError
from popmargin.label.store.chained_tasks import RUN, kept_in_place
from popmargin.label.store.disputes import disputed
from popmargin.label.store.offers import next_offered, taken_up
from popmargin.label.store.ranked_items import drawn_order, load_others
from popmargin.label.store.records import SWAPS, Shown
from popmargin.label.store.sql_tables import LEASED, OPEN, START, annotator, assignment, item, project

REPEAT_AFTER = 10
"""Items are repeated only after at least this many others."""

NEAR = 5
"""A run goes on after as many other items, such as gold and repeated ones."""

_OPEN, _START, _RETURNED = text(OPEN), text(START), text("returned AND reserved IS NULL")
_GOLD = text("gold IS NOT NULL")


def lock_annotator(connection: Connection, number: int) -> Any:
    """The annotator with the settings of the project; other requests of the same annotator wait.

    Raises:
        DataError: no such annotator, or one who was deactivated.
    """
    row = connection.execute(
        select(
            annotator.c.id,
            annotator.c.name,
            annotator.c.kind,
            annotator.c.active,
            annotator.c.cursor,
            annotator.c.number,
            annotator.c.project,
            annotator.c.guidelines_seen,
            project.c.guidelines_version,
            project.c.seed,
            project.c.lease_seconds,
            project.c.repeat_share,
            project.c.scale,
            project.c.both_bad,
            project.c.criteria,
            project.c["items"],
            project.c.gold_items,
            project.c.training,
            project.c.passing,
            project.c.state.label("project_state"),
            annotator.c.held,
            annotator.c.adjudicator,
            annotator.c.quota,
            annotator.c.done,
        )
        .join_from(annotator, project)
        .where(annotator.c.id == number)
        .with_for_update(key_share=True, of=annotator)
    ).one_or_none()
    if row is None:
        raise DataError(f"There is no annotator {number}.")
    if not row.active:
        raise DataError(f"Annotator '{row.name}' is no longer active. Activate them to continue.")
    return row


def refuse_archived(person: Any) -> None:
    """Raise a DataError if the project of an annotator, as of `lock_annotator`, is archived."""
    if person.project_state == "archived":
        raise DataError("The project is archived, so nothing in it changes. Its lead can open it again.")


def own_assignment(connection: Connection, who: int, number: int) -> Any:
    """An assignment of this annotator.

    Raises:
        DataError: there is no such assignment, or it is someone else's.
    """
    row = connection.execute(
        select(assignment).where(assignment.c.id == number, assignment.c.annotator == who)
    ).one_or_none()
    if row is None:
        raise DataError(f"Annotator {who} has no assignment {number}.")
    return row


def next_assignment(connection: Connection, who: int, now: datetime) -> int | None:
    """The annotator's current assignment: the one opened last, or a new one; None if nothing is left."""
    person = lock_annotator(connection, who)
    if person.project_state in ("paused", "archived"):
        return None
    waiting = connection.execute(
        select(assignment.c.id)
        .where(assignment.c.annotator == who, assignment.c.state == "leased")
        .order_by(assignment.c.changed_at.desc(), assignment.c.number)
        .limit(1)
    ).scalar()
    if waiting is not None:
        lease(connection, waiting, person, now)
        return int(waiting)
    return_leases(connection, person.project, now)
    if person.quota is not None and person.done >= person.quota:
        return None
    if person.adjudicator:
        return (
            _again(connection, person, "expired", now, kind="adjudicates")
            or _disputed(connection, person, now)
            or _again(connection, person, "skipped", now, kind="adjudicates")
        )
    if person.held:
        return None
    return (
        _again(connection, person, "expired", now)
        or _training(connection, person, now)
        or _repeat(connection, person, now)
        or _gold(connection, person, now, share=person.gold_items / max(person.items, 1))
        or _offered(connection, person, now)
        or _next_in_run(connection, person, now)
        or _fresh(connection, person, now)
        or _gold(connection, person, now, share=1.0)
        or _again(connection, person, "skipped", now)
    )


def return_leases(connection: Connection, number: int, now: datetime) -> None:
    """End a project's expired leases, so that others get the items."""
    ended = connection.execute(
        select(assignment.c.id, assignment.c.item, assignment.c.takes_place)
        .where(assignment.c.project == number, LEASED, assignment.c.expires_at < now)
        .order_by(assignment.c.item)
        .with_for_update(key_share=True, skip_locked=True)
    ).all()
    for row in ended:
        end_lease(connection, row, "expired", now)


def end_lease(connection: Connection, row: Any, state: str, now: datetime) -> None:
    """Take an assignment from its annotator and return its slot."""
    connection.execute(
        update(assignment).where(assignment.c.id == row.id).values(state=state, expires_at=None, changed_at=now)
    )
    if row.takes_place:
        connection.execute(
            update(item)
            .where(item.c.id == row.item)
            .values(taken=item.c.taken - 1, returned=item.c.taken - 1 < item.c.overlap)
        )
        forget_surplus(connection, [row.item])


def forget_surplus(connection: Connection, numbers: Sequence[int] | Select[tuple[int]]) -> None:
    """After a place of each of these items was given back: one less is wanted where more were taken than asked for."""
    surplus = connection.execute(
        select(item.c.project, func.count())
        .where(item.c.id.in_(numbers), item.c.gold.is_(None), item.c.taken >= item.c.overlap)
        .group_by(item.c.project)
    ).all()
    for number, count in surplus:
        connection.execute(update(project).where(project.c.id == number).values(wanted=project.c.wanted - count))


def take_place(connection: Connection, number: int) -> bool:
    """Take a slot of the item; False if none is left."""
    result = connection.execute(
        update(item)
        .where(item.c.id == number, item.c.taken < item.c.overlap)
        .values(taken=item.c.taken + 1, returned=and_(item.c.returned, item.c.taken + 1 < item.c.overlap))
    )
    return result.rowcount == 1


def shown(seed: int, who: int, number: int, *, repeat: bool) -> Shown:
    """The order on the screen: three fair bits, the same for the same project seed, annotator and item."""
    bits = _hash(seed, who, number, "repeat" if repeat else "first")
    return Shown(swap_pairs=bool(bits & 1), swap_first=bool(bits & 2), swap_second=bool(bits & 4))


def _hash(*values: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(values).encode(), digest_size=7).digest(), "big")


def _chance(*values: object) -> float:
    return _hash(*values) / 2**56


def lease(connection: Connection, number: int, person: Any, now: datetime, *, since: datetime | None = None) -> None:
    """Renew an assignment's lease, for the project's lease time from now.

    Args:
        connection: of the transaction.
        number: id of the assignment.
        person: whose it is, as of `lock_annotator`.
        now: the time.
        since: when it ended, if it was not open: the time since then is idle.
    """
    ends = now + timedelta(seconds=person.lease_seconds)
    values: dict[str, Any] = {"state": "leased", "expires_at": ends, "changed_at": now}
    values["shown_at"] = func.coalesce(assignment.c.shown_at, now)
    if since is not None:
        values["idle"] = func.coalesce(assignment.c.idle, 0.0) + max((now - since).total_seconds(), 0.0)
    connection.execute(update(assignment).where(assignment.c.id == number).values(**values))


def _again(connection: Connection, person: Any, state: str, now: datetime, *, kind: str | None = None) -> int | None:
    """The annotator's own assignment with an expired lease, or skipped (longest ago first), if it still has a slot."""
    waiting = connection.execute(
        select(assignment.c.id, assignment.c.item, assignment.c.takes_place, assignment.c.changed_at)
        .join_from(assignment, item, assignment.c.item == item.c.id)
        .where(
            assignment.c.annotator == person.id,
            assignment.c.state == state,
            ~assignment.c.takes_place | (item.c.taken < item.c.overlap),
            true() if kind is None else assignment.c[kind],
        )
        .order_by(assignment.c.changed_at, assignment.c.number)
    ).all()
    for row in waiting:
        if not row.takes_place or take_place(connection, row.item):
            lease(connection, row.id, person, now, since=row.changed_at)
            return int(row.id)
    return None


def _repeat(connection: Connection, person: Any, now: datetime) -> int | None:
    """Occasionally, one of the annotator's earlier items that was not repeated yet."""
    last = person.number - REPEAT_AFTER
    if last < 1 or _chance(person.seed, person.id, person.number, "repeat?") >= person.repeat_share:
        return None
    start = 1 + _hash(person.seed, person.id, person.number, "which") % last
    repeat = assignment.alias("repeat")
    row = connection.execute(
        select(assignment.c.id, assignment.c.item)
        .where(
            assignment.c.annotator == person.id,
            assignment.c.number.between(start, last),
            assignment.c.state == "done",
            ~assignment.c.is_repeat,
            ~exists().where(repeat.c.annotator == person.id, repeat.c.item == assignment.c.item, repeat.c.is_repeat),
        )
        .order_by(assignment.c.number)
        .limit(1)
    ).one_or_none()
    return None if row is None else _give(connection, person, row.item, now, repeat_of=row.id)


def take_disputed(connection: Connection, who: int, number: int, now: datetime) -> int:
    """Open a disputed item for an adjudicator, who has chosen it.

    Raises:
        DataError: no adjudicator, or the item is not disputed any more.
    """
    person = lock_annotator(connection, who)
    refuse_archived(person)
    if not person.adjudicator:
        raise DataError(f"'{person.name}' does not adjudicate.")
    had = connection.execute(
        select(assignment.c.id).where(assignment.c.annotator == who, assignment.c.item == number)
    ).scalar()
    if had is not None or connection.execute(disputed(person.project).where(item.c.id == number)).scalar() is None:
        raise DataError("This item is not disputed any more, or somebody is deciding it.")
    return _give(connection, person, number, now, adjudicates=True)


def _disputed(connection: Connection, person: Any, now: datetime) -> int | None:
    """The first item on which others disagree, and that nobody is deciding."""
    had = exists().where(assignment.c.annotator == person.id, assignment.c.item == item.c.id)
    items = disputed(person.project).where(~had).order_by(item.c.position).limit(1)
    found = connection.execute(items).scalar()
    return None if found is None else _give(connection, person, found, now, adjudicates=True)


def _training(connection: Connection, person: Any, now: datetime) -> int | None:
    """One of the first gold items, which tell the known answer; who skips one gets it again before anything else."""
    if not person.training:
        return None
    found = next_training(connection, person)
    if found is not None:
        return _give(connection, person, found, now, training=True)
    return _again(connection, person, "skipped", now, kind="training")


def next_training(connection: Connection, person: Any) -> int | None:
    """The next gold item for the training of an annotator, as of `lock_annotator`; None if there is none to come."""
    if not person.training or not person.gold_items:
        return None
    had = connection.execute(
        select(func.count()).select_from(assignment).where(assignment.c.annotator == person.id, assignment.c.training)
    ).scalar_one()
    if had >= person.training:
        return None
    found = connection.execute(_not_had(person, _GOLD)).one_or_none()
    return None if found is None else int(found.id)


def _gold(connection: Connection, person: Any, now: datetime, *, share: float) -> int | None:
    """A gold item; everybody gets all of them, at the rate of their share of all items."""
    if not person.gold_items or _chance(person.seed, person.id, person.number, "gold?") >= share:
        return None
    found = connection.execute(_not_had(person, _GOLD)).one_or_none()
    return None if found is None else _give(connection, person, found.id, now)


def _offered(connection: Connection, person: Any, now: datetime) -> int | None:
    """The next item that the lead has given to the annotator."""
    found = _lock_first(connection, next_offered(person), wait=True)
    if found is None or not take_place(connection, found.id):
        return None
    return _give(connection, person, found.id, now, takes_place=True)


def _next_in_run(connection: Connection, person: Any, now: datetime) -> int | None:
    """The next item of the run in which the annotator is, or the one before where they came from the end."""
    last = connection.execute(
        select(item.c.position, item.c.link)
        .join_from(assignment, item, assignment.c.item == item.c.id)
        .where(
            assignment.c.annotator == person.id,
            assignment.c.number > person.number - NEAR,
            ~assignment.c.is_repeat,
            item.c.link.is_not(None),
        )
        .order_by(assignment.c.number.desc())
        .limit(1)
    ).one_or_none()
    if last is None:
        return None
    start = last.position - last.link
    run = (item.c.position.between(start, start + RUN - 1), item.c.position - item.c.link == start)
    for where, order in (
        (item.c.position > last.position, item.c.position),
        (item.c.position < last.position, item.c.position.desc()),
    ):
        found = _lock_first(connection, _not_had(person, _OPEN, order).where(*run, where), wait=False)
        if found is not None and take_place(connection, found.id):
            return _give(connection, person, found.id, now, takes_place=True)
    return None


def _fresh(connection: Connection, person: Any, now: datetime) -> int | None:
    """An item with a free slot: a returned one, the next one in the order or the first of the next run, or the last of
    all, in a run that somebody else has begun, or overlooked.

    All starts before `cursor` were done by the annotator or filled by others, except those that another transaction had
    locked. So at the end the search is among all items and waits for locks: nobody is told that nothing is left
    while something is.
    """
    forward, backward = item.c.position, item.c.position.desc()
    searches = ((_RETURNED, -1, forward, False), (_START, person.cursor, forward, False), (_OPEN, -1, backward, True))
    for where, after, order, wait in searches:
        found = _lock_first(connection, _not_had(person, where, order).where(item.c.position > after), wait=wait)
        if found is not None and take_place(connection, found.id):
            cursor = found.position if where is _START else person.cursor
            return _give(connection, person, found.id, now, takes_place=True, cursor=cursor)
    return None


def _lock_first(connection: Connection, query: Any, *, wait: bool) -> Any:
    return connection.execute(query.with_for_update(key_share=True, skip_locked=not wait, of=item)).one_or_none()


def _not_had(person: Any, where: Any, order: Any = item.c.position) -> Any:
    had = exists().where(assignment.c.annotator == person.id, assignment.c.item == item.c.id)
    return (
        select(item.c.id, item.c.position).where(item.c.project == person.project, where, ~had).order_by(order).limit(1)
    )


def _order_of(connection: Connection, person: Any, number: int, *, repeat: bool) -> Shown:
    """The order on the screen: drawn; in a chain the preference of the task before stays where it stood."""
    drawn = shown(person.seed, person.id, number, repeat=repeat)
    now = connection.execute(
        select(item.c.first, item.c.second, item.c.link, item.c.others).where(item.c.id == number)
    ).one()
    if now.others is not None:
        size = len(load_others(now.others)) + 1
        return replace(drawn, order=drawn_order(person.seed, person.id, number, size, repeat=repeat))
    if repeat or now.link is None:
        return drawn
    before = connection.execute(
        select(item.c.first, item.c.second, *(assignment.c[name] for name in SWAPS))
        .join_from(assignment, item, assignment.c.item == item.c.id)
        .where(assignment.c.annotator == person.id, assignment.c.number == person.number)
    ).one_or_none()
    return drawn if before is None else kept_in_place(before, now, drawn)


def _give(
    connection: Connection,
    person: Any,
    number: int,
    now: datetime,
    *,
    repeat_of: int | None = None,
    takes_place: bool = False,
    training: bool = False,
    adjudicates: bool = False,
    cursor: int | None = None,
) -> int:
    order = _order_of(connection, person, number, repeat=repeat_of is not None)
    made = connection.execute(
        assignment.insert()
        .values(
            project=person.project,
            item=number,
            annotator=person.id,
            number=person.number + 1,
            state="leased",
            expires_at=now + timedelta(seconds=person.lease_seconds),
            revision=0,
            takes_place=takes_place,
            training=training,
            adjudicates=adjudicates,
            repeat_of=repeat_of,
            is_repeat=repeat_of is not None,
            swap_pairs=order.swap_pairs,
            swap_first=order.swap_first,
            swap_second=order.swap_second,
            shown_order=order_of(order.order) if order.order else None,
            changed_at=now,
            shown_at=now,
            idle=0.0,
        )
        .returning(assignment.c.id)
    ).scalar_one()
    connection.execute(
        update(annotator)
        .where(annotator.c.id == person.id)
        .values(number=person.number + 1, cursor=person.cursor if cursor is None else cursor)
    )
    taken_up(connection, person.id, number)
    return int(made)


def leased(connection: Connection, number: int) -> int:
    """Number of a project's items that are open now."""
    return connection.execute(
        select(func.count()).select_from(assignment).where(assignment.c.project == number, LEASED)
    ).scalar_one()
