"""What a long call has finished so far, on disk: a killed process loses no more than what it was at."""

import json
import logging
import os
import threading
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from popmargin.errors import RunError, first_few

_LOG = logging.getLogger(__name__)


class PartFile:
    """Finished responses, a JSON line each, in a file whose first line says what was asked for.

    Lines are on the disk before they count. What a kill left of a line is cut off at the next start.

    Args:
        path: the file; None keeps everything in memory.
        asked: what decides the responses: settings and fingerprints, as JSON values.

    Attributes:
        done: (number of the prompt, number of the response) -> what was added.

    Raises:
        RunError: the file was begun for something else, or is no such file; it is left as it is.
    """

    def __init__(self, path: Path | None, asked: Mapping[str, Any]) -> None:
        self.path = path
        self._lock = threading.Lock()
        self.done: dict[tuple[int, int], dict[str, Any]] = {}
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_bytes() if path.is_file() else b""
        whole, _, torn = text.rpartition(b"\n")
        lines = self._read(whole)
        if lines:
            self._refuse_others(lines[0].get("asked"), asked)
        elif torn and not b'{"asked": '.startswith(torn[:10]):
            raise RunError(f"{path} holds something else. Delete it, or choose another output.")
        if torn:
            _LOG.warning("%s: its last line was not written to its end; its %d bytes are cut off.", path, len(torn))
            with path.open("r+b") as file:
                file.truncate(len(text) - len(torn))
        if not lines:
            self._append([{"asked": asked}])
        for line in lines[1:]:
            self.done[line["prompt"], line["number"]] = line

    def add(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Keep responses; each has its `prompt` and `number`, and one that is there already stays as it is."""
        with self._lock:
            new = [dict(entry) for entry in entries if (entry["prompt"], entry["number"]) not in self.done]
            if self.path is not None and new:
                self._append(new)
            self.done |= {(entry["prompt"], entry["number"]): entry for entry in new}

    def remove(self) -> None:
        """Delete the file, once its content is elsewhere."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _append(self, entries: Iterable[Mapping[str, Any]]) -> None:
        assert self.path is not None
        with self.path.open("ab") as file:
            file.write("".join(json.dumps(entry) + "\n" for entry in entries).encode())
            file.flush()
            os.fsync(file.fileno())

    def _read(self, whole: bytes) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        for number, text in enumerate(whole.splitlines(), 1):
            try:
                line = json.loads(text)
                if {"asked"} != line.keys() if number == 1 else not {"prompt", "number"} <= line.keys():
                    raise ValueError("another content")
            except (ValueError, AttributeError) as error:
                raise RunError(
                    f"{self.path}:{number}: not what popmargin generate writes there ({error}). Delete the file, or "
                    "choose another output."
                ) from error
            lines.append(line)
        return lines

    def _refuse_others(self, before: Any, now: Mapping[str, Any]) -> None:
        now = json.loads(json.dumps(now))
        changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if changed:
            shown = [f"{name} {_short(before.get(name))} (now {_short(now.get(name))})" for name in changed]
            raise RunError(
                f"{self.path} was begun with {first_few(shown)}. Use the same settings to go on, or delete the file to "
                "begin again."
            )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def payments_beside(part: Path) -> Path:
    """The file that keeps what the responses in a part file have cost."""
    return part.with_name(f"{part.name}.paid")


def forget_payments(part: Path) -> None:
    """Delete it, once the responses are elsewhere."""
    paid = payments_beside(part)
    for path in (paid, paid.with_name(f"{paid.name}.lock")):
        path.unlink(missing_ok=True)


@contextmanager
def part_beside(out: Path) -> Generator[Path]:
    """The place of the part file of an output, which no other process may use meanwhile.

    Raises:
        RunError: another process is at it.
    """
    place = out.with_name(f"{out.name}.part")
    lock = FileLock(place.with_name(f"{place.name}.lock"))
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(f"{out} is being made by another process. Wait for it, or choose another output.") from error
    try:
        yield place
        Path(lock.lock_file).unlink(missing_ok=True)
    finally:
        lock.release()
