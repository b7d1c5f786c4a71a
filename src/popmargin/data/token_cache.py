"""Tokens of large data on disk: made once, memory-mapped, shared by all runs with the same texts and tokenizer.

prompt, chosen, rejected   token ids (int32), row after row
rows                       number of each kept row, and how many tokens of each it has (int64)
observed.jsonl             of each shard its rows, sizes and SHA-256s, and what tokenization did to its rows

A folder is written shard by shard under a name that begins with a dot, so that what a killed run has done is found
again; then it gets a list of its files with their SHA-256 and its own name, which is the digest of texts, tokenizer and
settings.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock
from tqdm.auto import tqdm

from popmargin.data.ragged import Ragged
from popmargin.data.schema import TEXT_COLUMNS, Preferences
from popmargin.data.token_shards import Observed, Shard, Tokenizing
from popmargin.data.tokenizer_rules import tokenizer_fingerprint
from popmargin.errors import RunError, counted
from popmargin.files import append_jsonl, digest, read_jsonl
from popmargin.listed_files import fault_of, sync_folder, write_list

_LOG = logging.getLogger(__name__)
_FORMAT = 1  # raise it when the meaning of the stored numbers changes
_SIDES = ("prompt", "chosen", "rejected")
_FILES = (*_SIDES, "rows")
_LINES = "observed.jsonl"


class TokenCache:
    """The tokens of some preferences on disk.

    Args:
        directory: folder that holds those of all data.
        preferences: all rows.
        how: they become tokens.
        rows: of a shard.
    """

    def __init__(self, directory: Path, preferences: Preferences, how: Tokenizing, *, rows: int) -> None:
        self._count, self._shard_rows = len(preferences), rows
        self._folder = directory / _key(preferences, how, rows)
        self._building = directory / f".{self._folder.name}.building"

    def shard(self, make: Callable[[int], Iterator[Shard]], *, progress: bool = True) -> Shard:
        """All rows as one shard, memory-mapped; what is missing is made and stored first.

        Several processes may ask at once: one makes it, the others wait.

        Args:
            make: number of the first row that is missing -> the shards from there on.
            progress: show a progress bar.

        Raises:
            RunError: the folder cannot be written.
        """
        if self._fault() is None:
            return self._read()
        try:
            self._building.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder.with_suffix(".lock")):
                if (fault := self._fault()) is not None:
                    self._discard(fault)
                    self._build(make, progress)
        except OSError as error:
            raise RunError(
                f"The tokens of {counted(self._count, 'row')} cannot be written to {self._folder.parent} "
                f"({error.strerror or error}). Make room or check its permissions, or set data.cache to another "
                "folder; what is done is kept."
            ) from error
        return self._read()

    def _fault(self) -> str | None:
        """What is wrong with the folder; empty if there is none, None if all is there and as it was written."""
        return fault_of(self._folder) if self._folder.is_dir() else ""

    def _discard(self, fault: str) -> None:
        if not fault:
            return
        _LOG.warning("The tokens in %s are damaged (%s). They are not used, but made again.", self._folder, fault)
        old = self._folder.with_suffix(".old")
        shutil.rmtree(old, ignore_errors=True)
        self._folder.rename(old)  # whoever has mapped the files keeps them
        shutil.rmtree(old)

    def _build(self, make: Callable[[int], Iterator[Shard]], progress: bool) -> None:
        folder = self._building
        folder.mkdir(exist_ok=True)  # the one who had the lock has renamed it
        done = self._resumed()
        with tqdm(total=self._count, initial=done, desc="tokenizing", unit="row", disable=not progress) as bar:
            for shard in make(done) if done < self._count else ():
                _append(folder, shard)
                bar.update(shard.rows)
        write_list(folder, [folder / name for name in (*_FILES, _LINES)])
        folder.rename(self._folder)
        sync_folder(self._folder.parent)

    def _resumed(self) -> int:
        """Rows that an earlier run has stored; whatever follows them, or is damaged, is removed."""
        folder, done, ends = self._building, 0, dict.fromkeys(_FILES, 0)
        for name in _FILES:
            (folder / name).touch()
        try:
            lines = read_jsonl(folder / _LINES)
            for line in lines:
                if fault := _fault(folder, line, ends):
                    _LOG.warning("The tokens in %s are damaged (%s) and are made again.", folder, fault)
                    lines = []
            done = sum(line["rows"] for line in lines)
        except (RunError, KeyError, TypeError) as error:
            _LOG.warning("The tokens in %s cannot be used (%s) and are made again.", folder, error)
            lines, done = [], 0
        if not lines:
            ends = dict.fromkeys(_FILES, 0)
            (folder / _LINES).unlink(missing_ok=True)
        for name, end in ends.items():
            os.truncate(folder / name, end)
        return done

    def _read(self) -> Shard:
        """Everything, memory-mapped."""
        rows = _mapped(self._folder / "rows", np.int64).reshape(-1, 4)
        sides = [
            Ragged(_mapped(self._folder / name, np.int32), np.concatenate([[0], np.cumsum(rows[:, number])]))
            for number, name in enumerate(_SIDES, 1)
        ]
        observed = Observed()
        for line in read_jsonl(self._folder / _LINES):
            observed.add(Observed.from_dict(line["observed"]))
        return Shard(self._count, *sides, np.array(rows[:, 0]), observed)


def _key(preferences: Preferences, how: Tokenizing, rows: int) -> str:
    """Digest of all that determines the tokens of preferences: texts, tokenizer and settings."""
    settings = {
        "format": _FORMAT,
        "rows": rows,
        "tokenizer": tokenizer_fingerprint(how.tokenizer),
        "conversational": how.conversational,
        "max_length": how.max_length,
        "truncation": how.truncation,
        "prompt": how.writing.prompt,
        "reasoning": how.writing.reasoning,
        **_more_rules(how.tokenizer),
        "versions": [version(name) for name in ("transformers", "tokenizers")],
    }
    texts = hashlib.blake2b(digest_size=16)
    table = preferences.dataset.select_columns(list(TEXT_COLUMNS)).with_format("arrow")
    for start in range(0, len(preferences), rows):
        part: Any = table[start : start + rows]
        part = part.combine_chunks().replace_schema_metadata(None)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, part.schema) as stream:
            stream.write_table(part)
        texts.update(sink.getvalue())
    return digest(json.dumps(settings, sort_keys=True).encode(), texts.digest())


def _more_rules(tokenizer: Any) -> dict[str, Any]:
    """What the fingerprint of a tokenizer does not hold; it is stored with runs, and so stays as it is."""
    plain = getattr(tokenizer, "backend_tokenizer", None) is None
    options = repr(sorted(tokenizer.init_kwargs.items(), key=str)) if plain else ""
    return {"class": type(tokenizer).__name__, "options": options, "split_special": tokenizer.split_special_tokens}


def _append(folder: Path, shard: Shard) -> None:
    """Put a shard behind the others, and then its line."""
    lengths = [side.lengths for side in shard.sides]
    columns = np.stack([shard.index, *lengths], axis=1).astype(np.int64)
    contents = [*(side.values for side in shard.sides), np.ascontiguousarray(columns)]
    line: dict[str, Any] = {"rows": shard.rows, "observed": shard.observed.to_dict(), "files": {}}
    for name, content in zip(_FILES, contents, strict=True):
        raw = memoryview(content).cast("B") if content.size else b""
        with (folder / name).open("ab") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        line["files"][name] = [content.nbytes, hashlib.sha256(raw).hexdigest()]
    append_jsonl(folder / _LINES, line)


def _fault(folder: Path, line: dict[str, Any], ends: dict[str, int]) -> str | None:
    """What is wrong with the files of a shard; `ends` is where its parts begin, and then where they end."""
    for name in _FILES:
        size, expected = line["files"][name]
        with (folder / name).open("rb") as file:
            file.seek(ends[name])
            if hashlib.sha256(file.read(size)).hexdigest() != expected:
                return f"{name} is not what was written"
        ends[name] += size
    return None


def _mapped(file: Path, kind: Any) -> np.ndarray:
    """The numbers in a file; an empty one cannot be mapped."""
    return np.asarray(np.memmap(file, kind, "r")) if file.stat().st_size else np.zeros(0, dtype=kind)
