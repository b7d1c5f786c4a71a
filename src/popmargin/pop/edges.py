"""PoP edges: a typed table of (stronger, weaker) preferences."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from jaxtyping import Int64

from popmargin.errors import DataError, counted, did_you_mean
from popmargin.files import PARQUET, whole_file

SCHEMA = pa.schema(
    [
        pa.field("stronger", pa.string(), nullable=False),
        pa.field("weaker", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("annotator", pa.string()),
        pa.field("tie", pa.bool_(), nullable=False),
        pa.field("confidence", pa.float64()),
        pa.field("ranking", pa.string()),
    ]
)
pc: Any = pyarrow.compute  # its functions are made at import time, so a type checker cannot see them
_METADATA_KEY, _DIGEST_KEY = b"popmargin.pop", b"popmargin.sha256"


@dataclass(frozen=True)
class PopEdges:
    """Preferences over preferences: each row says that `stronger` has the larger gap between its two responses.

    Columns: stronger (id), weaker (id; null = no weaker partner found, margin 0), source (ratings, judge, …),
    annotator, tie (the two were called equal: never trained on), confidence of the label in [0, 1], ranking (edges that
    name the same one are its neighbours, and one answer: see `rankings.py`).

    Attributes:
        table: the edges; stored columns that are missing and optional are filled with their defaults.
        parameters: how the edges were made (sampling, k, seed, noise, comparisons); JSON values.

    Raises:
        DataError: a column is missing, unknown or of the wrong type, or a row is not an edge.
    """

    table: pa.Table
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", _checked(self.table, "PoP edges"))

    @staticmethod
    def from_columns(
        stronger: Sequence[str],
        weaker: Sequence[str | None],
        *,
        source: str = "ratings",
        tie: Sequence[bool] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> "PopEdges":
        """Edges from a list of stronger and a list of weaker ids.

        Example:
            >>> len(PopEdges.from_columns(["a", "b"], ["b", None]))
            2
        """
        columns: dict[str, Any] = {
            "stronger": pa.array(stronger, pa.string()),
            "weaker": pa.array(weaker, pa.string()),
            "source": pa.array([source] * len(stronger), pa.string()),
            "tie": pa.array([False] * len(stronger) if tie is None else tie, pa.bool_()),
        }
        return PopEdges(pa.table(columns), parameters or {})

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def save(self, path: str | Path) -> None:
        """Write the edges as Parquet, with the parameters as JSON in the schema's metadata.

        Raises:
            ConfigError: the name does not end in .parquet.
            RunError: the path is a folder, or cannot be written.
        """
        stored = json.dumps(self.parameters, sort_keys=True).encode()
        metadata = {_METADATA_KEY: stored, _DIGEST_KEY: self._digest(stored)}
        with whole_file(path, PARQUET) as partial:
            pq.write_table(self.table.replace_schema_metadata(metadata), partial, compression="zstd")

    @staticmethod
    def load(path: str | Path) -> "PopEdges":
        """Read edges that `save` wrote, or any Parquet, JSONL, JSON, CSV or TSV file with the columns of edges.

        Raises:
            DataError: the file is missing or cannot be read, or its columns are not those of PoP edges.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path}: no such file. Sample edges with: popmargin pop sample DATA --out {path}")
        with path.open("rb") as file:
            parquet = file.read(4) == b"PAR1"
        if not parquet and path.suffix.lower() != ".parquet":
            return PopEdges(_checked(_read_rows(path), str(path)))
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            raise DataError(
                f"{path}: not a readable Parquet file ({error}). Write it again with pop sample."
            ) from error
        metadata = table.schema.metadata or {}
        stored = metadata.get(_METADATA_KEY, b"{}")
        damaged = DataError(f"{path}: its edges are not those that were written. Write it again, or copy it again.")
        try:
            parameters = json.loads(stored)
            edges = PopEdges(_checked(table, str(path)), parameters)
            if metadata.get(_DIGEST_KEY, b"") not in (b"", edges._digest(stored)):
                raise damaged
        except UnicodeDecodeError as error:
            raise damaged from error
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"{path}: its edge parameters are not JSON ({error}). Write it again.") from error
        return edges

    def _digest(self, parameters: bytes) -> bytes:
        """What a file is compared with when it is read; other programs write none."""
        return hashlib.sha256(parameters + self.fingerprint().encode()).hexdigest().encode()

    def swap(self) -> "PopEdges":
        """The same comparisons with every label flipped.

        Raises:
            DataError: an edge has no weaker side, so it cannot be flipped.
        """
        if self.table["weaker"].null_count:
            raise DataError(
                f"{counted(self.table['weaker'].null_count, 'edge has', 'edges have')} no weaker side and cannot be "
                "swapped. Sample with unmatched='drop', or remove these rows first."
            )
        columns: dict[str, Any] = {name: self.table[name] for name in SCHEMA.names}
        columns["stronger"], columns["weaker"] = columns["weaker"], columns["stronger"]
        return PopEdges(pa.table(columns), self.parameters)

    def fingerprint(self) -> str:
        """sha256 (hex) of the edges, in order; independent of path, parameters and Arrow chunks."""
        digest = hashlib.sha256()
        for name in SCHEMA.names:
            if name == "ranking" and self.table[name].null_count == len(self):
                continue  # files of versions that knew no rankings keep their fingerprints
            digest.update(json.dumps([name, self.table[name].to_pylist()]).encode())
        return digest.hexdigest()

    def resolve(self, ids: Sequence[str]) -> tuple[Int64[np.ndarray, " E"], Int64[np.ndarray, " E"]]:
        """Row numbers of the two sides of every edge, excluding ties, which are never trained on.

        Args:
            ids: ids of the preferences, in the order of the rows (N,).

        Returns:
            (stronger, weaker), each (E,); weaker is -1 if the edge has no weaker side.

        Raises:
            DataError: ids repeat, or an edge names an id that is not among them.

        Example:
            >>> edges = PopEdges.from_columns(["a", "b"], ["b", None])
            >>> [side.tolist() for side in edges.resolve(["b", "a"])]
            [[1, 0], [0, -1]]
        """
        known = unique_ids(ids)
        table = self.table.filter(pc.invert(self.table["tie"]))
        sides: list[Any] = []
        for name in ("stronger", "weaker"):
            rows = pc.index_in(table[name], value_set=known, skip_nulls=True)
            unknown = pc.and_(pc.is_null(rows), pc.is_valid(table[name]))
            if pc.any(unknown).as_py():
                missing = pc.unique(table[name].filter(unknown)).to_pylist()
                raise DataError(
                    f"PoP edges name {counted(len(missing), 'preference')} in column '{name}' that the data lacks, "
                    f"such as {', '.join(map(repr, missing[:3]))}. Sample the edges from the same data and split "
                    "(preferences are matched by id), or give the data its id column."
                )
            sides.append(pc.fill_null(rows, -1).to_numpy().astype(np.int64))
        return sides[0], sides[1]


def _read_rows(path: Path) -> Any:
    """The edges of a text file as a table: ids are text, even if they look like numbers.

    Raises:
        DataError: the file or a row of it cannot be read.
    """
    from popmargin.data.locate import open_source

    source = open_source(path, split=None)
    rows: list[dict[str, Any]] = []
    for batch in source.batches():
        if batch.broken:
            position, error = batch.broken[0]
            raise DataError(f"{path}:{position}: {error.message} Remedy: {error.remedy}")
        rows += [{name.strip().lower(): value for name, value in row.items()} for row in batch.read()]
    if not rows:
        raise DataError(f"{path}: there are no edges. Remedy: give at least one row with stronger and weaker.")
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: _cells(path, name, [row.get(name) for row in rows]) for name in names})


def _cells(path: Path, name: str, values: list[Any]) -> Any:
    """A column of a text file, cast to the type that edges have, so that `_checked` can find errors in it."""
    known = SCHEMA.field(name).type if name in SCHEMA.names else pa.string()
    texts = [None if value is None or value == "" else value for value in values]
    if known == pa.string():
        texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in texts]
    if known == pa.bool_():
        texts = [_TRUTH.get(str(value).lower(), value) if value is not None else False for value in texts]
    if known == pa.float64():
        texts = [float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value for value in texts]
    for row, value in enumerate(texts):
        wrong = known == pa.bool_() and not isinstance(value, bool)
        wrong = wrong or (known == pa.float64() and value is not None and not isinstance(value, int | float))
        if wrong:
            raise DataError(f"{path}: row {row}: '{name}' is {value!r}, which is not {known}. Remedy: correct it.")
    try:
        return pa.array(texts, known)
    except UnicodeEncodeError as error:
        raise DataError(f"{path}, column '{name}': a text is not UTF-8. Remedy: save the file as UTF-8.") from error


_TRUTH = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.I)


def unique_ids(ids: Sequence[str]) -> Any:
    """The ids as an Arrow array.

    Raises:
        DataError: an id occurs twice.
    """
    known = pa.array(ids, pa.string())
    if len(pc.unique(known)) != len(known):
        counts = pc.value_counts(known).to_pylist()
        repeated = [row["values"] for row in counts if row["counts"] > 1]
        raise DataError(
            f"{counted(len(repeated), 'id appears', 'ids appear')} more than once, such as {repeated[0]!r}. PoP edges "
            "refer to preferences by id: make the ids unique."
        )
    return known


def _checked(table: Any, where: str) -> Any:
    """The table with exactly the columns of SCHEMA, or a DataError that says what is wrong and in which row."""
    for name in table.column_names:
        if name not in SCHEMA.names:
            raise DataError(f"{where}: unknown column '{name}'. {did_you_mean(name, SCHEMA.names)}")
    columns: list[Any] = []
    defaults: dict[str, Any] = {"source": "file", "tie": False, "annotator": None, "confidence": None}
    defaults["ranking"] = None
    for column in SCHEMA:
        if column.name in table.column_names:
            try:
                columns.append(table[column.name].cast(column.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise DataError(
                    f"{where}: column '{column.name}' is {table[column.name].type}, not {column.type}: {error}"
                ) from error
        elif column.name in defaults:
            columns.append(pa.array([defaults[column.name]] * table.num_rows, column.type))
        else:
            raise DataError(
                f"{where}: no column '{column.name}'. PoP edges need the columns stronger and weaker (ids)."
            )
    checked = pa.table(columns, names=SCHEMA.names)
    for name in ("stronger", "source", "tie"):
        _refuse(pc.is_null(checked[name]), where, f"'{name}' is empty; every edge needs one")
    both = pc.fill_null(pc.equal(checked["stronger"], checked["weaker"]), False)
    _refuse(both, where, "stronger and weaker are the same preference; remove the row")
    halves = pc.and_(checked["tie"], pc.is_null(checked["weaker"]))
    _refuse(halves, where, "a tie needs both preferences; give 'weaker' or set tie to false")
    alone = pc.or_(checked["tie"], pc.is_null(checked["weaker"]))
    _refuse(
        pc.and_(pc.is_valid(checked["ranking"]), alone), where, "an edge of a ranking has a weaker side and is no tie"
    )
    confidence = checked["confidence"]
    inside = pc.and_(pc.greater_equal(confidence, 0.0), pc.less_equal(confidence, 1.0))
    _refuse(pc.invert(pc.fill_null(inside, True)), where, "'confidence' is outside [0, 1]")
    return checked.cast(SCHEMA)


def _refuse(wrong: Any, where: str, message: str) -> None:
    rows = np.flatnonzero(wrong.to_numpy())
    if len(rows):
        raise DataError(f"{where}: row {rows[0]}: {message} ({counted(len(rows), 'such row')}).")
