"""Tables of preferences and responses as files: Parquet, or JSON lines."""

import gzip
import json
from collections.abc import Collection, Iterable
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from popmargin.errors import DataError
from popmargin.files import check_suffix, whole_file

SAVE_SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz")


def save_table(
    path: str | Path,
    schema: Any,
    tables: Iterable[Any],
    *,
    always: Collection[str] = (),
    once: Collection[str] = (),
    texts: Collection[str] = (),
) -> None:
    """Write tables as one file, which appears only when it is complete; the same rows give the same bytes.

    Args:
        path: `.parquet`, `.jsonl` or `.jsonl.gz`.
        schema: of all tables.
        tables: the rows, in order.
        always: columns in every JSON line; others only if they have a value.
        once: columns that also stand in the first line, so that those without any value are kept.
        texts: columns of messages, whose empty fields are omitted from JSON.

    Raises:
        ConfigError: the path has another suffix.
        DataError: a column has bytes, which JSON cannot hold.
        RunError: the path is a folder, or cannot be written.
    """
    check_suffix(path, SAVE_SUFFIXES)
    name = Path(path).name.lower()
    if not name.endswith(".parquet"):
        held = [field.name for field in schema if holds_bytes(field.type)]
        if held:
            raise DataError(
                f"{path}: the column '{held[0]}' contains bytes, which JSON cannot hold. Write a .parquet file, or "
                "drop the column."
            )
    with whole_file(path, SAVE_SUFFIXES) as partial:
        if name.endswith(".parquet"):
            with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
                for table in tables:
                    writer.write_table(table.combine_chunks().cast(schema))
            return
        with partial.open("wb") as raw:
            _write_lines(raw, tables, compress=name.endswith(".gz"), always=always, once=once, texts=texts)


def _write_lines(
    raw: IO[bytes],
    tables: Iterable[Any],
    *,
    compress: bool,
    always: Collection[str],
    once: Collection[str],
    texts: Collection[str],
) -> None:
    # No time stamp and no file name in the gzip header: the same rows give the same bytes.
    out = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) if compress else raw
    encode = json.JSONEncoder(ensure_ascii=False, default=plain_value).encode
    shown = {*always, *once}  # in the first line
    for table in tables:
        held = [name for name in table.column_names if name in shown or table[name].null_count < len(table)]
        holes = {name for name in held if table[name].null_count}
        left_out = holes - shown
        columns = table.select(held).to_pydict()
        for name in texts:
            columns[name] = map(known_fields, columns[name])
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(held, values, strict=True))
            for name in left_out:
                if row[name] is None:
                    del row[name]
            out.write(encode(row).encode() + b"\n")
            shown, left_out = set(always), holes.difference(always)
    if compress:
        out.close()


def known_fields(text: Any) -> Any:
    """A text, or messages from Arrow without their null fields."""
    if not isinstance(text, list):
        return text
    turns: list[dict[str, Any]] = text
    return [{name: value for name, value in turn.items() if value is not None} for turn in turns]


def plain_value(value: Any) -> Any:
    """Values without a JSON type, as text or number."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return float(value) if isinstance(value, Decimal) else str(value)


def holds_bytes(kind: Any) -> bool:
    """Whether an Arrow type is or contains bytes."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in binary) or any(holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
