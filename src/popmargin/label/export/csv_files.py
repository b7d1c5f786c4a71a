"""Tables as CSV for spreadsheets, whose texts cannot act as formulas."""

import csv
import json
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

from popmargin.data.saving import holds_bytes, known_fields, plain_value
from popmargin.errors import DataError
from popmargin.files import whole_file

CSV = (".csv",)
Formulas = Literal["guard", "keep"]
"""What to do with texts that a spreadsheet would run: put an apostrophe before them, or write them as they are."""
_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_csv(path: Path, schema: Any, tables: Iterable[Any], *, formulas: Formulas = "guard") -> int:
    """Write Arrow tables as one CSV file in UTF-8, which appears only when it is complete.

    Lists and objects become JSON, times ISO 8601, missing values empty cells.

    Args:
        path: `.csv`.
        schema: of all tables.
        tables: the rows, in order.
        formulas: "guard" puts an apostrophe before texts that begin with = + - @, a tab or a carriage return, after
            any apostrophes, so that `unguarded` restores each; "keep" writes them unchanged. Numbers are numbers.

    Returns:
        How many cells got an apostrophe.

    Raises:
        ConfigError: the path has another suffix.
        DataError: a column has bytes.
        RunError: the path is a folder, or cannot be written.
    """
    held = [field.name for field in schema if holds_bytes(field.type)]
    if held:
        raise DataError(f"{path}: the column '{held[0]}' contains bytes, which CSV cannot hold. Write a .parquet file.")
    count = 0
    with whole_file(path, CSV) as partial, partial.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(schema.names)
        for table in tables:
            for batch in table.select(schema.names).to_batches(max_chunksize=10_000):
                for values in zip(*batch.to_pydict().values(), strict=True):
                    cells, guarded = _cells(values, formulas)
                    writer.writerow(cells)
                    count += guarded
    return count


def _cells(values: Sequence[Any], formulas: Formulas) -> tuple[list[Any], int]:
    cells = [_cell(value) for value in values]
    if formulas == "keep":
        return cells, 0
    run = [isinstance(cell, str) and cell.lstrip("'").startswith(_STARTS) for cell in cells]
    return [f"'{cell}" if guard else cell for cell, guard in zip(cells, run, strict=True)], sum(run)


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, list | dict):
        return json.dumps(known_fields(value), ensure_ascii=False, default=plain_value)
    return value


def unguarded(cell: str) -> str:
    """A cell as it was before it got an apostrophe.

    Example:
        >>> unguarded("'=1+1"), unguarded("''-a"), unguarded("'tis")
        ('=1+1', "'-a", "'tis")
    """
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_STARTS) else cell


def said(count: int) -> str:
    """A sentence about cells that got an apostrophe; empty without any.

    Example:
        >>> said(0), said(1)[:30]
        ('', '1 cell begins like a formula a')
    """
    if not count:
        return ""
    begin = "1 cell begins" if count == 1 else f"{count:,} cells begin"
    return f"{begin} like a formula and got an apostrophe in front; --formulas keep writes the texts unchanged"
