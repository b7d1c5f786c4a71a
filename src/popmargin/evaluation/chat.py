"""A client of OpenAI-compatible chat servers: cached, resumable, rate-limited, with retries. Shared by all judges."""

import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from popmargin.errors import ConfigError, RunError, import_extra

_LONGEST_WAIT = 60.0
UNREADABLE = "(no answer that can be read)"
"""Stands where callers want a text and the server gave no chat completion; it holds no verdict."""
_STRANGERS = 8  # questions without a readable answer after which a server that never gave one is no judge


class AnswerCache:
    """Answers (JSON values) by request, in memory and in an append-only JSONL file.

    Every answer is on the disk before it counts, so a killed run loses nothing that was paid for; a line that a kill
    left half written is cut off at the next start.

    Args:
        path: the file; made with its folder when missing.

    Raises:
        RunError: the file cannot be read, or a line of it is not an answer; it is left as it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Any] = {}
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise RunError(f"{path}: no file for a cache ({error.strerror}). Name a file, or a new one.") from error
        complete, _, torn = text.rpartition(b"\n")
        for number, line in enumerate(complete.splitlines(), start=1):
            try:
                entry = json.loads(line)
                self.answers[entry["key"]] = entry["answer"]
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(
                    f"{path}, line {number}: not a cached judge answer. Delete the line or the file."
                ) from error
        if not _is_begun(torn):
            raise RunError(f"{path}: its last line is not a cached judge answer. Name another file, or a new one.")
        if torn:  # a run was killed while it wrote this line; its answer is asked for again
            with path.open("r+b") as file:
                file.truncate(len(text) - len(torn))

    def add(self, key: str, answer: Any) -> None:
        """Store one answer."""
        self.add_many([(key, answer)])

    def add_many(self, answers: Iterable[tuple[str, Any]]) -> None:
        """Store several answers with one wait for the disk."""
        entries = list(answers)
        lines = "".join(json.dumps({"key": key, "answer": answer}) + "\n" for key, answer in entries)
        with self._lock:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            self.answers.update(entries)


def _is_begun(line: bytes) -> bool:
    """Whether a line is the beginning of one that `AnswerCache.add_many` writes."""
    start, middle = b'{"key": "', b', "answer": '
    _, _, rest = line[len(start) :].partition(b'"')
    return start.startswith(line[: len(start)]) and middle.startswith(rest[: len(middle)])


def request_key(body: Mapping[str, Any]) -> str:
    """The key of a request in the cache: SHA-256 of its content."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def cache_file(name: str) -> Path:
    """A file in the user's cache folder."""
    return Path(os.environ.get("POPMARGIN_CACHE", Path.home() / ".cache" / "popmargin")) / name


class ChatClient:
    """Asks a chat server; what was asked before is answered by the cache.

    Args:
        url: base of the API ("http://localhost:8000/v1"), or its chat/completions address.
        read: takes what is kept of an answer from the server's JSON.
        cache: where answers are kept.
        api_key_env: environment variable that holds the key; no key is sent when None. It is stored nowhere.
        workers: requests at a time.
        retries: further attempts after a lost connection, a 429 or a 5xx answer, or one that cannot be read.
        backoff: seconds before the first of them; doubled each time, with up to half of it as jitter. A longer
            Retry-After of the server is obeyed.
        timeout: seconds for one request.
        requests_per_minute: most requests that are begun in a minute, attempts included; no limit when None.

    Attributes:
        requests: calls made by this object (attempts included).
        failed: questions of which no attempt gave an answer that can be read.

    Raises:
        ConfigError: the address is no URL, the key is missing, or a setting is out of range.
        MissingExtraError: httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        read: Callable[[Any], Any],
        cache: AnswerCache,
        api_key_env: str | None = None,
        workers: int = 8,
        retries: int = 5,
        backoff: float = 1.0,
        timeout: float = 120.0,
        requests_per_minute: float | None = None,
    ) -> None:
        self._httpx: Any = import_extra("httpx", "judge")
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"Judge address {url!r} is not a URL. Give for instance http://localhost:8000/v1.")
        if workers < 1 or retries < 0 or (requests_per_minute is not None and requests_per_minute <= 0):
            raise ConfigError(
                f"Judge {url}: workers is {workers}, retries {retries}, requests per minute {requests_per_minute}; "
                "give at least 1 worker, 0 retries and a positive rate."
            )
        self.url = url if url.endswith("/chat/completions") else url.rstrip("/") + "/chat/completions"
        self.cache = cache
        self._read = read
        self._headers = _headers(api_key_env)
        self._workers = workers
        self._retries = retries
        self._backoff = backoff
        self._timeout = timeout
        self._pause = 0.0 if requests_per_minute is None else 60.0 / requests_per_minute
        self._lock = threading.Lock()
        self._next_start = 0.0
        self.requests = 0
        self.failed = 0
        self._understood = False

    def ask(self, bodies: Iterable[dict[str, Any]], *, progress: bool = False) -> list[Any]:
        """The answer to each request body, in order; equal bodies are asked once.

        None stands where the server gave no answer that can be read (an empty body, no JSON, no choices), however often
        it was asked. It is not cached, so the next run asks again.

        Raises:
            RunError: the server cannot be reached or refuses, or nothing that it says can be read.
        """
        asked = list(bodies)
        keys = [request_key(body) for body in asked]
        known = self.cache.answers
        wanted = {key: body for key, body in zip(keys, asked, strict=True) if key not in known}
        if wanted:
            self._ask_all(wanted, progress)
        return [known.get(key) for key in keys]

    def _ask_all(self, wanted: Mapping[str, dict[str, Any]], progress: bool) -> None:
        with (
            self._httpx.Client(timeout=self._timeout, headers=self._headers) as client,
            ThreadPoolExecutor(self._workers) as pool,
        ):
            jobs = [pool.submit(self._ask_one, client, key, body) for key, body in wanted.items()]
            try:
                for job in tqdm(as_completed(jobs), total=len(jobs), desc="judge", disable=not progress):
                    job.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # one refusal is enough; do not send the rest
                raise

    def _ask_one(self, client: Any, key: str, body: dict[str, Any]) -> None:
        problem, unread = "", None
        for attempt in range(self._retries + 1):
            self._wait_for_turn()
            wait = self._backoff * 2.0**attempt * random.uniform(1.0, 1.5)
            unread = None
            try:
                response = client.post(self.url, json=body)
            except self._httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if response.status_code == 200:
                    if self._keep(key, response):
                        return
                    unread = response.text[:200]
                problem = f"HTTP {response.status_code}: {response.text[:200]}"
                if unread is None and response.status_code != 429 and response.status_code < 500:
                    raise RunError(f"Judge {self.url} refused the request. {problem}")
                asked = response.headers.get("retry-after", "")
                wait = max(wait, float(asked)) if asked.isdigit() else wait
            if attempt < self._retries:
                time.sleep(min(wait, _LONGEST_WAIT))
        if unread is not None:
            self._give_up(unread)
            return
        raise RunError(
            f"Judge {self.url} gave no answer after {self._retries + 1} attempts. {problem}. Answers so far are "
            f"kept in {self.cache.path}: run again to go on."
        )

    def _wait_for_turn(self) -> None:
        with self._lock:
            self.requests += 1
            now = time.monotonic()
            start = max(now, self._next_start)
            self._next_start = start + self._pause
        if start > now:
            time.sleep(start - now)

    def _keep(self, key: str, response: Any) -> bool:
        """Store what is kept of an answer; False if it cannot be read."""
        try:
            answer = self._read(response.json())
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return False
        self._understood = True
        self.cache.add(key, answer)
        return True

    def _give_up(self, unread: str) -> None:
        """Count a question without a readable answer; a server that never gave one is probably something else."""
        with self._lock:
            self.failed += 1
            if self.failed >= _STRANGERS and not self._understood:
                raise RunError(f"Judge {self.url} did not answer like an OpenAI-compatible server: {unread!r}")


def answer_text(response: Any) -> str:
    """The text of a chat completion; a refusal has none."""
    content = response["choices"][0]["message"]["content"]
    return content if isinstance(content, str) else ""


def _headers(api_key_env: str | None) -> dict[str, str]:
    if api_key_env is None:
        return {}
    key = os.environ.get(api_key_env)
    if not key:
        raise ConfigError(
            f"The environment variable {api_key_env} (api_key_env) is not set; put the judge's key there."
        )
    return {"Authorization": f"Bearer {key}"}
