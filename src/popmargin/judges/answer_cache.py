"""Answers by request, cached on disk; several processes may share the file."""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from popmargin.errors import RunError

_LOG = logging.getLogger(__name__)


class AnswerCache:
    """Answers (JSON values) by request, in memory and in an append-only JSONL file.

    Every answer is on disk before it counts, so a killed run loses nothing that was paid for; a half-written line is
    removed at the next start or the next answer. A lock file (`.lock`) keeps processes that share the file from writing
    into each other's lines. Of two answers to a request, the later one counts. What calls cost is kept in lines of
    their own, with no answer.

    Attributes:
        answers: by key.
        payments: keys and what was paid, in order; see `spending.Purse`.

    Args:
        path: the file; created, with its folder, if missing.

    Raises:
        RunError: the file cannot be read, or a line of it is not an answer; it is left unchanged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Any] = {}
        self.payments: list[tuple[str, dict[str, Any]]] = []
        self._lock = threading.Lock()
        with self._alone():
            complete = self._mended()
        for number, line in enumerate(complete.splitlines(), start=1):
            try:
                entry = json.loads(line)
                if "paid" in entry:
                    self.payments.append((entry["key"], dict(entry["paid"])))
                else:
                    self.answers[entry["key"]] = entry["answer"]
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(
                    f"{path}, line {number}: not a cached judge answer. Delete the line or the file."
                ) from error

    def add(self, key: str, answer: Any) -> None:
        """Store one answer."""
        self.add_many([(key, answer)])

    def add_many(self, answers: Iterable[tuple[str, Any]]) -> None:
        """Store several answers with one wait for the disk."""
        entries = list(answers)
        lines = "".join(json.dumps({"key": key, "answer": answer}) + "\n" for key, answer in entries)
        with self._lock, self._alone():
            self._append(lines, wait=True)
            self.answers.update(entries)

    def pay(self, key: str, paid: Mapping[str, Any]) -> None:
        """Store what a call cost, before its answer, which waits for the disk."""
        with self._lock, self._alone():
            self._append(json.dumps({"key": key, "answer": None, "paid": paid}) + "\n", wait=False)

    def _append(self, lines: str, *, wait: bool) -> None:
        if self._is_torn():  # another process was killed while it wrote
            self._mended()
        with self.path.open("ab") as file:
            file.write(lines.encode())
            file.flush()
            if wait:
                os.fsync(file.fileno())

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Keeps other processes from reading or writing meanwhile."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_dir():
                raise IsADirectoryError(None, "Is a directory")
            with FileLock(self.path.with_name(self.path.name + ".lock")):
                yield
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be used as a cache ({error.strerror}). Give a file, or the name of a new one."
            ) from error

    def _is_torn(self) -> bool:
        with self.path.open("ab+") as file:
            if file.tell() == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"

    def _mended(self) -> bytes:
        """The file's complete lines; a truncated last line is removed, and its question is asked again."""
        text = self.path.read_bytes() if self.path.exists() else b""
        complete, _, torn = text.rpartition(b"\n")
        if not _is_begun(torn):
            raise RunError(
                f"{self.path}: its last line is not a cached judge answer. Choose another file, or a new one."
            )
        if torn:
            _LOG.warning(
                "%s: its last answer was not written to its end; its %d bytes are cut off.", self.path, len(torn)
            )
            with self.path.open("r+b") as file:
                file.truncate(len(text) - len(torn))
        return complete


def _is_begun(line: bytes) -> bool:
    """Whether a line is a prefix of one written by `AnswerCache.add_many`."""
    start, middle = b'{"key": "', b', "answer": '
    _, _, rest = line[len(start) :].partition(b'"')
    return start.startswith(line[: len(start)]) and middle.startswith(rest[: len(middle)])


def request_key(body: Mapping[str, Any]) -> str:
    """The key of a request in the cache: SHA-256 of its content."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def cache_file(name: str) -> Path:
    """A file in the user's cache folder."""
    return Path(os.environ.get("POPMARGIN_CACHE", Path.home() / ".cache" / "popmargin")) / name
