"""Batches that were sent to a server, on disk, so that a killed run finds them again and pays for none twice."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from popmargin.errors import RunError


@dataclass(frozen=True)
class SentBatch:
    """A batch.

    Attributes:
        name: our own, which the server keeps in the batch's metadata.
        url: of the server.
        keys: its requests.
        id: the server's; None between asking for the batch and the server's answer.
    """

    name: str
    url: str
    keys: tuple[str, ...]
    id: str | None = None


class BatchLog:
    """An append-only JSONL file of batches; a half-written last line is one that was never sent.

    Args:
        path: the file; created with the first batch.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, url: str) -> list[SentBatch]:
        """The batches of a server whose results are not fetched yet.

        Raises:
            RunError: a line is not of this file.
        """
        found: dict[str, SentBatch] = {}
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        for number, line in enumerate(text.split("\n")[:-1], start=1):
            try:
                self._take(json.loads(line), found)
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(
                    f"{self.path}, line {number}: not a line about a batch. Delete the line, or move the file away."
                ) from error
        return [batch for batch in found.values() if batch.url == url]

    @staticmethod
    def _take(entry: Mapping[str, Any], found: dict[str, SentBatch]) -> None:
        name = entry["name"]
        if "keys" in entry:
            found[name] = SentBatch(name, entry["url"], tuple(entry["keys"]))
        elif entry.get("done"):
            del found[name]
        else:
            found[name] = replace(found[name], id=entry["id"])

    def begin(self, batch: SentBatch) -> None:
        """Before the server is asked for it."""
        self._write({"name": batch.name, "url": batch.url, "keys": list(batch.keys)})

    def sent(self, batch: SentBatch, id: str) -> SentBatch:
        """When the server has it."""
        self._write({"name": batch.name, "id": id})
        return replace(batch, id=id)

    def done(self, batches: Sequence[SentBatch]) -> None:
        """When its results are stored, or there are none."""
        for batch in batches:
            self._write({"name": batch.name, "done": True})

    def _write(self, entry: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(self.path.name + ".lock")), self.path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # killed while it wrote, so this batch was never sent
                    whole = self.path.read_bytes()
                    file.truncate(whole.rfind(b"\n") + 1)
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
