"""Asking by the batch endpoint of an OpenAI-compatible server: cheaper, and answered within a day.

A file of requests is uploaded, a batch made of it, and looked at until it is done; then the files of its answers and
errors are fetched. Each batch is noted on disk before it is made, and carries a name of ours, so that a run that was
killed at any point finds it again instead of paying for another.
"""

import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from popmargin.errors import ConfigError, RunError, import_extra
from popmargin.generate.batch_log import BatchLog, SentBatch
from popmargin.generate.purse import Purse
from popmargin.generate.server import NOT_ASKED, SHOWN, Failure, NoAnswerError, key_headers, retry_after

_LOG = logging.getLogger(__name__)
_MOST_REQUESTS, _MOST_BYTES = 50_000, 190_000_000  # OpenAI takes 50,000 requests and 200 MB in a batch
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_TRY_AGAIN = frozenset({408, 409, 425, 429})
_MARK = "popmargin"
"""Of our name in a batch's metadata."""


class BatchServer:
    """The batch endpoint of a server; asks like `Server`.

    Args:
        url: base of the API, or the address of its endpoint.
        log: file that notes which batches were sent.
        what: what the server is, for messages.
        endpoint: what the requests are for.
        api_key_env: environment variable that holds the key; no key is sent when None.
        retries: further batches for requests that failed and may not fail again, and further attempts of a call.
        backoff: seconds before the first further attempt of a call, doubled each time.
        timeout: seconds for a call.
        poll: seconds between two looks at a batch.

    Attributes:
        requests: requests sent in batches by this object.
        failed: those that ended as a `Failure`.
        understood: unused; a batch is no stranger's question.

    Raises:
        ConfigError: the address is no URL, or the key is missing.
        MissingExtraError: httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        log: Path,
        what: str = "Server",
        endpoint: str = "chat/completions",
        api_key_env: str | None = None,
        retries: int = 5,
        backoff: float = 1.0,
        timeout: float = 120.0,
        poll: float = 30.0,
    ) -> None:
        self._httpx: Any = import_extra("httpx", "judge")
        self._what = what
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{what} address {url!r} is not a URL. Give one such as http://localhost:8000/v1.")
        if retries < 0 or poll <= 0:
            raise ConfigError(f"{what} {url}: retries is {retries}, poll {poll}; give 0 or more, and a time above 0.")
        self._base = url.rstrip("/").removesuffix("/completions").removesuffix("/chat")
        self.url = f"{self._base}/{endpoint}"
        self._endpoint = endpoint
        self._headers = key_headers(api_key_env, what)
        self._retries, self._backoff, self._timeout, self._poll = retries, backoff, timeout, poll
        self._log = BatchLog(log)
        self.requests = self.failed = 0
        self.understood = False

    def ask(
        self,
        wanted: Mapping[str, dict[str, Any]],
        *,
        read: Callable[[str, Any], Any],
        keep: Callable[[str, Any], None],
        kept: str,
        purse: Purse,
        progress: str | None = None,
    ) -> dict[str, Failure]:
        """Ask several questions in batches; see `Server.ask`.

        Batches of earlier runs are fetched first, whatever became of these runs.

        Raises:
            RunError: the server cannot be reached, or refuses a batch.
        """
        failures: dict[str, Failure] = {}
        if not wanted:
            return failures
        run = _Run(wanted, read, keep, purse, progress)
        with self._httpx.Client(timeout=self._timeout, headers=self._headers) as client:
            noted = [batch for batch in self._log.open(self.url) if not wanted.keys().isdisjoint(batch.keys)]
            under_way = [made for batch in noted if (made := self._adopted(client, batch)) is not None]
            tried = dict.fromkeys(wanted, 0)
            left = [key for key in wanted if not any(key in batch.keys for batch in under_way)]
            while left or under_way:
                sendable, refused = _admitted(left, wanted, purse)
                under_way += [self._send(client, part) for part in _parts(sendable, wanted, self._path)]
                if not under_way:  # nothing more fits into the budget
                    failures |= dict.fromkeys(refused, NOT_ASKED)
                    break
                found = {
                    key: failure for batch in under_way for key, failure in self._collect(client, batch, run).items()
                }
                for key in found:
                    tried[key] += 1
                again = [key for key, failed in found.items() if failed.again and tried[key] <= self._retries]
                failures |= {key: failed.failure for key, failed in found.items() if key not in again}
                left, under_way = [*refused, *again], []
        self.failed += sum(failure is not NOT_ASKED for failure in failures.values())
        return failures

    @property
    def _path(self) -> str:
        """The endpoint's path, as batches name it."""
        return f"/v1/{self._endpoint}"

    def _adopted(self, client: Any, batch: SentBatch) -> SentBatch | None:
        """A batch of an earlier run; None if it was noted, but never made."""
        if batch.id is not None:
            return batch
        id = self._find(client, batch.name)
        if id is None:
            self._log.done([batch])
            return None
        return self._log.sent(batch, id)

    def _send(self, client: Any, requests: Mapping[str, bytes]) -> SentBatch:
        """Upload requests and make a batch of them."""
        content = b"".join(requests.values())
        files = {"file": ("popmargin.jsonl", content, "application/jsonl")}
        upload = self._call(client, "POST", "files", data={"purpose": "batch"}, files=files)
        batch = SentBatch(uuid.uuid4().hex, self.url, tuple(requests))
        self._log.begin(batch)
        body = {
            "input_file_id": upload["id"],
            "endpoint": self._path,
            "completion_window": "24h",
            "metadata": {_MARK: batch.name},
        }
        made = self._call(client, "POST", "batches", json=body, done=lambda: self._find(client, batch.name))
        self.requests += len(requests)
        sent = self._log.sent(batch, made["id"])
        _LOG.info("Batch %s of %d requests is at %s.", sent.id, len(requests), self._base)
        return sent

    def _find(self, client: Any, name: str) -> str | None:
        """The server's id of a batch that has our name; None if it has none.

        Raises:
            RunError: the server does not list its batches.
        """
        after: str | None = None
        while True:
            query = {"limit": 100} | ({} if after is None else {"after": after})
            try:
                listed = self._call(client, "GET", "batches", params=query)
                for batch in listed["data"]:
                    if (batch.get("metadata") or {}).get(_MARK) == name:
                        return batch["id"]
            except (RunError, KeyError, TypeError) as error:
                raise RunError(
                    f"{self._what} {self._base}: a run was stopped while it made a batch, and the server does not list "
                    f"its batches ({error}). See there whether the batch {name} exists; if not, delete its line in "
                    f"{self._log.path}."
                ) from error
            if not listed.get("has_more") or not listed["data"]:
                return None
            after = listed["data"][-1]["id"]

    def _collect(self, client: Any, batch: SentBatch, run: "_Run") -> dict[str, "_Failed"]:
        """Wait for a batch, keep its answers, and say what is missing."""
        state = self._wait(client, batch, run.progress)
        problems = "; ".join(str(error.get("message")) for error in (state.get("errors") or {}).get("data") or [])
        if state["status"] == "failed":
            run.release(batch.keys)
            self._log.done([batch])
            raise RunError(
                f"{self._what} {self._base} refused batch {batch.id}: {problems or 'no reason given'}. Mend this, or "
                "ask without --batch; answers so far are kept."
            )
        found: dict[str, _Failed] = {}
        answered: set[str] = set()
        for name in ("output_file_id", "error_file_id"):
            for row in self._rows(client, state.get(name)):
                key = row.get("custom_id")
                if key not in batch.keys or key in answered:
                    _LOG.warning("Batch %s: an answer to %r, which was not asked, or twice; left out.", batch.id, key)
                    continue
                answered.add(key)
                failed = run.take(key, row, batch.id or "")
                if failed is not None and key in run.wanted:
                    found[key] = failed
        missing = [key for key in batch.keys if key not in answered]
        run.release(missing)
        lost = _Failed(Failure("no answer", f"batch {state['status']} {problems}".strip()), again=True)
        found |= {key: lost for key in missing if key in run.wanted}
        self._log.done([batch])
        return found

    def _wait(self, client: Any, batch: SentBatch, progress: str | None) -> dict[str, Any]:
        """The batch's state once it has ended."""
        with tqdm(total=len(batch.keys), desc=f"batch {batch.id}", disable=progress is None) as bar:
            while True:
                state = self._call(client, "GET", f"batches/{batch.id}")
                counts = state.get("request_counts") or {}
                bar.update(int(counts.get("completed") or 0) + int(counts.get("failed") or 0) - bar.n)
                if state["status"] in _ENDED:
                    return state
                time.sleep(self._poll)

    def _rows(self, client: Any, file: str | None) -> Iterator[dict[str, Any]]:
        """The lines of a result file; none without one."""
        if not file:
            return
        text = self._call(client, "GET", f"files/{file}/content", parsed=False)
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise RunError(
                    f"{self._what} {self._base}: file {file}, line {number} is not JSON. Run again."
                ) from error
            yield row

    def _call(
        self,
        client: Any,
        method: str,
        path: str,
        *,
        parsed: bool = True,
        done: Callable[[], str | None] | None = None,
        **what: Any,
    ) -> Any:
        """One call, tried again where that may help.

        Args:
            client: of httpx.
            method: of HTTP.
            path: below the base.
            parsed: give the JSON, not the text.
            done: finds what an attempt without an answer has made, so that it is not made twice.
            what: the content.

        Raises:
            RunError: the server refuses it, or does not answer.
        """
        problem = ""
        for attempt in range(self._retries + 1):
            wait = min(self._backoff * 2.0**attempt, 60.0)
            try:
                response = client.request(method, f"{self._base}/{path}", **what)
            except self._httpx.RequestError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if 200 <= response.status_code < 300:
                    return _content(response, parsed, f"{self._what} {self._base}/{path}")
                problem = f"HTTP {response.status_code}: {response.text[:SHOWN].strip()}"
                if response.status_code not in _TRY_AGAIN and response.status_code < 500:
                    break
                wait = max(wait, min(retry_after(response.headers), 600.0))
            if done is not None and (id := done()) is not None:
                return {"id": id}
            if attempt < self._retries:
                time.sleep(wait)
        hint = " Does the server have a batch endpoint?" if "HTTP 404" in problem or "HTTP 405" in problem else ""
        raise RunError(
            f"{self._what} {self._base}/{path}: {problem}.{hint} Run again to go on; no batch is paid twice."
        )


class _Failed:
    """A request without an answer, and whether to ask again may help."""

    def __init__(self, failure: Failure, *, again: bool) -> None:
        self.failure = failure
        self.again = again


class _Run:
    """What becomes of the answers of one `ask`."""

    def __init__(
        self,
        wanted: Mapping[str, dict[str, Any]],
        read: Callable[[str, Any], Any],
        keep: Callable[[str, Any], None],
        purse: Purse,
        progress: str | None,
    ) -> None:
        self.wanted, self.progress = wanted, progress
        self._read, self._keep, self._purse = read, keep, purse

    def take(self, key: str, row: Mapping[str, Any], batch: str) -> _Failed | None:
        """Keep an answer; else what is wrong with it."""
        response = row.get("response") or {}
        status, body = response.get("status_code"), response.get("body")
        if row.get("error") or not isinstance(status, int) or not 200 <= status < 300:
            self._settle(key, None, batch)
            said = json.dumps(row.get("error") or body)[:SHOWN]
            code = f"HTTP {status}" if isinstance(status, int) else "no answer"
            again = not isinstance(status, int) or status in _TRY_AGAIN or status >= 500
            return _Failed(Failure(code, said), again=again)
        usage = body.get("usage") if isinstance(body, dict) else None
        self._settle(key, usage if isinstance(usage, dict) else {}, batch)
        try:
            answer = self._read(key, body)
        except NoAnswerError as error:
            return _Failed(Failure("empty answer", str(error)), again=error.again)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return _Failed(Failure("unreadable answer", json.dumps(body)[:SHOWN]), again=True)
        self._keep(key, answer)
        return None

    def release(self, keys: Sequence[str]) -> None:
        """Requests that were never answered cost nothing."""
        for key in keys:
            self._settle(key, None, "")

    def _settle(self, key: str, usage: Mapping[str, Any] | None, batch: str) -> None:
        self._purse.settle(key, self.wanted.get(key, {"messages": []}), usage, batch=batch)


def _admitted(
    keys: Sequence[str], bodies: Mapping[str, Mapping[str, Any]], purse: Purse
) -> tuple[list[str], list[str]]:
    """Requests that the budget lets be sent now, and the others, from the first that does not fit on."""
    for place, key in enumerate(keys):
        if not purse.admit(key, bodies[key], wait=False):
            return list(keys[:place]), list(keys[place:])
    return list(keys), []


def _parts(keys: Sequence[str], bodies: Mapping[str, Mapping[str, Any]], path: str) -> Iterator[dict[str, bytes]]:
    """The lines of request files, as many a file as a server takes."""
    part: dict[str, bytes] = {}
    size = 0
    for key in keys:
        row = {"custom_id": key, "method": "POST", "url": path, "body": bodies[key]}
        line = json.dumps(row).encode() + b"\n"
        if part and (len(part) >= _MOST_REQUESTS or size + len(line) > _MOST_BYTES):
            yield part
            part, size = {}, 0
        part[key] = line
        size += len(line)
    if part:
        yield part


def _content(response: Any, parsed: bool, where: str) -> Any:
    if not parsed:
        return response.text
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RunError(f"{where} did not answer like an OpenAI-compatible server: {response.text[:SHOWN]!r}.")
    return found
