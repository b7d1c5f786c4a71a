"""Tables of labels, edges and ratings as files."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from popmargin.data.saving import known_fields, plain_value
from popmargin.files import whole_file
from popmargin.label.export.csv_files import CSV, Formulas, write_csv

TABLE_SUFFIXES = (".parquet", ".jsonl", *CSV)


def save_labels(table: Any, path: Path, *, formulas: Formulas = "guard") -> int:
    """Write a table as Parquet, as JSONL or CSV with times in ISO 8601; returns how many cells CSV guards.

    Raises:
        RunError: the path is a folder, or cannot be written.
    """
    if path.suffix.lower() in CSV:
        return write_csv(path, table.schema, [table], formulas=formulas)
    with whole_file(path, TABLE_SUFFIXES) as partial:
        if path.suffix.lower() == ".parquet":
            pq.write_table(table, partial, compression="zstd")
            return 0
        with partial.open("w", encoding="utf-8") as out:
            for batch in table.to_batches(max_chunksize=10_000):
                for row in batch.to_pylist():
                    plain = {name: known_fields(value) for name, value in row.items()}
                    out.write(json.dumps(plain, ensure_ascii=False, default=plain_value) + "\n")
    return 0
