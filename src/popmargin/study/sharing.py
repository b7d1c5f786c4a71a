"""Several processes that run the same study share its work: each takes what no other one is at."""

import contextlib
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

T = TypeVar("T")
LOCKS = "locks"  # folder of a study's locks


def share(items: Mapping[str, T], folder: Path, is_done: Callable[[T], bool], do: Callable[[int, T], object]) -> None:
    """Do every item once among all processes that are called with the same; returns when all are done.

    What another process is at is passed over at first and waited for at the end; it is done here if that process
    stopped before it was through.

    Args:
        items: by a name that can be a file's.
        folder: for the locks.
        is_done: looks at what is on disk.
        do: is told the item's number, from 1, and the item.
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
    """Hold a lock, which ends with the process if it is killed; gives False where another one has it.

    Args:
        path: its file.
        wait: until it is free.
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
