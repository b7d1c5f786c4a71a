"""Columns of the data outside the schema: collected while reading, kept with their own names and types."""

import json
import math
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import lazy_loader
import numpy as np
import pyarrow as pa
import pyarrow.compute

from popmargin.data.conversation import is_blank
from popmargin.data.exchange import exchange_rows
from popmargin.data.image_arrow import image_array
from popmargin.errors import DataError, counted

if TYPE_CHECKING:
    import datasets
else:  # it takes a second, and many commands need none of it
    datasets = lazy_loader.load("datasets")

pc: Any = pyarrow.compute
_ARROW_ERRORS = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError)
_MOST_KEYS = 64
"""Limit of distinct keys of objects: more are those of a dictionary, which a struct column would fill with nulls."""


class ExtraColumns:
    """Collects extra columns batch by batch, for the rows that were kept."""

    def __init__(self) -> None:
        self._parts: list[dict[str, Any]] = []
        self._counts: list[int] = []
        self._features: dict[str, Any] = {}
        self._as_text: set[str] = set()

    def add(
        self,
        rows: Sequence[Mapping[str, Any]],
        table: Any,
        names: Sequence[str],
        turned: np.ndarray,
        images: Collection[str] = (),
    ) -> list[Any]:
        """Add the kept rows of a batch.

        Args:
            rows: their values, for columns that the table does not have.
            table: their Arrow table, which keeps its types; None if they come from text or memory.
            names: the columns to keep.
            turned: rows (N,) whose chosen and rejected were swapped.
            images: those of the columns whose values, in `rows`, are images, `{bytes, path}`.

        Returns:
            The new arrays.
        """
        part: dict[str, Any] = {}
        features = {} if table is None else _features(table.schema)
        self._features.update(dict.fromkeys(images, datasets.Image()))
        for name in names:
            if name in images:
                part[name] = image_array([row.get(name) for row in rows])
            elif table is not None and name in table.schema.names:
                part[name] = table[name]
                self._features.setdefault(name, features.get(name))
            else:
                part[name] = self._array(name, [row.get(name) for row in rows])
        if part and turned.any():
            exchanged = exchange_rows(pa.table(part), turned)
            part = {name: exchanged[name] for name in exchanged.column_names}
        self._parts.append(part)
        self._counts.append(len(rows))
        return list(part.values())

    def _array(self, name: str, values: list[Any]) -> Any:
        if name not in self._as_text and not _holds_dictionaries(values):
            try:
                return pa.chunked_array([pa.array(values)])
            except _ARROW_ERRORS:
                pass
        self._as_text.add(name)
        return _json_texts(values)

    def finish(self, names: Sequence[str]) -> tuple[dict[str, tuple[Any, Any]], list[str]]:
        """Name -> (column, feature of `datasets`) of those columns that can be kept, and notes about the others."""
        notes: list[str] = []
        found: dict[str, tuple[Any, Any]] = {}
        order = dict.fromkeys([*names, *(name for part in self._parts for name in part)])
        for name in order:
            pieces = [
                part.get(name, pa.chunked_array([pa.nulls(count)]))
                for part, count in zip(self._parts, self._counts, strict=True)
            ]
            column = self._joined(name, pieces)
            try:
                feature = self._features.get(name) or _feature(name, column.type)
                found[name] = (column, feature)
            except Exception:  # whatever `datasets` raises for an unknown type
                notes.append(f"the column '{name}' ({column.type}) is not kept: `datasets` has no such type")
        for name in sorted(self._as_text & found.keys()):
            notes.append(f"the column '{name}' has values of several types, and is kept as JSON texts")
        return found, notes

    def _joined(self, name: str, pieces: list[Any]) -> Any:
        if not pieces:
            return pa.chunked_array([], pa.null())
        if name not in self._as_text:
            try:
                tables = [pa.table({name: piece}) for piece in pieces]
                return pa.concat_tables(tables, promote_options="permissive")[name]
            except _ARROW_ERRORS:
                pass
            self._as_text.add(name)
        kept_text = all(pa.types.is_string(piece.type) or pa.types.is_null(piece.type) for piece in pieces)
        texts = [piece.cast(pa.string()) if kept_text else _json_texts(piece.to_pylist()) for piece in pieces]
        return pa.chunked_array([chunk for text in texts for chunk in text.chunks], pa.string())


def columns_of(table: Any, names: Sequence[str], rows: Sequence[int]) -> Any:
    """These columns and rows of an Arrow table; of two columns with one name, the later one, as for rows.

    Categories become their values: `datasets` has no categories.
    """
    numbers, fields, columns = pa.array(rows, pa.int64()), list[Any](), list[Any]()
    for name in names:
        for place in table.schema.get_all_field_indices(name)[-1:]:
            column, field = table.column(place).take(numbers), table.schema.field(place)
            if pa.types.is_dictionary(field.type):
                column, field = column.cast(field.type.value_type), field.with_type(field.type.value_type)
            fields.append(field)
            columns.append(column)
    return pa.table(columns, schema=pa.schema(fields, metadata=table.schema.metadata))


def _holds_dictionaries(values: Sequence[Any]) -> bool:
    """Whether the values are objects with varying keys."""
    keys: set[str] = set()
    for value in values:
        if isinstance(value, Mapping):
            keys.update(map(str, cast(Mapping[Any, Any], value)))
            if len(keys) > _MOST_KEYS:
                return True
    return False


def _json_texts(values: Sequence[Any]) -> Any:
    """Text unchanged, everything else as JSON."""
    texts = [
        value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        for value in values
    ]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _features(schema: Any) -> dict[str, Any]:
    """The `datasets` features in a schema, such as images and labels; empty if it has none."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    try:
        return dict(datasets.Features.from_arrow_schema(schema))
    except Exception:  # written by another version: keep the Arrow types
        return {}


def _feature(name: str, kind: Any) -> Any:
    return datasets.Features.from_arrow_schema(pa.schema([(name, kind)]))[name]


def as_array(name: str, values: Any, count: int, kind: Any = None) -> Any:
    """Values from Python code as an Arrow column.

    Args:
        values: a sequence or an array, (N,) or (N, K); a single text or number stands for all rows.
        count: N.
        kind: the Arrow type; None takes it from the values.

    Raises:
        DataError: the wrong number of values, values of another type, or infinite numbers if `kind` is a number.
    """
    if isinstance(values, pa.ChunkedArray):
        given: Any = values
    elif isinstance(values, pa.Array):
        given = pa.chunked_array([values])
    else:
        listed: list[Any] = [values] * count if isinstance(values, str | int | float | bool) else list(values)
        if len(listed) and isinstance(listed[0], np.ndarray):
            listed = [row.tolist() for row in listed]
        try:
            if kind == pa.float64():
                listed = [None if value is None or math.isnan(value) else float(value) for value in listed]
            given = pa.chunked_array([pa.array(listed, kind)])
        except (TypeError, *_ARROW_ERRORS) as error:
            raise DataError(f"The values for '{name}' cannot be a column ({error}). Give all of one type.") from error
    if len(given) != count:
        raise DataError(
            f"{counted(len(given), 'value')} for '{name}', but there are {counted(count, 'row')}. Give one for each "
            "row."
        )
    if kind is not None and given.type != kind:
        try:
            given = given.cast(kind)
        except _ARROW_ERRORS as error:
            raise DataError(f"The values for '{name}' are {given.type}, it holds {kind}.") from error
    if kind == pa.float64():
        wrong = np.flatnonzero(np.isinf(np.asarray(given.to_numpy(), np.float64)))
        if len(wrong):
            raise DataError(f"The value for '{name}' of row {wrong[0]} is infinite. Give finite numbers, or None.")
    return given


def as_numbers(name: str, column: Any, ids: Sequence[str]) -> np.ndarray:
    """A column as float64 (N,), nan where a value is missing; lists of K numbers as (N, K), of lists as (N, L, K).

    Numbers written as text, as in CSV, are read.

    Raises:
        DataError: a value is not a number, or lists differ in length; it names the first row.
    """
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        column = column.cast(pa.float64()) if pa.types.is_null(kind) else column.cast(pa.int8()).cast(pa.float64())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        rows = column.to_pylist()
        lengths = [None if row is None else len(row) for row in rows]
        wrong = next((number for number, length in enumerate(lengths) if length is None or length != lengths[0]), None)
        if wrong is not None:
            own = lengths[wrong]
            held = "is empty" if own is None else f"has {counted(own, 'number')}, the first {lengths[0]}"
            raise DataError(f"Row {wrong} (id '{ids[wrong]}'), column '{name}': {held}. Give every row as many.")
        try:
            return np.array(rows, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"The column '{name}' does not contain lists of numbers ({error}).") from error
    try:
        return np.array(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    except _ARROW_ERRORS as error:
        number, value = _no_number(column)
        raise DataError(
            f"Row {number} (id '{ids[number]}'), column '{name}': {value!r} is not a number. Remedy: write numbers, or "
            "nothing where none is known."
        ) from error


def _no_number(column: Any) -> tuple[int, Any]:
    for number, value in enumerate(column.to_pylist()):
        try:
            float("nan" if value is None else value)
        except (TypeError, ValueError):
            return number, value if not isinstance(value, str) else value[:40]
    return 0, column[0].as_py()


def as_dataset(table: Any, features: Mapping[str, Any], fingerprint: str | None = None) -> "datasets.Dataset":
    """A data set from an Arrow table, without hashing it.

    Args:
        features: of `datasets`, for columns where these say more than the Arrow type.
        fingerprint: of the content; None creates a unique one.
    """
    inferred = datasets.Features.from_arrow_schema(table.schema.remove_metadata())
    known = datasets.Features({name: features.get(name, inferred[name]) for name in table.column_names})
    table = table.replace_schema_metadata(known.arrow_schema.metadata)
    # Not imported by name: a part imported before the lazy whole would be there twice, with two classes of tables.
    whole: Any = datasets
    return whole.Dataset(whole.table.InMemoryTable(table), fingerprint=fingerprint or uuid.uuid4().hex)


_RANGES = {"soft_label": (0.0, 1.0), "weight": (0.0, np.inf)}
_REQUIRED = ("id", "prompt", "chosen", "rejected")


def check_range(name: str, column: Any, ids: Sequence[str]) -> None:
    """Refuse soft labels and weights that are none, and empty ids and texts.

    Raises:
        DataError: names the first row.
    """
    if name in _REQUIRED:
        empty = next((row for row, value in enumerate(column.to_pylist()) if value is None or is_blank(value)), None)
        if empty is not None:
            raise DataError(
                f"Row {empty} (id '{ids[empty]}'): the {name} is empty. Give every row one, or leave the row out "
                "(select)."
            )
    if name in _RANGES:
        low, high = _RANGES[name]
        values = np.asarray(column.to_numpy(), np.float64)
        wrong = np.flatnonzero((values < low) | (values > high))
        if len(wrong):
            bounds = f"from {low:g} to {high:g}" if np.isfinite(high) else f"≥ {low:g}"
            raise DataError(
                f"Row {wrong[0]} (id '{ids[wrong[0]]}'): the {name} is {values[wrong[0]]:g}; it must be {bounds}."
            )


def put_columns(table: Any, given: Mapping[str, Any], schema: Any, ids: Sequence[str]) -> Any:
    """A table with columns added or replaced, or removed if None is given.

    Args:
        schema: types of known columns.
        ids: of the rows, for messages.

    Raises:
        DataError: another number of values, of another type than the schema's, or out of range; an empty id or text, or
            two equal responses.
    """
    for name, values in given.items():
        place = table.column_names.index(name) if name in table.column_names else None
        if values is None:
            table = table if place is None else table.remove_column(place)
            continue
        column = as_array(name, values, len(ids), schema.field(name).type if name in schema.names else None)
        check_range(name, column, ids)
        table = table.append_column(name, column) if place is None else table.set_column(place, name, column)
    if {"chosen", "rejected"} & given.keys():
        sides = zip(table["chosen"].to_pylist(), table["rejected"].to_pylist(), strict=True)
        same = next((row for row, (chosen, rejected) in enumerate(sides) if chosen == rejected), None)
        if same is not None:
            raise DataError(f"Row {same} (id '{ids[same]}'): chosen and rejected are the same, which is no preference.")
    return table
