"""Where rows come from: files, saved data sets, hub ids and data in memory, all read as batches of raw rows."""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from popmargin.data.schema import BATCH_ROWS
from popmargin.data.validate import RowError
from popmargin.errors import DataError

Row = dict[str, Any]


@dataclass
class RawBatch:
    """Raw rows with their positions, and the positions that hold no row at all with the reason."""

    rows: list[Row] = field(default_factory=list[Row])
    positions: list[int] = field(default_factory=list[int])
    broken: list[tuple[int, RowError]] = field(default_factory=list[tuple[int, RowError]])

    def __len__(self) -> int:
        return len(self.rows) + len(self.broken)


@dataclass(frozen=True)
class Source:
    """A named supply of raw rows.

    Attributes:
        container: what holds the rows: a key of `FILE_READERS`, "dataset" or "memory".
        by_line: positions are line numbers from 1, else row numbers from 0.
        text_cells: every cell is text (CSV, TSV), so numbers must be parsed and an empty cell means "missing".
        batches: starts reading.
    """

    name: str
    container: str
    by_line: bool
    text_cells: bool
    batches: Callable[[], Iterator[RawBatch]]


def open_source(source: object, *, split: str | None) -> Source:
    """Find out what `source` is and how to read it.

    Raises:
        DataError: no such file, an unknown file type, a missing or unknown split, or a hub id that cannot be had.
    """
    if isinstance(source, str | Path):
        return _open_path(source, split)
    if isinstance(source, datasets.Dataset | datasets.DatasetDict):
        return _open_dataset(source, "the data set in memory", split)
    if split is not None:
        raise DataError(f"split='{split}' has no meaning for rows in memory. Remedy: leave it out.")
    if isinstance(source, list):
        rows = cast(list[object], source)
        return Source("the list in memory", "memory", False, False, lambda: _memory_batches(rows))
    raise DataError(
        f"Preferences cannot be read from a {type(source).__name__}. "
        "Remedy: give a path, a hub id, a datasets.Dataset or a list of dictionaries."
    )


def _open_path(source: str | Path, split: str | None) -> Source:
    path = Path(source)
    if path.is_dir():
        return _open_dataset(_saved_dataset(path), path.name, split)
    container = container_of(path)
    if path.is_file():
        if split is not None:
            raise DataError(f"{path}: split='{split}' has no meaning for one file. Remedy: leave it out.")
        if container is None:
            raise DataError(f"{path}: unknown file type. Remedy: end its name in {_known_suffixes()}.")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty. Remedy: give a file with at least one row.")
        if container == "json" and _holds_lines(path):
            container = "jsonl"
        reader = FILE_READERS[container]
        by_line = container not in ("parquet", "json")
        text_cells = container in ("csv", "tsv")
        return Source(path.name, container, by_line, text_cells, lambda: _guarded(path, reader))
    if isinstance(source, Path) or container is not None or path.is_absolute() or str(source).startswith("."):
        raise DataError(f"{source}: no such file. Remedy: check the path (looked from {Path.cwd()}).")
    return _open_dataset(_hub_dataset(source, split), source, None)


def container_of(path: Path) -> str | None:
    """The file type that a name stands for, `.gz` aside; None if it is not one of ours.

    Example:
        >>> container_of(Path("a/prefs.jsonl.gz"))
        'jsonl'
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return _SUFFIXES.get(suffixes[-1]) if suffixes else None


def _holds_lines(path: Path) -> bool:
    """Whether a .json file holds one object a line: its first line is a whole object and more follows."""
    try:
        with path.open("rb") as raw, _decompressed(path, raw) as stream:
            first = json.loads(stream.readline())
            return isinstance(first, dict) and bool(stream.read(65536).strip())
    except (ValueError, EOFError, OSError, zlib.error, RecursionError):
        return False


def _known_suffixes() -> str:
    return f"{', '.join(_SUFFIXES)} (each also with .gz)"


def _saved_dataset(path: Path) -> Any:
    if not any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        raise DataError(
            f"{path}: this folder was not written by Dataset.save_to_disk (no state.json, no dataset_dict.json). "
            f"Remedy: give one file of the folder ({_known_suffixes()})."
        )
    try:
        return datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{path}: the saved data set cannot be read ({error}). Remedy: save it again.") from error


def _hub_dataset(name: str, split: str | None) -> Any:
    try:
        loaded = datasets.load_dataset(name, split=split)
    except Exception as error:  # the hub client raises errors of many unrelated classes; all mean the same here
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"'{name}' is no file or folder here, and as a hub id it could not be loaded: {first} "
            "Remedy: check the path or id; without network, load from a file or a folder saved with "
            "Dataset.save_to_disk."
        ) from error
    if isinstance(loaded, datasets.DatasetDict) and len(loaded) > 1:
        raise DataError(f"'{name}' has the splits {', '.join(map(str, loaded))}. Remedy: name one with split=.")
    return loaded


def _open_dataset(dataset: Any, name: str, split: str | None) -> Source:
    if isinstance(dataset, datasets.DatasetDict):
        names = ", ".join(map(str, dataset))
        if split is None and len(dataset) != 1:
            raise DataError(f"{name} has the splits {names}. Remedy: name one with split=.")
        key = split if split is not None else next(iter(dataset))
        if key not in dataset:
            raise DataError(f"{name} has no split '{split}'; it has {names}. Remedy: name one of them.")
        dataset = dataset[key]
        name = f"{name}[{key}]"
    elif split is not None:
        raise DataError(f"{name} has no splits, so split='{split}' names none. Remedy: leave it out.")
    if not isinstance(dataset, datasets.Dataset):
        raise DataError(f"{name} is a {type(dataset).__name__}. Remedy: give a datasets.Dataset.")
    return Source(name, "dataset", False, False, lambda: _dataset_batches(dataset))


def _dataset_batches(dataset: datasets.Dataset) -> Iterator[RawBatch]:
    table = dataset.with_format("arrow")
    for start in range(0, len(table), BATCH_ROWS):
        yield _arrow_batch(table[start : start + BATCH_ROWS], start)


def _arrow_batch(table: Any, start: int) -> RawBatch:
    """Rows of an Arrow table; text that is not UTF-8 (Arrow does not check) is found row by row."""
    try:
        rows = table.to_pylist()
        return RawBatch(rows, list(range(start, start + len(rows))))
    except UnicodeDecodeError:
        batch = RawBatch()
    for number in range(table.num_rows):
        try:
            batch.rows += table.slice(number, 1).to_pylist()
            batch.positions.append(start + number)
        except UnicodeDecodeError as error:
            batch.broken.append((start + number, _bad_utf8(error)))
    return batch


def _memory_batches(rows: list[object]) -> Iterator[RawBatch]:
    for start in range(0, len(rows), BATCH_ROWS):
        batch = RawBatch()
        for position, row in enumerate(rows[start : start + BATCH_ROWS], start):
            _add(batch, position, row)
        yield batch


def _add(batch: RawBatch, position: int, row: object) -> None:
    if isinstance(row, Mapping):
        batch.rows.append({str(name): value for name, value in cast(Mapping[object, Any], row).items()})
        batch.positions.append(position)
    else:
        message = f"the row is a {type(row).__name__}, not an object of columns."
        batch.broken.append((position, RowError("type", message, 'write {"prompt": …, "chosen": …, "rejected": …}.')))


def _bad_utf8(error: UnicodeDecodeError) -> RowError:
    return RowError("bad_utf8", f"not UTF-8 at byte {error.start}: {error.reason}.", "save the file as UTF-8.")


def _guarded(path: Path, reader: Callable[[IO[bytes], Path], Iterator[RawBatch]]) -> Iterator[RawBatch]:
    """Read a file, plain or gzip; what breaks below the rows becomes an error that names the file."""
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


def _decompressed(path: Path, raw: IO[bytes]) -> IO[bytes]:
    return cast(IO[bytes], gzip.GzipFile(fileobj=raw, mode="rb")) if path.suffix.lower() == ".gz" else raw


def _read_jsonl(stream: IO[bytes], path: Path) -> Iterator[RawBatch]:
    batch = RawBatch()
    for position, raw in enumerate(stream, 1):
        line = raw.removeprefix(b"\xef\xbb\xbf") if position == 1 else raw
        if not line.strip():
            continue
        try:
            _add(batch, position, json.loads(line.decode("utf-8")))
        except UnicodeDecodeError as error:
            batch.broken.append((position, _bad_utf8(error)))
        except (ValueError, RecursionError) as error:
            message = f"not valid JSON: {error}."
            batch.broken.append((position, RowError("bad_json", message, "write one JSON object a line.")))
        if len(batch) >= BATCH_ROWS:
            yield batch
            batch = RawBatch()
    yield batch


def _read_json(stream: IO[bytes], path: Path) -> Iterator[RawBatch]:
    data = stream.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8 at byte {error.start}. Remedy: save the file as UTF-8.") from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}. Remedy: fix it at that line.") from error
    if isinstance(content, dict):
        tables = [value for value in cast(Row, content).values() if isinstance(value, list)]
        lists = [cast(list[object], value) for value in tables if value and isinstance(value[0], dict)]
        content = lists[0] if len(content) == 1 and lists else [content]
    if not isinstance(content, list):
        raise DataError(f"{path}: holds a {type(content).__name__}. Remedy: write a JSON array of objects.")
    yield from _memory_batches(cast(list[object], content))


def _read_separated(stream: IO[bytes], path: Path, delimiter: str) -> Iterator[RawBatch]:
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default forbids texts above 128 KiB
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) != len(header) or not any(header):
            raise DataError(f"{path}:1: the header is {header}. Remedy: one line with distinct column names.")
        batch, start = RawBatch(), reader.line_num + 1
        for cells in reader:
            _add_cells(batch, start, header, cells)
            start = reader.line_num + 1
            if len(batch) >= BATCH_ROWS:
                yield batch
                batch = RawBatch()
        yield batch
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}. Remedy: quote texts with double quotes.") from error
    finally:
        csv.field_size_limit(limit)
        text.detach()  # the stream belongs to the caller


def _add_cells(batch: RawBatch, position: int, header: list[str], cells: list[str]) -> None:
    if not cells:
        return
    if len(cells) != len(header):
        message = f"{len(cells)} cells where the header names {len(header)} columns."
        batch.broken.append((position, RowError("cells", message, "quote texts that hold the separator.")))
    else:
        batch.rows.append({name: cell if cell else None for name, cell in zip(header, cells, strict=True)})
        batch.positions.append(position)


def _read_parquet(stream: IO[bytes], path: Path) -> Iterator[RawBatch]:
    source = pa.BufferReader(stream.read()) if path.suffix.lower() == ".gz" else stream
    start = 0
    for chunk in pq.ParquetFile(source).iter_batches(batch_size=BATCH_ROWS):
        yield _arrow_batch(chunk, start)
        start += chunk.num_rows


FILE_READERS: dict[str, Callable[[IO[bytes], Path], Iterator[RawBatch]]] = {
    "jsonl": _read_jsonl,
    "json": _read_json,
    "csv": lambda stream, path: _read_separated(stream, path, ","),
    "tsv": lambda stream, path: _read_separated(stream, path, "\t"),
    "parquet": _read_parquet,
}
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
