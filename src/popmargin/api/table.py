"""A table of results by preference: columns by name, without a data-frame library."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from popmargin.errors import DataError, NoSuchNameError, counted, did_you_mean, first_few, import_extra
from popmargin.files import PARQUET, whole_file

_SUFFIXES = (*PARQUET, ".csv", ".jsonl")
_SHOWN = 5


class Table(Mapping[str, np.ndarray]):
    """Columns of equal length by name: `table["margin"]`; `dict(table)` goes into `datasets.Dataset.from_dict`.

    Args:
        columns: name -> values, one per row.
        left_out: id and reason of every preference without a row.

    Raises:
        DataError: columns of different lengths.

    Example:
        >>> table = Table({"id": ["a", "b"], "margin": [0.5, -1.0]})
        >>> table
        Table of 2 rows: id (a, b), margin (0.5, -1)
        >>> float(table["margin"].mean()), table.rows
        (-0.25, 2)
    """

    def __init__(self, columns: Mapping[str, Any], *, left_out: tuple[tuple[str, str], ...] = ()) -> None:
        self._columns = {name: _array(values) for name, values in columns.items()}
        self.left_out = left_out
        lengths = {name: len(values) for name, values in self._columns.items()}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise DataError(f"The columns of a table must have equal lengths; these differ: {said}.")

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(next(iter(self._columns.values()), ()))

    @property
    def ids(self) -> list[str]:
        """The ids of the preferences, one per row."""
        return [str(name) for name in self["id"]]

    def __getitem__(self, name: str) -> np.ndarray:
        """The values of a column, one per row.

        Raises:
            NoSuchNameError: there is no column of that name.
        """
        if name not in self._columns:
            hint = did_you_mean(str(name), self._columns)
            raise NoSuchNameError(f"The table has no column {name!r}. {hint}")
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        columns = ", ".join(f"{name} ({_first(values)})" for name, values in self._columns.items())
        left = f"; {len(self.left_out)} preferences left out" if self.left_out else ""
        return f"Table of {self.rows} rows: {columns}{left}"

    def to_pandas(self) -> Any:
        """The table as a `pandas.DataFrame`.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return import_extra("pandas", "pandas").DataFrame(dict(self._columns))

    def save(self, path: str | Path) -> None:
        """Write a file in the format of its suffix: .parquet, .csv or .jsonl.

        Raises:
            ConfigError: another suffix.
            DataError: values per token do not fit into a CSV.
            RunError: the file cannot be written.
        """
        table: Any = pa.table({name: pa.array(values.tolist()) for name, values in self._columns.items()})
        with whole_file(path, _SUFFIXES) as partial:
            if str(path).lower().endswith(".csv"):
                lists = [name for name, values in self._columns.items() if values.dtype == object and _lists(values)]
                if lists:
                    raise DataError(f"{path}: {', '.join(lists)} have a list per row. Save a .parquet or .jsonl file.")
                pyarrow.csv.write_csv(table, partial)
            elif str(path).lower().endswith(".jsonl"):
                lines = (json.dumps(row) + "\n" for row in table.to_pylist())
                partial.write_text("".join(lines), encoding="utf-8")
            else:
                pq.write_table(table, partial)


def _array(values: Any) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values
    listed = list(values)
    if not listed or not isinstance(listed[0], (str, type(None), list, np.ndarray)):
        return np.array(listed)
    result = np.empty(len(listed), dtype=object)
    for place, value in enumerate(listed):  # numpy would turn lists of equal length into a matrix
        result[place] = np.array(value) if isinstance(value, list) else value
    return result


def _lists(values: np.ndarray) -> bool:
    return any(isinstance(value, np.ndarray) for value in values)


def _first(values: np.ndarray) -> str:
    return first_few([_written(value) for value in values[: _SHOWN + 1]], _SHOWN)


def _written(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return counted(len(value), "value")
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)
