"""Shards of tokens from other processes, in order.

A worker is a Python of its own that reads jobs from its standard input: unlike a forked process it shares no locks, no
threads and no device with this one, and unlike a spawned one it does not run the user's script again.
"""

import contextlib
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from popmargin.data.schema import TEXT_COLUMNS, Preferences
from popmargin.data.token_shards import Job, Shard, Tokenizing
from popmargin.errors import PopmarginError, RunError

_LOG = logging.getLogger(__name__)
_ROWS_EACH = 50_000  # fewer are done before a worker has started
_MOST = 8  # more wait for the process that writes
_START = "from popmargin.data.token_workers import serve; serve()"
_READY = "ready"


def worker_count(rows: int, asked: int | None) -> int:
    """How many processes tokenize some rows: as many as asked for, or as there are cores, and 1 for small data.

    Example:
        >>> worker_count(10_000, None), worker_count(10_000, 3)
        (1, 3)
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return asked or max(1, min(cores, rows // _ROWS_EACH, _MOST))


def tokenized_shards(
    preferences: Preferences, how: Tokenizing, *, rows: int, first: int = 0, workers: int = 1
) -> Iterator[Shard]:
    """The shards of preferences, in order.

    Args:
        preferences: all rows.
        how: they become tokens.
        rows: of a shard.
        first: number of the first row that is wanted.
        workers: processes besides this one; 1 for none.

    Raises:
        DataError: of a row that cannot be tokenized; the first one.
        RunError: a worker has ended.
    """
    jobs = _jobs(preferences, rows, first)
    started = _started(how, workers) if workers > 1 else []
    if not started:
        yield from map(how.shard, jobs)
        return
    try:
        yield from _by_workers(started, jobs)
    finally:
        for worker in started:
            worker.end()


def _jobs(preferences: Preferences, rows: int, first: int) -> Iterator[Job]:
    ids = preferences.ids
    start = first
    for texts in preferences.batches(*TEXT_COLUMNS, size=rows, start=first):
        yield Job(start, ids[start : start + rows], texts)
        start += rows


def _by_workers(workers: "list[_Worker]", jobs: Iterator[Job]) -> Iterator[Shard]:
    free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for worker in workers:
        free.put(worker)

    def work(job: Job) -> Shard:
        worker = free.get()
        try:
            return worker.answer(job)
        finally:
            free.put(worker)

    threads = ThreadPoolExecutor(len(workers))
    waiting: deque[Future[Shard]] = deque()
    try:
        for job in jobs:
            waiting.append(threads.submit(work, job))
            if len(waiting) > 2 * len(workers):  # so few that their rows take no memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        for worker in workers:
            worker.end()
        threads.shutdown()


def _started(how: Tokenizing, workers: int) -> "list[_Worker]":
    """Workers that have the tokenizer; none, with a message, if it cannot be handed over."""
    found: list[_Worker] = []
    try:
        content = pickle.dumps(how)
        found += [_Worker() for _ in range(workers)]
        for worker in found:
            worker.send(content)
        refused = [answer for worker in found if (answer := worker.receive()) != _READY]
    except (pickle.PicklingError, TypeError, AttributeError, OSError, RunError) as error:
        refused = [str(error)]
    if refused:
        for worker in found:
            worker.end()
        _LOG.warning("The tokenizer cannot be used in other processes (%s): this one does their work.", refused[0])
        return []
    return found


class _Worker:
    """Another process that tokenizes."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def send(self, content: bytes) -> None:
        """Give it a pickled value."""
        assert self._process.stdin is not None
        self._process.stdin.write(content)
        self._process.stdin.flush()

    def receive(self) -> Any:
        """Wait for its answer.

        Raises:
            RunError: it has ended.
        """
        assert self._process.stdout is not None
        try:
            return pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError) as error:
            code = self._process.wait()
            raise RunError(
                f"A process that tokenizes has ended (exit code {code}), perhaps for want of memory. Start again, with "
                "fewer data.workers: what is done is kept."
            ) from error

    def answer(self, job: Job) -> Shard:
        """Have it tokenize some rows.

        Raises:
            DataError: one of them cannot be.
            RunError: it has ended.
        """
        with contextlib.suppress(BrokenPipeError):  # `receive` says why
            self.send(pickle.dumps(job))
        found = self.receive()
        if isinstance(found, BaseException):
            raise found
        return found

    def end(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def serve() -> None:
    """What a worker does: read how to tokenize, then answer jobs until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the process that started this one ends it
    jobs = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever is printed must not get among the answers

    def say(value: Any) -> None:
        answers.write(pickle.dumps(value))
        answers.flush()

    try:
        how: Tokenizing = pickle.load(jobs)
    except Exception as error:
        say(f"{type(error).__name__}: {error}")
        return
    say(_READY)
    while True:
        try:
            job: Job = pickle.load(jobs)
        except EOFError:
            return
        try:
            say(how.shard(job))
        except PopmarginError as error:
            say(error)
        except Exception as error:
            told = "".join(traceback.format_exception(error))
            say(RunError(f"Tokenizing failed near row {job.start}:\n{told}"))
