"""Reading back: assignments to show, tables of labels, progress."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, case, func, select

from popmargin.data.questions import PreferenceText, Verdict
from popmargin.errors import DataError
from popmargin.label.store.answers import label_of
from popmargin.label.store.assign import leased
from popmargin.label.store.criteria import load_criteria, names_in
from popmargin.label.store.disputes import count_disputed, settled
from popmargin.label.store.image_rows import known_images
from popmargin.label.store.items import preference_text
from popmargin.label.store.known import known_of, known_on_first
from popmargin.label.store.label_counts import label_counts
from popmargin.label.store.offers import places_of_others
from popmargin.label.store.ranked_items import load_others, shown_order, with_others
from popmargin.label.store.records import SWAPS, Adjudication, Assignment, Progress, Shown, State
from popmargin.label.store.shown_columns import load_names, shown_values
from popmargin.label.store.sql_tables import annotator, assignment, item, label, preference, project
from popmargin.label.store.verdict_on import question_names

PAGE = 50_000
_TIME = pa.timestamp("us", tz="UTC")

LABEL_SCHEMA = pa.schema(
    [
        pa.field("label", pa.int64()),
        pa.field("assignment", pa.int64()),
        pa.field("item", pa.int64()),
        pa.field("kind", pa.string()),
        pa.field("first", pa.string()),
        pa.field("second", pa.string()),
        pa.field("response", pa.string()),
        pa.field("annotator", pa.string()),
        pa.field("annotator_kind", pa.string()),
        pa.field("verdict", pa.string()),
        pa.field("wrong", pa.string()),
        pa.field("confidence", pa.float64()),
        pa.field("grade", pa.int64()),
        pa.field("seconds", pa.float64()),
        pa.field("idle", pa.float64()),
        pa.field("note", pa.string()),
        pa.field("created_at", _TIME),
        pa.field("revision", pa.int64()),
        pa.field("request", pa.string()),
        pa.field("swap_pairs", pa.bool_()),
        pa.field("swap_first", pa.bool_()),
        pa.field("swap_second", pa.bool_()),
        pa.field("gold", pa.string()),
        pa.field("repeat_of", pa.int64()),
        pa.field("guidelines_version", pa.int64()),
        pa.field("training", pa.bool_()),
        pa.field("adjudicated", pa.bool_()),
        pa.field("criteria", pa.string()),
        pa.field("gold_criteria", pa.string()),
        pa.field("others", pa.string()),
        pa.field("shown_order", pa.string()),
    ]
)
"""Columns of tables of labels. `assignment` numbers the answer, `label` its revision; `repeat_of` is the assignment of
the first answer of the same annotator to the same item, null if this is the first. `response` says which response of
`first` is rated; the verdict is the rating then. `guidelines_version` is what the annotator had acknowledged;
`training` says that the known answer was shown after the answer, `adjudicated` that the answer decides a dispute. The
order on the screen is null for labels that were given elsewhere without it. `criteria` has the verdicts on the
project's criteria after the first, as JSON, and `gold_criteria` the known answers by criterion; `gold` is that on the
first. Of a ranking, `others` are the ids of its preferences after the first, as a JSON list, `verdict` is their order
by number and `shown_order` that on the screen."""

_ONE, _OTHER = preference.alias("one"), preference.alias("other")
_CURRENT = (label.c.assignment == assignment.c.id) & (label.c.revision == assignment.c.revision)
_SHOWN = (*SWAPS, "shown_order")
_GIVEN = ("id", "project", "item", "annotator", "number", "state", "expires_at", "shown_at", "idle", "training",
          "adjudicates", *_SHOWN)  # fmt: skip
_PREFERENCE = ("key", "prompt", "chosen", "rejected", "extra", "annotator")
_ASSIGNMENTS = (
    select(
        *(assignment.c[name] for name in _GIVEN),
        item.c.kind,
        item.c.response,
        item.c.gold,
        item.c.gold_criteria,
        item.c.others,
        project.c.criteria,
        project.c.images,
        project.c.shown,
        *(_ONE.c[name].label(f"one_{name}") for name in _PREFERENCE),
        *(_OTHER.c[name].label(f"other_{name}") for name in _PREFERENCE),
    )
    .join_from(assignment, item, item.c.id == assignment.c.item)
    .join(_ONE, _ONE.c.id == item.c.first)
    .outerjoin(_OTHER, _OTHER.c.id == item.c.second)
    .join(project, project.c.id == assignment.c.project)
)


def load_assignments(connection: Connection, who: int, numbers: Sequence[int]) -> list[Assignment]:
    """The assignments with these ids, in this order.

    Raises:
        DataError: one does not exist or is not this annotator's.
    """
    chosen = assignment.c.id.in_(numbers)
    rows = {row.id: row for row in connection.execute(_ASSIGNMENTS.where(chosen, assignment.c.annotator == who))}
    for number in numbers:
        if number not in rows:
            raise DataError(f"Annotator {who} has no assignment {number}.")
    current = {
        row.assignment: label_of(row)
        for row in connection.execute(select(label).join(assignment, _CURRENT).where(chosen))
    }  # fmt: skip
    assignments = [_assignment(rows[number], current.get(number)) for number in numbers]
    if any(row.others for row in rows.values()):
        keys = {number: load_others(row.others) for number, row in rows.items()}
        one = next(iter(rows.values()))
        every = sorted({key for named in keys.values() for key in named})
        texts = _shown_texts(connection, one.project, every, load_names(one.shown))
        assignments = with_others(assignments, keys, texts)
    if not any(row.images for row in rows.values()):
        return assignments
    sides = [side for one in assignments for side in one.preferences]
    named = {name for side in sides for name in (side.chosen, side.rejected) if isinstance(name, str)}
    known = known_images(connection, sorted(named))
    return [replace(one, images=known) for one in assignments]


def _shown_texts(
    connection: Connection, number: int, keys: Sequence[str], names: tuple[str, ...]
) -> dict[str, PreferenceText]:
    """Preferences of a project by key, with the columns that are shown."""
    rows = connection.execute(
        select(*(preference.c[name] for name in _PREFERENCE)).where(
            preference.c.project == number, preference.c.key.in_(keys)
        )
    )
    return {
        row.key: preference_text(
            row.key, row.prompt, row.chosen, row.rejected, shown_values(names, row.extra, row.annotator)
        )
        for row in rows
    }


def _assignment(row: Any, current: Any) -> Assignment:
    names = load_names(row.shown)
    one = shown_values(names, row.one_extra, row.one_annotator)
    second = None
    if row.other_key is not None:
        other = shown_values(names, row.other_extra, row.other_annotator)
        second = preference_text(row.other_key, row.other_prompt, row.other_chosen, row.other_rejected, other)
    names, known = names_in(load_criteria(row.criteria)), dict[str, Verdict]()
    if row.training and current is not None and current.verdict is not None:
        known = known_of(row.gold, row.gold_criteria, names)
    return Assignment(
        id=row.id,
        item=row.item,
        kind=row.kind,
        annotator=row.annotator,
        first=preference_text(row.one_key, row.one_prompt, row.one_chosen, row.one_rejected, one),
        second=second,
        shown=Shown(**{name: getattr(row, name) for name in SWAPS}, order=shown_order(row.shown_order)),
        expires_at=row.expires_at,
        state=row.state,
        label=current,
        number=row.number,
        response=row.response,
        shown_at=row.shown_at,
        idle=row.idle or 0.0,
        training=bool(row.training),
        adjudicates=bool(row.adjudicates),
        gold=known.pop(names[0], None),
        gold_criteria=known,
    )


def history(
    connection: Connection, who: int, limit: int, before: int | None, states: Sequence[State]
) -> list[Assignment]:
    """Assignments in these states, newest first."""
    query = select(assignment.c.id).where(assignment.c.annotator == who, assignment.c.state.in_(states))
    if before is not None:
        query = query.where(assignment.c.id < before)
    numbers = connection.execute(query.order_by(assignment.c.number.desc()).limit(limit)).scalars().all()
    return load_assignments(connection, who, numbers)


def progress(connection: Connection, number: int, who: int | None) -> Progress:
    """Read from counters, so it takes no longer for a million items."""
    items, done, wanted = label_counts(connection, number)
    open_now = leased(connection, number)
    own = (0, 0, 0, 0)
    if who is not None:
        own = _own(connection, who)
    answered, repeated, skipped, own_open = own
    others, given = (0, 0) if who is None else places_of_others(connection, number, who)
    left = min(items - (answered - repeated), max(wanted - done - open_now + own_open - others, 0))
    if _is_adjudicator(connection, who):
        left = own_open + count_disputed(connection, number)
    quota = connection.execute(select(annotator.c.quota).where(annotator.c.id == who)).scalar()
    left = left if quota is None else min(left, max(quota - answered, 0))
    return Progress(
        items=items,
        labels_wanted=wanted,
        labels_done=done,
        leased=open_now,
        own_done=answered,
        own_skipped=skipped,
        own_left=left if who is not None else 0,
        own_given=given,
    )


def _is_adjudicator(connection: Connection, who: int | None) -> bool:
    return bool(connection.execute(select(annotator.c.adjudicator).where(annotator.c.id == who)).scalar())


def _own(connection: Connection, who: int) -> tuple[int, int, int, int]:
    """Answers, those to repeated items, skipped and open assignments of an annotator."""
    row = connection.execute(
        select(annotator.c.done, annotator.c.repeats_done).where(annotator.c.id == who)
    ).one_or_none()  # fmt: skip
    if row is None:
        raise DataError(f"There is no annotator {who}.")
    states: dict[str, int] = {}
    for state, count in connection.execute(
        select(assignment.c.state, func.count())
        .where(assignment.c.annotator == who, assignment.c.state.in_(("leased", "skipped")))
        .group_by(assignment.c.state)
    ):
        states[state] = count
    return row.done, row.repeats_done, states.get("skipped", 0), states.get("leased", 0)


def label_table(
    connection: Connection,
    number: int,
    names: Sequence[str] | None,
    *,
    every_revision: bool,
    left_out: tuple[Collection[str], bool] | None = None,
    adjudication: Adjudication | None = None,
) -> Any:
    """Labels of a project in the order of assignments: the current ones, or all revisions.

    Args:
        connection: to read from.
        number: id of the project.
        names: columns of `LABEL_SCHEMA`; None for all.
        every_revision: also those that were changed or withdrawn.
        left_out: names of annotators without whose labels it is, and whether those of discarded ones are in it.
        adjudication: what becomes of items that an adjudicator has decided; None has all their labels.
    """
    gathered: list[Any] = []
    schema = LABEL_SCHEMA if names is None else pa.schema([LABEL_SCHEMA.field(name) for name in names])
    columns = _label_columns(schema.names, known_on_first(question_names(connection, number)))
    joined = label.c.assignment == assignment.c.id if every_revision else _CURRENT
    query = (
        select(*columns)
        .join_from(assignment, label, joined)
        .join(item, item.c.id == assignment.c.item)
        .join(annotator, annotator.c.id == assignment.c.annotator)
        .where(assignment.c.project == number)
        .order_by(assignment.c.id, label.c.revision)
    )
    if {"first", "second"} & set(schema.names):
        query = query.join(_ONE, _ONE.c.id == item.c.first).outerjoin(_OTHER, _OTHER.c.id == item.c.second)
    if left_out is not None:
        without, discarded = left_out
        query = query.where(annotator.c.name.not_in(list(without)))
        query = query if discarded else query.where(annotator.c.discarded.is_not(True))
    if not every_revision:
        query = query.where(label.c.verdict.is_not(None))
    if adjudication == "wins":
        query = query.where(assignment.c.adjudicates | item.c.id.not_in(settled(number)))
    elif adjudication == "ignore":
        query = query.where(assignment.c.adjudicates.is_not(True))
    result = connection.execution_options(yield_per=PAGE).execute(query)
    for rows in result.partitions(PAGE):
        arrays = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=True)]
        gathered.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return pa.Table.from_batches(gathered, schema=schema)


def _label_columns(names: Sequence[str], gold: Any) -> list[Any]:
    special = {
        "label": label.c.id,
        "assignment": assignment.c.id,
        "item": item.c.id,
        "kind": item.c.kind,
        "first": _ONE.c.key,
        "second": _OTHER.c.key,
        "response": item.c.response,
        "others": item.c.others,
        "annotator": annotator.c.name,
        "annotator_kind": annotator.c.kind,
        "gold": gold,
        "gold_criteria": item.c.gold_criteria,
        "training": func.coalesce(assignment.c.training, False),
        "adjudicated": func.coalesce(assignment.c.adjudicates, False),
        "repeat_of": assignment.c.repeat_of,
        **{name: case((assignment.c.order_unknown.is_(True), None), else_=assignment.c[name]) for name in _SHOWN},
    }
    return [(special[name] if name in special else label.c[name]).label(name) for name in names]
