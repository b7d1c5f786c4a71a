"""Locating rows: files, folders, globs, saved data sets, hub ids and data in memory, and their splits."""

import difflib
import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lazy_loader
import pyarrow as pa

from popmargin.config_names import nearly_embedded
from popmargin.data.materialise import materialised
from popmargin.data.sources import (
    FILE_READERS,
    SUFFIXES,
    RawBatch,
    Source,
    dataset_batches,
    holds_lines,
    memory_batches,
    read_file,
)
from popmargin.errors import DataError, a_kind, counted
from popmargin.safe_reading import check_regular

if TYPE_CHECKING:
    import datasets
else:  # it takes a second, and many commands need none of it
    datasets = lazy_loader.load("datasets")

_SPLIT = re.compile(r"(.+):([\w.-]+)")
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_MEMORY = "the data set in memory"
_SPLIT_NAMES = ("train", "test", "validation", "valid", "val", "dev", "eval")
_OTHER_FILES = (
    ".gz", ".xlsx", ".xls", ".txt", ".md", ".zip", ".tar", ".bz2", ".xz", ".zst", ".arrow", ".feather", ".pkl",
    ".yaml", ".yml", ".db", ".sqlite", ".xml", ".html", ".jsonlines", ".dta", ".orc", ".avro",
)  # fmt: skip


def open_source(source: object, *, split: str | None) -> Source:
    """Find out what `source` is and how to read it.

    A string names a file, a folder, a glob, a hub id, or several separated by commas; `name:split` names the split of a
    folder or hub id.

    Raises:
        DataError: no such file, an unknown file type, a missing or unknown split, or an unavailable hub id.
    """
    if isinstance(source, str | Path):
        return _together([_open_named(name, split) for name in _names(source)])
    loaded = datasets.Dataset | datasets.DatasetDict | datasets.IterableDataset | datasets.IterableDatasetDict
    if isinstance(source, loaded):
        return _open_dataset(source, _MEMORY, split)
    if isinstance(source, list | tuple):
        items = list(cast(Sequence[object], source))
        if items and all(isinstance(item, str | Path) for item in items):
            return _together([_open_named(name, split) for item in items for name in _names(cast(str, item))])
        if split is not None:
            raise DataError(f"split='{split}' is meaningless for rows in memory. Remedy: omit it.")
        return Source("the list in memory", "memory", False, False, lambda: memory_batches(items))
    raise DataError(
        f"Preferences cannot be read from {a_kind(source)}. Remedy: give a path, a hub id, a datasets.Dataset or a "
        "list of dictionaries."
    )


def local_paths(source: str) -> list[Path]:
    """The files and folders that a string names, in the forms of `open_source`; hub ids and `demo` have none.

    Raises:
        DataError: what can only be a file or folder is not there.
    """
    found: list[Path] = []
    for name in _names(source):
        named = _SPLIT.fullmatch(str(name))
        places = [Path(name), *([Path(named[1])] if named is not None else [])]
        there = [path for place in places if (path := place.expanduser()).exists()]
        if not there and looks_local(str(places[-1])):
            raise DataError(f"{name}: no such file or folder. Remedy: check the path (looked in {Path.cwd()}).")
        found += there[:1]
    return found


def _names(source: str | Path) -> list[str | Path]:
    """The sources that a string names: one, a comma-separated list, or the files of a glob."""
    if isinstance(source, Path) or Path(source).exists():
        return [source]
    found: list[str | Path] = []
    for name in source.split(","):
        name = name.strip()
        if not name:
            raise DataError(f"'{source}': a name between the commas is empty. Remedy: write a.jsonl,b.jsonl.")
        if glob.has_magic(name) and not Path(name).exists():
            files = sorted(file for file in glob.glob(name, recursive=True) if Path(file).is_file())  # noqa: PTH207
            if not files:
                raise DataError(f"{name}: no file matches (looked in {Path.cwd()}). Remedy: check the pattern.")
            found += files
        else:
            found.append(name)
    return found


def _together(sources: Sequence[Source]) -> Source:
    """Several sources as one, in order; each batch knows where it came from."""
    if len(sources) == 1:
        return sources[0]

    def batches() -> Iterator[RawBatch]:
        for source in sources:
            for batch in source.batches():
                batch.source = batch.source or source
                yield batch

    shown = [source.name for source in sources[:3]] + (
        [f"… ({counted(len(sources), 'file')})"] if len(sources) > 3 else []
    )
    containers = "+".join(dict.fromkeys(source.container for source in sources))
    return Source(", ".join(shown), containers, False, False, batches)


def _open_named(source: str | Path, split: str | None) -> Source:
    path = Path(source).expanduser()
    if not path.exists() and isinstance(source, str):
        named = _SPLIT.fullmatch(source)
        if named is not None and "://" not in source:
            if split is not None and split != named[2]:
                raise DataError(f"'{source}' names the split {named[2]}, but split='{split}'. Remedy: give only one.")
            return _open_named(named[1], named[2])
    if path.is_dir():
        return _open_folder(path, split)
    if path.is_file():
        if split is not None:
            raise DataError(
                f"{path}: split='{split}' is meaningless for a single file. Remedy: omit the split, or give that "
                "split's file."
            )
        return _open_file(path)
    check_regular(path, DataError)
    if isinstance(source, Path) or looks_local(source):
        raise DataError(f"{source}: no such file or folder. Remedy: check the path (looked in {Path.cwd()}).")
    return _open_dataset(_hub_dataset(source, split), source if split is None else f"{source}:{split}", None)


def looks_local(name: str) -> bool:
    """Whether a name is that of a file or folder here, which is never looked up on the hub.

    Example:
        >>> [looks_local(name) for name in ("x.jsnol", "./prefs", "data/a/b", "x.xlsx", "owner/data-v1.0")]
        [True, True, True, True, False]
    """
    if name.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(name):
        return True
    suffix, known = Path(name).suffix.lower(), [*SUFFIXES, *_OTHER_FILES]
    if suffix[1:].isalpha() and difflib.get_close_matches(suffix, known, n=1, cutoff=0.75):
        return True
    first = Path(name).parts[0]
    return "/" in name and Path(first).is_dir()


def _open_file(path: Path) -> Source:
    container = container_of(path)
    if container is None:
        raise DataError(f"{path}: unknown file type. Remedy: the name must end in {_known_suffixes()}.")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty. Remedy: give a file with at least one row.")
    if container == "json" and holds_lines(path):
        container = "jsonl"
    reader = FILE_READERS[container]
    by_line = container not in ("parquet", "json")
    text_cells = container in ("csv", "tsv")
    return Source(path.name, container, by_line, text_cells, lambda: read_file(path, reader), path.parent)


def container_of(path: Path) -> str | None:
    """The file type of a name, ignoring `.gz`; None if it is not one of ours.

    Example:
        >>> container_of(Path("a/prefs.jsonl.gz"))
        'jsonl'
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return SUFFIXES.get(suffixes[-1]) if suffixes else None


def _known_suffixes() -> str:
    return f"{', '.join(SUFFIXES)} (each also with .gz)"


def _open_folder(path: Path, split: str | None) -> Source:
    """A folder of `Dataset.save_to_disk`, or one with files of rows (shards) in it or in folders of it."""
    if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return _open_dataset(_saved_dataset(path), path.name, split)
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and container_of(file) is not None]
    files = [file for file in files if not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)]
    files = [file for file in files if file.name not in ("dataset_info.json", "dataset_infos.json")]
    if not files:
        raise DataError(
            f"{path}: the folder was not written by Dataset.save_to_disk (no state.json, no dataset_dict.json) and "
            f"contains no data files. Remedy: give a file, or a folder with files that end in {_known_suffixes()}."
        )
    splits = {file: _split_of(file.relative_to(path), split) for file in files}
    known = sorted({name for name in splits.values() if name is not None})
    if split is not None:
        files = [file for file in files if splits[file] == split]
        if not files:
            has = f"it has {', '.join(known)}" if known else "none of its files or folders has that name"
            raise DataError(f"{path.name} has no split '{split}'; {has}. Remedy: choose one, or omit the split.")
    elif known and len(set(splits.values())) > 1:
        raise DataError(
            f"{path.name} has files of the splits {', '.join(known)}"
            + (" and others. " if None in splits.values() else ". ")
            + _name_split(path.name, known[0])
        )
    return _together([_open_file(file) for file in files])


def _split_of(file: Path, wanted: str | None) -> str | None:
    """The split to which a file in a folder belongs, by its own name or that of a parent folder."""
    words = [word for part in file.parts for word in re.split(r"[-_.]", part.lower())]
    whole = [part.lower() for part in (*file.parts[:-1], file.name.partition(".")[0])]
    if wanted is not None and (wanted.lower() in words or wanted.lower() in whole):
        return wanted
    return next((name for name in _SPLIT_NAMES if name in words), None)


def _name_split(name: str, example: str) -> str:
    if name == _MEMORY:
        return f"Remedy: pass one of them, as data['{example}'], or load it: load_preferences(data, split='{example}')."
    return (
        f"Remedy: name one: '{name}:{example}', or split='{example}' (--split {example}; with train "
        f"--data.split {example}, with compare --base.data.split {example})."
    )


def _saved_dataset(path: Path) -> Any:
    try:
        return datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{path}: the saved data set cannot be read ({error}). Remedy: save it again.") from error


def _hub_dataset(name: str, split: str | None) -> Any:
    if near := nearly_embedded(name):
        raise DataError(f"'{name}' is not a file or folder here. Remedy: did you mean the embedded data '{near}'?")
    try:
        loaded = datasets.load_dataset(name, split=split)
    except Exception as error:  # the hub client raises many unrelated error classes; all mean the same here
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"'{name}' is not a file or folder here, and could not be loaded as a hub id: {first} "
            "Remedy: check the path or id; without network, load from a file or a folder saved with "
            "Dataset.save_to_disk."
        ) from error
    if isinstance(loaded, datasets.DatasetDict) and len(loaded) > 1:
        names = [str(key) for key in loaded]
        raise DataError(f"'{name}' has the splits {', '.join(names)}. {_name_split(name, names[0])}")
    return loaded


def _open_dataset(dataset: Any, name: str, split: str | None) -> Source:
    if isinstance(dataset, datasets.DatasetDict | datasets.IterableDatasetDict):
        keys = [str(key) for key in dataset]
        names = ", ".join(keys)
        if not keys:
            raise DataError(f"{name} has no splits: it is an empty DatasetDict. Remedy: give a datasets.Dataset.")
        if split is None and len(dataset) != 1:
            raise DataError(f"{name} has the splits {names}. {_name_split(name, keys[0])}")
        key = split if split is not None else next(iter(dataset))
        if key not in dataset:
            raise DataError(f"{name} has no split '{split}'; it has {names}. Remedy: choose one of them.")
        dataset = dataset[key]
        name = f"{name}[{key}]"
    elif split is not None:
        raise DataError(f"{name} has no splits, but split='{split}'. Remedy: omit it.")
    if isinstance(dataset, datasets.IterableDataset):
        return Source(name, "dataset", False, False, lambda: dataset_batches(materialised(dataset, name)))
    if not isinstance(dataset, datasets.Dataset):
        raise DataError(f"{name} is {a_kind(dataset)}. Remedy: give a datasets.Dataset.")
    return Source(name, "dataset", False, False, lambda: dataset_batches(dataset))
