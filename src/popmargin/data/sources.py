"""Reading rows: files, data sets and lists in memory, all as batches of raw rows. `locate.py` finds them."""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import lazy_loader
import pyarrow as pa
import pyarrow.parquet as pq

from popmargin.data.schema import BATCH_ROWS
from popmargin.data.validate import RowError
from popmargin.errors import DataError, a_kind, counted
from popmargin.safe_reading import MOST_LINE, MOST_WHOLE, check_regular, read_bounded

if TYPE_CHECKING:
    import datasets
else:  # it takes a second, and many commands need none of it
    datasets = lazy_loader.load("datasets")

Row = dict[str, Any]
_BATCH_BYTES = 2**28
MOST_DEPTH = 40
"""Levels of lists and objects in a cell."""
MOST_ROWS = 10**9
"""Rows of a Parquet file: equal rows take no space on disk, so a small file can hold any number."""


@dataclass
class RawBatch:
    """Raw rows with their positions, and positions without a row, with the reason.

    Attributes:
        notes: what was done to rows, sentence -> number of rows.
        facts: sentences about the whole file, in its first batch.
        source: where the batch came from, if several sources are read as one.
        decimal_comma: numbers in text cells are written with a comma.
        table: the rows as an Arrow table, where they come from one; `rows` is then empty.
    """

    rows: list[Row] = field(default_factory=list[Row])
    positions: list[int] = field(default_factory=list[int])
    broken: list[tuple[int, RowError]] = field(default_factory=list[tuple[int, RowError]])
    notes: Counter[str] = field(default_factory=Counter[str])
    facts: list[str] = field(default_factory=list[str])
    source: "Source | None" = None
    decimal_comma: bool = False
    table: Any = None

    def __len__(self) -> int:
        return len(self.positions) + len(self.broken)

    def names(self) -> list[str]:
        """The columns that some row has."""
        if self.table is not None:
            return list(dict.fromkeys(self.table.column_names))
        return list(dict.fromkeys(str(name) for row in self.rows for name in row))

    def read(self, columns: Collection[str] | None = None) -> list[Row]:
        """The rows as Python values; of a table that may be only some columns, since to make these takes long."""
        if self.table is None:
            return self.rows
        names = self.table.column_names
        return self.table.select([i for i, name in enumerate(names) if columns is None or name in columns]).to_pylist()


@dataclass(frozen=True)
class Source:
    """A named supply of raw rows.

    Attributes:
        container: what holds the rows: a key of `FILE_READERS`, "dataset" or "memory".
        by_line: positions are line numbers from 1, otherwise row numbers from 0.
        text_cells: every cell is text (CSV, TSV), so numbers must be parsed and an empty cell means "missing".
        batches: starts reading.
        folder: where relative paths of images start: the file's folder, otherwise the working directory.
    """

    name: str
    container: str
    by_line: bool
    text_cells: bool
    batches: Callable[[], Iterator[RawBatch]]
    folder: Path = Path()


def dataset_batches(dataset: "datasets.Dataset") -> Iterator[RawBatch]:
    table = dataset.with_format("arrow")
    for start in range(0, len(table), BATCH_ROWS):
        yield _arrow_batch(table[start : start + BATCH_ROWS], start)


def _arrow_batch(table: Any, start: int) -> RawBatch:
    """Rows of an Arrow table; text that is not UTF-8 (Arrow does not check) is found row by row."""
    try:
        table.validate(full=True)
        return RawBatch(positions=list(range(start, start + table.num_rows)), table=table)
    except pa.ArrowInvalid:
        batch = RawBatch()
    for number in range(table.num_rows):
        try:
            table.slice(number, 1).to_pylist()
            batch.positions.append(start + number)
        except UnicodeDecodeError as error:
            batch.broken.append((start + number, _bad_utf8(error)))
    batch.table = table.take(pa.array([position - start for position in batch.positions], pa.int64()))
    return batch


def memory_batches(rows: list[object]) -> Iterator[RawBatch]:
    for start in range(0, len(rows), BATCH_ROWS):
        batch = RawBatch()
        for position, row in enumerate(rows[start : start + BATCH_ROWS], start):
            _add(batch, position, row)
        yield batch


def _add(batch: RawBatch, position: int, row: object) -> None:
    if isinstance(row, dict) and any(_deeper(value, MOST_DEPTH) for value in cast(Row, row).values()):
        message = f"its values lie in one another more than {MOST_DEPTH} levels deep."
        batch.broken.append((position, RowError("bad_json", message, "write deep values as JSON text.")))
    elif isinstance(row, Mapping):
        batch.rows.append({str(name): value for name, value in cast(Mapping[object, Any], row).items()})
        batch.positions.append(position)
    else:
        message = f"the row is {a_kind(row)}, not an object of columns."
        batch.broken.append((position, RowError("type", message, 'write {"prompt": …, "chosen": …, "rejected": …}.')))


def _deeper(value: object, levels: int) -> bool:
    """Whether lists and objects lie in one another more levels deep than that; Arrow holds about 60."""
    if isinstance(value, dict):
        return not levels or any(_deeper(one, levels - 1) for one in cast(Row, value).values())
    if isinstance(value, list):
        return not levels or any(_deeper(one, levels - 1) for one in cast(list[object], value))
    return False


def _bad_utf8(error: UnicodeDecodeError) -> RowError:
    return RowError("bad_utf8", f"not UTF-8 at byte {error.start}: {error.reason}.", "save the file as UTF-8.")


def read_file(path: Path, reader: Callable[[IO[bytes], Path], Iterator[RawBatch]]) -> Iterator[RawBatch]:
    """Read a file, plain or gzip; failures below the level of rows become errors that name the file."""
    check_regular(path, DataError)
    try:
        with path.open("rb") as raw, _decompressed(path, raw) as stream:
            yield from reader(stream, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: damaged or truncated gzip file ({error}). Remedy: copy or compress it again."
        ) from error
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}). Remedy: write it again.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}). Remedy: check the file and its permissions.") from error


def holds_lines(path: Path) -> bool:
    """Whether a .json file holds one object per line: its first line is a whole object and more follows."""
    try:
        with path.open("rb") as raw, _decompressed(path, raw) as stream:
            text, _ = _as_utf8(stream, path)
            first = json.loads(text.readline(MOST_LINE).decode("utf-8-sig"))
            return isinstance(first, dict) and bool(text.read(65536).strip())
    except (ValueError, EOFError, OSError, zlib.error, RecursionError):
        return False


def _decompressed(path: Path, raw: IO[bytes]) -> IO[bytes]:
    return cast(IO[bytes], gzip.GzipFile(fileobj=raw, mode="rb")) if path.suffix.lower() == ".gz" else raw


def _as_utf8(stream: IO[bytes], path: Path) -> tuple[IO[bytes], list[str]]:
    """The text of a file as UTF-8, and a note if it was UTF-16 or UTF-32: detected by its byte order mark or NUL bytes.

    Raises:
        DataError: the file is not what its byte order mark says.
    """
    start = cast(bytes, cast(Any, stream).peek(4))[:4]
    marks = (
        ("utf-32", (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
        ("utf-16", (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
    )
    name = next((name for name, known in marks if start.startswith(known)), None)
    if name is None and len(start) == 4 and 0 in start:
        halves = start[0::2], start[1::2]
        name = "utf-16-le" if halves[1] == b"\0\0" else "utf-16-be" if halves[0] == b"\0\0" else None
    if name is None:
        return stream, []
    try:
        text = _whole(stream, path).decode(name)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not {name.upper()} at byte {error.start}. Remedy: save it as UTF-8.") from error
    return io.BytesIO(text.encode("utf-8", "surrogatepass")), [f"the file is {name[:6].upper()} and was read as such"]


def _load_json(text: str, notes: Counter[str]) -> Any:
    """JSON values; duplicate keys of an object are noted, and the last one counts."""
    twice = Counter[str]()

    def whole(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice.update(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return found

    try:
        content = json.loads(text, object_pairs_hook=whole)
    except RecursionError as error:
        raise ValueError("lists and objects lie in one another too deeply") from error
    for key, count in twice.items():
        notes[f"the key '{key}' occurs twice in an object; the last value is used"] += count
    return content


def _read_jsonl(stream: IO[bytes], path: Path) -> Iterator[RawBatch]:
    stream, facts = _as_utf8(stream, path)
    batch, size = RawBatch(facts=facts), 0
    for position, raw in enumerate(_lines(stream, path), 1):
        line = raw.removeprefix(b"\xef\xbb\xbf") if position == 1 else raw
        if not line.strip():
            continue
        try:
            _add(batch, position, _load_json(line.decode("utf-8"), batch.notes))
        except UnicodeDecodeError as error:
            batch.broken.append((position, _bad_utf8(error)))
        except ValueError as error:
            message = f"not valid JSON: {error}."
            batch.broken.append((position, RowError("bad_json", message, "write one JSON object per line.")))
        size += len(raw)
        if len(batch) >= BATCH_ROWS or size > _BATCH_BYTES:
            yield batch
            batch, size = RawBatch(), 0
    yield batch


def _lines(stream: IO[bytes], path: Path) -> Iterator[bytes]:
    """The lines of a file; one that is longer than any row ends the reading before memory does."""
    number = 0
    while line := stream.readline(MOST_LINE + 1):
        number += 1
        _check_line(line, path, number)
        yield line


def _check_line(line: Sized, path: Path, number: int) -> None:
    if len(line) > MOST_LINE:
        raise DataError(
            f"{path}:{number}: the line has more than {MOST_LINE:,} bytes. Remedy: write one row a line, and large "
            "images as paths; if it unpacks to that, the file is damaged or not data."
        )


def _whole(stream: IO[bytes], path: Path) -> bytes:
    """Everything in a file that cannot be read in parts."""
    remedy = ", unpacked, and would be read whole. Remedy: save it as UTF-8 JSON lines, or as Parquet."
    return read_bounded(stream, path, MOST_WHOLE, DataError, remedy)


def _read_json(stream: IO[bytes], path: Path) -> Iterator[RawBatch]:
    stream, facts = _as_utf8(stream, path)
    notes, data = Counter[str](), _whole(stream, path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8 at byte {error.start}. Remedy: save the file as UTF-8.") from error
    try:
        content = _load_json(text, notes)
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}. Remedy: fix it at that line.") from error
    if isinstance(content, dict):
        tables = [value for value in cast(Row, content).values() if isinstance(value, list)]
        lists = [cast(list[object], value) for value in tables if value and isinstance(value[0], dict)]
        content = lists[0] if len(content) == 1 and lists else [content]
    if not isinstance(content, list):
        raise DataError(f"{path}: contains {a_kind(content)}. Remedy: write a JSON array of objects.")
    yield RawBatch(notes=notes, facts=facts)
    yield from memory_batches(cast(list[object], content))


def _read_separated(stream: IO[bytes], path: Path, usual: str) -> Iterator[RawBatch]:
    limit = csv.field_size_limit(MOST_LINE)  # the default limit is 128 KiB per text
    stream, facts = _as_utf8(stream, path)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    lines = _Lines(text, path)
    delimiter, spaced = _separator(lines.first, usual)
    if delimiter != usual:
        facts.append(f"the columns are separated by {_SEPARATORS[delimiter]}")
    if spaced:
        facts.append("the space after each separator is not part of the texts")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=spaced, strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) != len(header) or not any(header):
            raise DataError(f"{path}:1: the header is {header}. Remedy: give one line with distinct column names.")
        if any("\udc80" <= letter <= "\udcff" for letter in "".join(header)):
            raise DataError(f"{path}:1: the header is not UTF-8. Remedy: save the file as UTF-8.")
        batch, start = RawBatch(facts=facts, decimal_comma=delimiter == ";"), reader.line_num + 1
        for cells in reader:
            _add_cells(batch, start, header, cells)
            start = reader.line_num + 1
            if len(batch) >= BATCH_ROWS:
                yield batch
                batch = RawBatch(decimal_comma=delimiter == ";")
        yield batch
    except csv.Error as error:
        raise DataError(
            f"{path}:{reader.line_num}: {error} (columns separated by {_SEPARATORS[delimiter]}, as in the header). "
            "Remedy: quote texts with double quotes, and double those inside."
        ) from error
    finally:
        csv.field_size_limit(limit)
        text.detach()  # the stream belongs to the caller


_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


class _Lines:
    """Lines of a text, with a look-ahead at the first ones."""

    def __init__(self, text: io.TextIOWrapper, path: Path) -> None:
        self._text, self._path, self._number = text, path, 0
        self._started = False
        self.first = self._line()

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if not self._started:
            self._started = True
            if self.first:
                return self.first
        line = self._line()
        if not line:
            raise StopIteration
        return line

    def _line(self) -> str:
        line = self._text.readline(MOST_LINE + 1)
        self._number += 1
        _check_line(line, self._path, self._number)
        return line


def _separator(header: str, usual: str) -> tuple[str, bool]:
    """The header's separator (the usual one if several fit), and whether a space follows each.

    Example:
        >>> _separator('prompt;chosen;"re,jected"', ","), _separator("prompt, chosen, rejected", ",")
        ((';', False), (',', True))
    """

    def names(mark: str) -> list[str]:
        return next(csv.reader([header], delimiter=mark), [])

    counts = {mark: len(names(mark)) for mark in (usual, *(mark for mark in _SEPARATORS if mark != usual))}
    best = max(counts, key=lambda mark: counts[mark])  # the usual one among equals
    later = names(best)[1:]
    return best, bool(later) and all(name.startswith(" ") for name in later)


def _add_cells(batch: RawBatch, position: int, header: list[str], cells: list[str]) -> None:
    if not cells:
        return
    if len(cells) != len(header):
        message = f"{counted(len(cells), 'cell')}, but the header has {counted(len(header), 'column')}."
        batch.broken.append((position, RowError("cells", message, "quote texts that contain the separator.")))
    else:
        batch.rows.append({name: cell if cell else None for name, cell in zip(header, cells, strict=True)})
        batch.positions.append(position)


def _read_parquet(stream: IO[bytes], path: Path) -> Iterator[RawBatch]:
    source = pa.BufferReader(_whole(stream, path)) if path.suffix.lower() == ".gz" else stream
    start = 0
    file = pq.ParquetFile(source)
    if file.metadata.num_rows > MOST_ROWS:
        raise DataError(
            f"{path}: the file says that it has {file.metadata.num_rows:,} rows; at most {MOST_ROWS:,} are read. "
            "Remedy: split it, or use fewer."
        )
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    heaviest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=0)
    rows = max(1, min(BATCH_ROWS, int(_BATCH_BYTES / max(heaviest, 1))))  # images are large
    for chunk in file.iter_batches(batch_size=rows):
        yield _arrow_batch(pa.Table.from_batches([chunk]), start)
        start += chunk.num_rows


FILE_READERS: dict[str, Callable[[IO[bytes], Path], Iterator[RawBatch]]] = {
    "jsonl": _read_jsonl,
    "json": _read_json,
    "csv": lambda stream, path: _read_separated(stream, path, ","),
    "tsv": lambda stream, path: _read_separated(stream, path, "\t"),
    "parquet": _read_parquet,
}
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
