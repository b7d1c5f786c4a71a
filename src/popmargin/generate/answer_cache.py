"""Answers by request, cached on disk; several processes may share the file."""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
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
        payments: keys and what was paid, in order; see `spending.Purse`. Those that other processes add meanwhile are
            seen whenever something is written.

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
        self._read_to = len(complete) + bool(complete)  # the end of the lines that are known
        for number, line in enumerate(complete.splitlines(), start=1):
            try:
                self._know(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(
                    f"{path}, line {number}: not a cached judge answer. Delete the line or the file."
                ) from error

    def _know(self, entry: Any) -> None:
        if "paid" in entry:
            self.payments.append((entry["key"], dict(entry["paid"])))
        else:
            self.answers[entry["key"]] = entry["answer"]

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

    def pay(self, key: str, paid: Mapping[str, Any], allowed: Callable[[], bool] | None = None) -> bool:
        """Store what a call cost, before its answer, which waits for the disk.

        Args:
            key: of the request.
            paid: what is stored.
            allowed: asked when the payments of other processes are known, and none of them can add one; if it says no,
                nothing is stored, and the result is false.
        """
        with self._lock, self._alone():
            self._catch_up()
            if allowed is not None and not allowed():
                return False
            self._append(json.dumps({"key": key, "answer": None, "paid": paid}) + "\n", wait=False)
            self.payments.append((key, dict(paid)))
        return True

    def refresh(self) -> None:
        """Know what other processes have added."""
        with self._lock, self._alone():
            self._catch_up()

    def _append(self, lines: str, *, wait: bool) -> None:
        if self._is_torn():  # another process was killed while it wrote
            self._mended()
        self._catch_up()
        with self.path.open("ab") as file:
            file.write(lines.encode())
            file.flush()
            if wait:
                os.fsync(file.fileno())
            self._read_to = file.tell()

    def _catch_up(self) -> None:
        """Know the lines that other processes have added."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size <= self._read_to:  # smaller: another file by now
            self._read_to = size
            return
        with self.path.open("rb") as file:
            file.seek(self._read_to)
            complete, newline, _ = file.read().rpartition(b"\n")
        self._read_to += len(complete) + len(newline)
        for line in complete.splitlines():
            with suppress(ValueError, KeyError, TypeError):  # said when the file is opened again
                self._know(json.loads(line))

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
