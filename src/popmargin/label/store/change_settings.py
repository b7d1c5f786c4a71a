"""Settings that change while people label: what is open is planned again, and no label is lost.

Every function runs inside one write transaction that has locked the project.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case, func, select, update

from popmargin.errors import ConfigError, DataError, counted, did_you_mean
from popmargin.label.language.page_texts import ENGLISH, texts_of
from popmargin.label.store.changes import log_change
from popmargin.label.store.criteria import load_criteria, names_in
from popmargin.label.store.items import EVERYBODY, check_settings, first_kind
from popmargin.label.store.known import Known, changed_known, known_columns, known_of
from popmargin.label.store.project_events import note
from popmargin.label.store.ranked_items import load_others
from popmargin.label.store.records import STATES
from popmargin.label.store.shown_columns import check_shown, dump_names, stored_names
from popmargin.label.store.sql_tables import annotator, assignment, item, project

CHANGEABLE = (
    "overlap",
    "repeat_share",
    "lease_seconds",
    "training",
    "passing",
    "state",
    "votes_hidden",
    "shown",
    "both_bad",
    "language",
)
"""Settings of a project that `LabelStore.change` takes."""
_PART = 1000


def change_settings(connection: Connection, found: Any, values: Mapping[str, Any], who: str, now: datetime) -> None:
    """Change settings of a project, and log each that is different.

    Args:
        connection: of the transaction.
        found: the project, as of `items.lock_project`.
        values: some of `CHANGEABLE`; None for `training` and `passing` means none.
        who: changes them.
        now: the time.

    Raises:
        ConfigError: a setting out of range, or a share to pass without training items.
    """
    check_settings(**values)
    if "shown" in values:
        check_shown(values["shown"], stored_names(connection, found.id), f"Project '{found.name}'")
        values = {**values, "shown": dump_names(values["shown"])}
    if values.get("state", "open") not in STATES:
        raise ConfigError(f"state is {values['state']!r}. {did_you_mean(str(values['state']), STATES)}")
    if "language" in values:
        texts_of(values["language"])
    before = {name: getattr(found, name) for name in values} | {"state": found.state or "open"}
    if "language" in values:
        before["language"] = found.language or ENGLISH
    if "both_bad" in values:
        before["both_bad"] = bool(found.both_bad)
        if values["both_bad"] and first_kind(connection, found.id) != "preference":
            raise ConfigError(
                f"'Both bad' is an answer about two responses, which project '{found.name}' asks nothing about."
            )
    new = {name: value for name, value in values.items() if value != before[name]}
    after = {"training": found.training, "passing": found.passing, **new}
    if after["passing"] is not None and not after["training"]:
        raise ConfigError(
            "passing is a share of training items, but there are none: set training too, or passing to 0."
        )
    for name, value in new.items():
        old, later = (texts_of(kept).lang if name == "language" else kept for kept in (before[name], value))
        log_change(connection, found.id, who, name, old, later, now)
        note(connection, found.id, "project.changed", {"setting": name}, now)
    if new:
        connection.execute(update(project).where(project.c.id == found.id).values(**new))
    if new.get("passing", 0) is None:  # nobody has to pass any more
        waiting = (annotator.c.project == found.id) & annotator.c.held
        connection.execute(update(annotator).where(waiting).values(held=None))
    if "overlap" in new:
        _plan_overlap(connection, found.id, new["overlap"])


def _plan_overlap(connection: Connection, number: int, overlap: int) -> None:
    """All items without a known answer ask for this many people; what was labelled more often stays labelled."""
    ordinary = (item.c.project == number) & item.c.gold.is_(None)
    connection.execute(
        update(item).where(ordinary).values(overlap=overlap, returned=item.c.returned & (item.c.taken < overlap))
    )
    most = case((item.c.taken > item.c.overlap, item.c.taken), else_=item.c.overlap)
    wanted = connection.execute(select(func.coalesce(func.sum(most), 0)).where(ordinary)).scalar_one()
    connection.execute(update(project).where(project.c.id == number).values(wanted=int(wanted)))
    _search_again(connection, number)


def _search_again(connection: Connection, number: int) -> None:
    """Items that an annotator has passed may be open again."""
    connection.execute(update(annotator).where(annotator.c.project == number).values(cursor=-1))


def set_gold(
    connection: Connection, found: Any, answers: Mapping[int, Known | None], who: str, now: datetime
) -> dict[str, int]:
    """Give items a known answer, another one, or none any more; their labels stay.

    An item with a known answer goes to everybody. One that has none any more asks for as many people as the others, and
    the labels that it has take places.

    Args:
        connection: of the transaction.
        found: the project, as of `items.lock_project`.
        answers: item -> known answer, or those on some criteria, of which the others keep theirs; None takes all away.
        who: changes them.
        now: the time.

    Returns:
        How many were "new", "changed" and "removed"; others had this answer.

    Raises:
        DataError: the project has no such item or criterion, or an answer is none to its kind.
    """
    names = names_in(load_criteria(found.criteria))
    rows: list[Any] = []
    numbers = list(answers)
    for start in range(0, len(numbers), _PART):
        chosen = item.c.id.in_(numbers[start : start + _PART]) & (item.c.project == found.id)
        rows += connection.execute(select(item).where(chosen)).all()
    missing = answers.keys() - {row.id for row in rows}
    if missing:
        raise DataError(f"Project '{found.name}' has no item {min(missing)}.")
    counts = {"new": 0, "changed": 0, "removed": 0}
    for row in rows:
        had = known_of(row.gold, row.gold_criteria, names)
        size = 1 + len(load_others(row.others))
        known = changed_known(had, answers[row.id], names, row.kind, found.scale, f"item {row.id}", size=size)
        if known == had:
            continue
        kind = "new" if not had else "removed" if not known else "changed"
        counts[kind] += 1
        if kind == "new":
            _become_gold(connection, row)
        elif kind == "removed":
            _become_ordinary(connection, row, found.overlap)
        connection.execute(update(item).where(item.c.id == row.id).values(**known_columns(known, names)))
    if any(counts.values()):
        said = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        log_change(connection, found.id, who, "gold", counted(found.gold_items, "item"), said, now)
        note(connection, found.id, "project.changed", {"setting": "gold"}, now)
        _search_again(connection, found.id)
    return counts


def _become_gold(connection: Connection, row: Any) -> None:
    connection.execute(update(item).where(item.c.id == row.id).values(overlap=EVERYBODY, taken=0, returned=False))
    connection.execute(update(assignment).where(assignment.c.item == row.id).values(takes_place=False))
    _count(connection, row.project, gold=1, wanted=-max(row.overlap, row.taken))


def _become_ordinary(connection: Connection, row: Any, overlap: int) -> None:
    """The item asks for `overlap` people; labels of people that count, and what is open, take places."""
    held = (assignment.c.item == row.id) & ~assignment.c.is_repeat & assignment.c.state.in_(("leased", "done"))
    people = select(annotator.c.id).where(
        annotator.c.project == row.project, annotator.c.kind == "person", annotator.c.discarded.is_not(True)
    )
    taken = connection.execute(
        update(assignment).where(held, assignment.c.annotator.in_(people)).values(takes_place=True)
    ).rowcount
    # Given back or skipped: it takes a place when it comes again.
    waiting = (assignment.c.item == row.id) & ~assignment.c.is_repeat & assignment.c.state.in_(("expired", "skipped"))
    connection.execute(update(assignment).where(waiting).values(takes_place=True))
    connection.execute(
        update(item).where(item.c.id == row.id).values(overlap=overlap, taken=taken, returned=taken < overlap)
    )
    _count(connection, row.project, gold=-1, wanted=max(overlap, taken))


def _count(connection: Connection, number: int, *, gold: int, wanted: int) -> None:
    connection.execute(
        update(project)
        .where(project.c.id == number)
        .values(gold_items=project.c.gold_items + gold, wanted=project.c.wanted + wanted)
    )
