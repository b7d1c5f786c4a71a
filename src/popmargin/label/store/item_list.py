"""Reading the items of a project in the order they were added."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, select

from popmargin.label.store.database import CHUNK, Database
from popmargin.label.store.known import known_on_first
from popmargin.label.store.sql_tables import assignment, item, preference
from popmargin.label.store.verdict_on import question_names

ITEM_SCHEMA = pa.schema(
    [
        pa.field("item", pa.int64()),
        pa.field("kind", pa.string()),
        pa.field("first", pa.string()),
        pa.field("second", pa.string()),
        pa.field("gold", pa.string()),
        pa.field("response", pa.string()),
        pa.field("others", pa.string()),
        pa.field("gold_criteria", pa.string()),
    ]
)
"""`others` are the ids of the preferences after the first of a ranking, as a JSON list; null in other kinds. `gold` is
the known answer to the only question, or on the first criterion, `gold_criteria` those by criterion, as JSON."""


def item_batches(database: Database, number: int, unlabelled_by: int | None) -> Iterator[Any]:
    """Items in Arrow batches, each read in a transaction of its own."""
    last = 0
    while True:
        with database.read() as connection:
            query = _items(connection, number, last, CHUNK)
            if unlabelled_by is not None:
                done = (
                    select(assignment.c.id)
                    .where(
                        assignment.c.annotator == unlabelled_by,
                        assignment.c.item == item.c.id,
                        assignment.c.state == "done",
                    )
                    .exists()
                )
                query = query.where(~done)
            rows = connection.execute(query).all()
        if not rows:
            return
        columns = [
            pa.array(list(column), field.type)
            for column, field in zip(zip(*rows, strict=True), ITEM_SCHEMA, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=ITEM_SCHEMA)
        last = rows[-1].item


def item_page(connection: Connection, number: int, after: int, limit: int, *, gold: bool) -> Sequence[Any]:
    """Some items after one of them; with `gold`, only those with a known answer."""
    query = _items(connection, number, after, limit)
    return connection.execute(query.where(item.c.gold.is_not(None)) if gold else query).mappings().all()


def _items(connection: Connection, number: int, after: int, limit: int) -> Any:
    one, other = preference.alias("one"), preference.alias("other")
    gold = known_on_first(question_names(connection, number)).label("gold")
    return (
        select(
            item.c.id.label("item"), item.c.kind, one.c.key.label("first"), other.c.key.label("second"), gold,
            item.c.response, item.c.others, item.c.gold_criteria,
        )
        .join_from(item, one, one.c.id == item.c.first)
        .outerjoin(other, other.c.id == item.c.second)
        .where(item.c.project == number, item.c.id > after)
        .order_by(item.c.id)
        .limit(limit)
    )  # fmt: skip
