"""Storing and reading what is labelled: preferences and items."""

import json
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from sqlalchemy import Connection, select, update

from popmargin.data.questions import KINDS, RATINGS, SIDES, Kind, PreferenceText, Side
from popmargin.data.saving import holds_bytes, known_fields, plain_value
from popmargin.data.schema import COLUMNS, NUMBER_COLUMNS, TEXT_COLUMNS, Preferences, holds_images
from popmargin.errors import ConfigError, DataError, counted, did_you_mean
from popmargin.label.store.chained_tasks import run_links
from popmargin.label.store.criteria import load_criteria, names_in
from popmargin.label.store.database import CHUNK, Database
from popmargin.label.store.known import Known, changed_known, known_columns
from popmargin.label.store.ranked_items import check_rankings
from popmargin.label.store.sql_tables import annotator, item, preference, project

WORDING_CHARACTERS = 60
STORED = tuple(name for name in COLUMNS if name != "cluster")
"""Columns of preferences that have their own column in the store; the others share one."""
EVERYBODY = 1_000_000_000
"""Overlap of a gold item."""
RANGES = {
    "overlap": (1, 1_000_000),
    "lease_seconds": (1, 365 * 24 * 3600),
    "seed": (0, 2**63 - 1),
    "scale": (2, len(RATINGS)),
    "training": (1, 1_000_000),
}
"""Smallest and largest project settings that the database's columns and times can hold."""


def check_settings(
    *,
    repeat_share: float | None = None,
    passing: float | None = None,
    wording: str | None = None,
    **settings: Any,
) -> None:
    """Refuse settings of a project that are out of range; None and settings without a range pass.

    Raises:
        ConfigError: it names the setting and its range.
    """
    for name, (least, most) in RANGES.items():
        value = settings.get(name)
        if value is not None and not least <= value <= most:  # also nan
            raise ConfigError(f"{name}={value}: give a number from {least} to {most}.")
    if wording is not None and not 1 <= len(wording.strip()) <= WORDING_CHARACTERS:
        raise ConfigError(
            f"wording has {counted(len(wording.strip()), 'character')}: give a comparative of 1 to "
            f"{WORDING_CHARACTERS}, such as: more convincing."
        )
    if repeat_share is not None and not 0 <= repeat_share < 1:
        raise ConfigError(f"repeat_share={repeat_share}: give a number ≥ 0 and below 1.")
    if passing is not None and not 0 < passing <= 1:
        raise ConfigError(f"passing={passing}: give a share above 0 and at most 1.")


def lock_project(connection: Connection, number: int) -> Any:
    """The row of a project, locked against other changes.

    Raises:
        DataError: no such project.
    """
    row = connection.execute(
        select(project).where(project.c.id == number).with_for_update(key_share=True)
    ).one_or_none()  # fmt: skip
    if row is None:
        raise DataError(f"There is no project {number}.")
    return row


def check_import(connection: Connection, number: int, preferences: Preferences) -> Any:
    """The row of the project into which the preferences can be imported.

    Raises:
        DataError: it already has one of the ids, or other kinds of responses.
    """
    found = lock_project(connection, number)
    if found.conversational not in (None, preferences.conversational):
        kinds = ["plain text", "messages"]
        raise DataError(
            f"Project '{found.name}' holds {kinds[found.conversational]}, {preferences.report.source} "
            f"{kinds[preferences.conversational]}. Use a separate project."
        )
    if found.preferences and bool(found.images) != holds_images(preferences):
        kinds = ["texts", "images"]
        raise DataError(
            f"The responses of project '{found.name}' are {kinds[bool(found.images)]}, those of "
            f"{preferences.report.source} {kinds[holds_images(preferences)]}. Use a separate project."
        )
    _refuse_known(connection, found, preferences)
    return found


def import_preferences(database: Database, connection: Connection, number: int, preferences: Preferences) -> int:
    """Store preferences with all their columns, after those that the project has."""
    found = check_import(connection, number, preferences)
    position = found.preferences
    others = storable_columns(preferences)
    for batch in preferences.batches(*STORED, *others, size=CHUNK):
        columns: dict[str, list[Any]] = {name: [_json(value) for value in batch[name]] for name in TEXT_COLUMNS}
        columns |= {name: [_number(value) for value in batch[name]] for name in NUMBER_COLUMNS}
        columns |= {"key": batch["id"], "annotator": batch["annotator"]}
        columns["extra"] = [_extra(others, values) for values in zip(*(batch[name] for name in others), strict=True)]
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        for place, row in enumerate(rows, position):
            row |= {"project": number, "position": place}
        database.insert(connection, preference, rows)
        position += len(rows)
    connection.execute(
        update(project)
        .where(project.c.id == number)
        .values(preferences=position, conversational=preferences.conversational, images=holds_images(preferences))
    )
    return len(preferences)


def _refuse_known(connection: Connection, found: Any, preferences: Preferences) -> None:
    for row, key in enumerate(preferences.ids):
        if "\0" in key:
            raise DataError(
                f"{preferences.report.source}: row {row}: id {key!r} contains a NUL character. Change the id."
            )
    if found.preferences:
        known = preference_keys(connection, found.id)
        repeated = [key for key in preferences.ids if key in known]
        if repeated:
            raise DataError(
                f"{preferences.report.source}: project '{found.name}' already has {len(repeated)} of these ids, such "
                f"as {repeated[0]!r}. Nothing was imported: remove these rows, or use another project."
            )


def preference_keys(connection: Connection, number: int) -> dict[str, int]:
    """Id of each preference of a project -> its row in the database."""
    rows = connection.execute(select(preference.c.key, preference.c.id).where(preference.c.project == number))
    return {row.key: row.id for row in rows}


def add_items(
    database: Database,
    connection: Connection,
    number: int,
    kind: Kind,
    first: Sequence[str],
    second: Sequence[str] | None,
    gold: Sequence[Known | None] | None,
    overlap: int | None,
    response: Sequence[Side] | None,
    chained: bool = False,
    others: Sequence[Sequence[str]] | None = None,
) -> int:
    """Store items after those that the project has: in a shuffled order, or chained, in this one."""
    found = lock_project(connection, number)
    known = preference_keys(connection, number)
    _check_rankings(kind, first, others, known, found.name)
    _check_items(kind, first, second, gold, overlap, response, found)
    golds = _known(kind, first, gold, others, found)
    firsts = _rows_of(known, first, "first", found.name)
    seconds = [None] * len(first) if second is None else _rows_of(known, second, "second", found.name)
    responses = [None] * len(first) if response is None else list(response)
    places = overlap or found.overlap
    order = list(range(len(first))) if chained else item_order(found.seed, found.items, len(first))
    links = (
        run_links(first, second or (), [one["gold"] for one in golds])
        if chained and kind != "rank"
        else [None] * len(first)
    )
    for start in range(0, len(order), CHUNK):
        rows = [
            {
                "project": number,
                "position": found.items + place,
                "kind": kind,
                "first": firsts[row],
                "second": seconds[row],
                "others": None if others is None else json.dumps(list(others[row]), ensure_ascii=False),
                "response": responses[row],
                **golds[row],
                "overlap": places if golds[row]["gold"] is None else EVERYBODY,
                "taken": 0,
                "returned": False,
                "link": links[row],
            }
            for place, row in enumerate(order[start : start + CHUNK], start)
        ]
        database.insert(connection, item, rows)
    golden = sum(one["gold"] is not None for one in golds)
    connection.execute(
        update(project)
        .where(project.c.id == number)
        .values(
            items=project.c["items"] + len(first),
            gold_items=project.c.gold_items + golden,
            wanted=project.c.wanted + places * (len(first) - golden),
        )
    )
    return len(first)


def item_order(seed: int, items: int, count: int) -> list[int]:
    """The order in which new items are stored in a project with this seed and number of items."""
    return np.random.default_rng([seed % 2**63, items]).permutation(count).tolist()


def _check_items(
    kind: Any, first: Any, second: Any, gold: Any, overlap: int | None, response: Any, project: Any
) -> None:
    if kind not in KINDS:
        raise ConfigError(f"kind is {kind!r}. {did_you_mean(str(kind), KINDS)}")
    for name, column, of in (("second", second, "pop"), ("response", response, "rating")):
        if (column is not None) != (kind == of):
            raise DataError(
                f"Items of kind '{of}' need a {name} each (column '{name}'); items of other kinds must not have one."
            )
    if kind == "rating" and project.scale is None:
        raise DataError(f"Project '{project.name}' has no rating scale. Create a project with a scale, such as 5.")
    for name, column in (("second", second), ("gold", gold), ("response", response)):
        if column is not None and len(column) != len(first):
            raise DataError(
                f"{counted(len(first), 'item')} but {counted(len(column), 'value')} of '{name}'; give one per item."
            )
    check_settings(overlap=overlap)
    for row, (one, other) in enumerate(zip(first, second or (), strict=False)):
        if one == other:
            raise DataError(f"items: row {row}: first and second are the same preference, {one!r}. Remove the row.")
    for row, value in enumerate(response or ()):
        if value not in SIDES:
            raise DataError(f"items: row {row}: response is {value!r}. {did_you_mean(str(value), SIDES)}")


def _known(
    kind: Kind,
    first: Any,
    gold: Sequence[Known | None] | None,
    others: Sequence[Sequence[str]] | None,
    project: Any,
) -> list[dict[str, Any]]:
    """The columns of known answers of each item."""
    names = names_in(load_criteria(project.criteria))
    found: list[dict[str, Any]] = []
    for row, given in enumerate([None] * len(first) if gold is None else gold):
        size = 1 + (len(others[row]) if others else 0)
        known = changed_known({}, given, names, kind, project.scale, f"items: row {row}", size=size)
        found.append(known_columns(known, names))
    return found


def _check_rankings(
    kind: Kind, first: Sequence[str], others: Sequence[Sequence[str]] | None, known: dict[str, int], name: str
) -> None:
    if (others is not None) != (kind == "rank") or (others is not None and len(others) != len(first)):
        raise DataError(
            "Items of kind 'rank' need a list of the other preferences each; items of other kinds have none."
        )
    if others is not None:
        check_rankings(first, others)
        for row, rest in enumerate(others):
            missing = [key for key in rest if key not in known]
            if missing:
                raise DataError(
                    f"items: row {row}, column 'others': project '{name}' has no preference {missing[0]!r}. Import the "
                    "preferences first, with the same ids."
                )


def _rows_of(known: dict[str, int], keys: Sequence[str], column: str, name: str) -> list[int]:
    missing = [(row, key) for row, key in enumerate(keys) if key not in known]
    if missing:
        raise DataError(
            f"items: row {missing[0][0]}, column '{column}': project '{name}' has no preference {missing[0][1]!r} "
            f"({counted(len(missing), 'such row')}). Import the preferences first, with the same ids."
        )
    return [known[key] for key in keys]


def first_kind(connection: Connection, number: int) -> Kind | None:
    """The kind of a project's first item; None before there are any."""
    query = select(item.c.kind).where(item.c.project == number).order_by(item.c.id).limit(1)
    found = connection.execute(query).scalar()
    return None if found is None else cast(Kind, found)


def texts(connection: Connection, number: int, keys: Sequence[str]) -> dict[str, PreferenceText]:
    """Texts of preferences by id.

    Raises:
        DataError: an id that the project does not have.
    """
    found: dict[str, PreferenceText] = {}
    names = [preference.c[name] for name in ("key", *TEXT_COLUMNS)]
    for start in range(0, len(keys), 1000):
        rows = connection.execute(
            select(*names).where(preference.c.project == number, preference.c.key.in_(keys[start : start + 1000]))
        )
        for key, *values in rows:
            found[key] = preference_text(key, *values)
    for key in keys:
        if key not in found:
            raise DataError(f"Project {number} has no preference {key!r}.")
    return {key: found[key] for key in keys}


def some_texts(connection: Connection, number: int, most: int) -> dict[str, PreferenceText]:
    """Texts of at most so many preferences, evenly spread over the import."""
    count = connection.execute(select(project.c.preferences).where(project.c.id == number)).scalar() or 0
    every = max(1, -(-count // most))
    names = [preference.c[name] for name in ("key", *TEXT_COLUMNS)]
    rows = connection.execute(
        select(*names)
        .where(preference.c.project == number, preference.c.position % every == 0)
        .order_by(preference.c.position)
    )
    return {key: preference_text(key, *values) for key, *values in rows}


def preference_text(
    key: str, prompt: str, chosen: str, rejected: str, columns: tuple[tuple[str, str], ...] = ()
) -> PreferenceText:
    """The record of stored texts, with columns that are shown beside them."""
    texts = {"prompt": json.loads(prompt), "chosen": json.loads(chosen), "rejected": json.loads(rejected)}
    return PreferenceText(id=key, **texts, columns=columns)


def preference_columns(connection: Connection, number: int) -> dict[str, list[Any]]:
    """All columns of the imported preferences, in the order of import."""
    names = [*("key" if name == "id" else name for name in STORED), "extra"]
    rows = connection.execute(
        select(*(preference.c[name] for name in names))
        .where(preference.c.project == number)
        .order_by(preference.c.position)
    ).all()
    found = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in names]
    columns: dict[str, list[Any]] = dict(zip((*STORED, "extra"), found, strict=True))
    for name in TEXT_COLUMNS:
        columns[name] = [json.loads(value) for value in columns[name]]
    extra: list[dict[str, Any]] = [json.loads(value) if value else {} for value in columns.pop("extra")]
    others = dict.fromkeys(name for row in extra for name in row)
    columns |= {name: [row.get(name) for row in extra] for name in others}
    return {name: columns.get(name, [None] * len(rows)) for name in (*COLUMNS, *others)}


def active_people(connection: Connection, number: int) -> int:
    """Number of active annotators of a project who are people, without adjudicators and leads who label nothing."""
    rows = connection.execute(
        select(annotator.c.id).where(
            annotator.c.project == number, annotator.c.kind == "person", annotator.c.active,
            annotator.c.adjudicator.is_not(True), annotator.c.lead.is_not(True) | (annotator.c.done > 0)
        )
    )  # fmt: skip
    return len(rows.all())


def storable_columns(preferences: Preferences) -> list[str]:
    """The columns besides `STORED` that a store keeps: all except those with bytes, such as images."""
    schema = preferences.dataset.features.arrow_schema
    return [name for name in preferences.columns if name not in STORED and not holds_bytes(schema.field(name).type)]


def _extra(names: Sequence[str], values: Sequence[Any]) -> str | None:
    known = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    return json.dumps(known, ensure_ascii=False, default=plain_value) if known else None


def _json(value: Any) -> str:
    if isinstance(value, list):
        value = known_fields(value)
    return json.dumps(value, ensure_ascii=False)


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
