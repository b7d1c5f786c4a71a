"""Reading the items of a project in the order they were added."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, select

from popmargin.label.store.database import CHUNK, Database
from popmargin.label.store.sql_tables import assignment, item, preference

ITEM_SCHEMA = pa.schema(
    [
        pa.field("item", pa.int64()),
        pa.field("kind", pa.string()),
        pa.field("first", pa.string()),
        pa.field("second", pa.string()),
        pa.field("gold", pa.string()),
        pa.field("response", pa.string()),
        pa.field("others", pa.string()),
    ]
)
"""`others` are the ids of the preferences after the first of a ranking, as a JSON list; null in other kinds."""


def item_batches(database: Database, number: int, unlabelled_by: int | None) -> Iterator[Any]:
    """Items in Arrow batches, each read in a transaction of its own."""
    last = 0
    while True:
        query = _items(number, last, CHUNK)
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
        with database.read() as connection:
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
    query = _items(number, after, limit)
    return connection.execute(query.where(item.c.gold.is_not(None)) if gold else query).mappings().all()


def _items(number: int, after: int, limit: int) -> Any:
    one, other = preference.alias("one"), preference.alias("other")
    return (
        select(
            item.c.id.label("item"), item.c.kind, one.c.key.label("first"), other.c.key.label("second"), item.c.gold,
            item.c.response, item.c.others,
        )
        .join_from(item, one, one.c.id == item.c.first)
        .outerjoin(other, other.c.id == item.c.second)
        .where(item.c.project == number, item.c.id > after)
        .order_by(item.c.id)
        .limit(limit)
    )  # fmt: skip
