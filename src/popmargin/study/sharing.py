"""Sharing a study's work between processes: each takes items that no other is working on."""

import contextlib
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

T = TypeVar("T")
LOCKS = "locks"  # folder of a study's locks


def share(items: Mapping[str, T], folder: Path, is_done: Callable[[T], bool], do: Callable[[int, T], object]) -> None:
    """Process every item once among all processes called with the same items; return when all are done.

    Items that another process is working on are skipped at first and waited for at the end; they are done here if that
    process stopped before finishing.

    Args:
        items: by a name that can be a file name.
        folder: for the locks.
        is_done: looks at what is on disk.
        do: called with the item's number, from 1, and the item.
    """
    for wait in (False, True):
        for number, (name, item) in enumerate(items.items(), start=1):
            if is_done(item):
                continue
            with claimed(folder / f"{name}.lock", wait=wait) as mine:
                if mine and not is_done(item):
                    do(number, item)


@contextlib.contextmanager
def claimed(path: Path, *, wait: bool) -> Generator[bool]:
    """Hold a lock, which is released if the process is killed; yields False if another process has it.

    Args:
        path: its file.
        wait: whether to wait until it is free.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
