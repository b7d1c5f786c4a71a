"""Items that a lead gives to a person: they get these before all others; a reserved one goes to nobody else.

Every function runs inside one write transaction.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, case, exists, func, select, update

from popmargin.errors import DataError
from popmargin.label.store.sql_tables import annotator, assignment, item, offer

_PART = 500


@dataclass(frozen=True, kw_only=True)
class Given:
    """What became of items that were to be given to a person; they add up to all of them.

    Attributes:
        given: they get these next.
        had: they have answered or skipped these, have them open, or were given them before.
        full: these have all their labels, or a known answer, which makes them go to everybody.
        short: of the given ones, those that want more labels than the people they are reserved for.
    """

    given: int = 0
    had: int = 0
    full: int = 0
    short: int = 0


def give(connection: Connection, who: int, numbers: Sequence[int], *, exclusive: bool) -> Given:
    """Give items to a person, who gets them before all others.

    Args:
        connection: of the transaction.
        who: id of the annotator.
        numbers: ids of items of their project.
        exclusive: nobody gets them who was not given them.

    Raises:
        DataError: no such annotator or item, a model, an adjudicator, or somebody who is not active.
    """
    person = connection.execute(select(annotator).where(annotator.c.id == who)).one_or_none()
    if person is None:
        raise DataError(f"There is no annotator {who}.")
    why = "is a model" if person.kind != "person" else "is not active" if not person.active else ""
    why = why or ("adjudicates, and gets no other items" if person.adjudicator else "")
    if why:
        raise DataError(f"'{person.name}' {why}, so no items can be given to them.")
    had, full, fresh = 0, 0, list[Any]()
    for start in range(0, len(numbers), _PART):
        part = numbers[start : start + _PART]
        rows = connection.execute(
            select(item.c.id, item.c.position, item.c.gold, (item.c.taken >= item.c.overlap).label("full"))
            .where(item.c.project == person.project, item.c.id.in_(part))
            .order_by(item.c.id)
            .with_for_update(key_share=True)
        ).all()
        if len(rows) < len(set(part)):
            unknown = min(set(part) - {row.id for row in rows})
            raise DataError(f"The project of '{person.name}' has no item {unknown}.")
        theirs = set(
            connection.execute(
                select(assignment.c.item).where(assignment.c.annotator == who, assignment.c.item.in_(part))
            ).scalars()
        ) | set(
            connection.execute(select(offer.c.item).where(offer.c.annotator == who, offer.c.item.in_(part))).scalars()
        )
        had += sum(row.id in theirs for row in rows)
        left = [row for row in rows if row.id not in theirs]
        full += sum(row.full or row.gold is not None for row in left)
        fresh += [row for row in left if not row.full and row.gold is None]
        if exclusive:  # also those that they were given before
            now = [row.id for row in rows if row.gold is None and not row.full]
            mine = select(offer.c.item).where(offer.c.annotator == who, offer.c.waiting)
            chosen = item.c.id.in_(now) & (item.c.id.in_([row.id for row in fresh]) | item.c.id.in_(mine))
            connection.execute(update(item).where(chosen).values(reserved=True))
    if fresh:
        rows = [{"annotator": who, "item": row.id, "position": row.position, "waiting": True} for row in fresh]
        connection.execute(offer.insert(), rows)
    return Given(given=len(fresh), had=had, full=full, short=_short(connection, [row.id for row in fresh]))


def _short(connection: Connection, numbers: Sequence[int]) -> int:
    """Of some items, those that are reserved for fewer people than they want labels from."""
    people = select(func.count()).select_from(offer).where(offer.c.item == item.c.id, offer.c.waiting).scalar_subquery()
    count = 0
    for start in range(0, len(numbers), _PART):
        chosen = item.c.id.in_(numbers[start : start + _PART])
        query = (
            select(func.count())
            .select_from(item)
            .where(chosen, item.c.reserved, people < item.c.overlap - item.c.taken)
        )
        count += connection.execute(query).scalar_one()
    return count


def take_back(connection: Connection, who: int, numbers: Sequence[int] | None) -> list[int]:
    """Take back what a person was given and has neither answered nor open; returns the items.

    What nobody waits for any more is no longer reserved, so that everybody gets it.

    Args:
        connection: of the transaction.
        who: id of the annotator.
        numbers: ids of items; None for all.
    """
    own = (assignment.c.annotator == who) & (assignment.c.item == offer.c.item)
    busy = exists().where(own, assignment.c.state.in_(("done", "leased")))
    query = select(offer.c.item).where(offer.c.annotator == who, ~busy).order_by(offer.c.position)
    found = list(connection.execute(query).scalars())
    chosen = None if numbers is None else set(numbers)
    back = [number for number in found if chosen is None or number in chosen]
    for start in range(0, len(back), _PART):
        part = back[start : start + _PART]
        connection.execute(offer.delete().where(offer.c.annotator == who, offer.c.item.in_(part)))
        waiting = exists().where(offer.c.item == item.c.id, offer.c.waiting)
        free = and_(item.c.id.in_(part), item.c.reserved, ~waiting)
        # An annotator who has passed it finds it as one that was returned.
        connection.execute(update(item).where(free).values(reserved=None, returned=item.c.taken < item.c.overlap))
    return back


def reassign(connection: Connection, who: int, to: int, numbers: Sequence[int] | None) -> Given:
    """Give what one person was given, and has neither answered nor open, to another."""
    mine = select(item.c.id).join_from(offer, item, item.c.id == offer.c.item)
    reserved = set(connection.execute(mine.where(offer.c.annotator == who, item.c.reserved)).scalars())
    back = take_back(connection, who, numbers)
    alone = give(connection, to, [number for number in back if number in reserved], exclusive=True)
    first = give(connection, to, [number for number in back if number not in reserved], exclusive=False)
    return Given(**{name: getattr(alone, name) + getattr(first, name) for name in Given.__dataclass_fields__})


def next_offered(person: Any) -> Any:
    """The query of the next item that was given to an annotator, as of `assign.lock_annotator`."""
    had = exists().where(assignment.c.annotator == person.id, assignment.c.item == item.c.id)
    return (
        select(item.c.id, item.c.position)
        .join_from(offer, item, item.c.id == offer.c.item)
        .where(offer.c.annotator == person.id, offer.c.waiting, item.c.taken < item.c.overlap, ~had)
        .order_by(offer.c.position)
        .limit(1)
    )


def taken_up(connection: Connection, who: int, number: int) -> None:
    """An annotator has got an item: if it was given to them, it waits no more."""
    mine = (offer.c.annotator == who) & (offer.c.item == number)
    connection.execute(update(offer).where(mine).values(waiting=False))


def free_runs(connection: Connection, project: int, numbers: Collection[int]) -> list[list[int]]:
    """Some items that want labels and were given to nobody, in runs of a chain, or one by one."""
    offered = exists().where(offer.c.item == item.c.id)
    rows = connection.execute(
        select(item.c.id, item.c.position, item.c.link)
        .where(item.c.project == project, item.c.gold.is_(None), item.c.taken < item.c.overlap, ~offered)
        .order_by(item.c.position)
    )
    wanted, runs = set(numbers), dict[int, list[int]]()
    for row in rows:
        if row.id in wanted:
            runs.setdefault(row.position - (row.link or 0), []).append(row.id)
    return list(runs.values())


def waiting_for(connection: Connection, project: int) -> dict[int, int]:
    """Annotator -> how many items that were given to them they have still to get, in a project."""
    rows = connection.execute(
        select(offer.c.annotator, func.count())
        .join_from(offer, item, item.c.id == offer.c.item)
        .where(item.c.project == project, offer.c.waiting, item.c.taken < item.c.overlap)
        .group_by(offer.c.annotator)
    )
    return {row[0]: row[1] for row in rows}


def places_of_others(connection: Connection, project: int, who: int) -> tuple[int, int]:
    """Free places on reserved items that an annotator does not get, and how many items they were given and wait."""
    places = select(func.coalesce(func.sum(item.c.overlap - item.c.taken), 0)).where(
        item.c.project == project, item.c.reserved.is_not(None), item.c.taken < item.c.overlap
    )
    reserved = int(connection.execute(places).scalar_one())
    reserved_places = case((item.c.reserved.is_not(None), item.c.overlap - item.c.taken), else_=0)
    own = (
        select(func.count(), func.coalesce(func.sum(reserved_places), 0))
        .join_from(offer, item, item.c.id == offer.c.item)
        .where(offer.c.annotator == who, offer.c.waiting, item.c.taken < item.c.overlap)
    )
    given, mine = connection.execute(own).one()
    return reserved - int(mine), int(given)
