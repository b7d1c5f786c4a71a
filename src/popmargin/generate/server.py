"""Asking an OpenAI-compatible server: many requests at a time, at a limited rate, with retries. For judges and samples.

What is done with answers is the caller's: they are handed over as they come, so that none is lost or paid for twice.
"""

import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from tqdm.auto import tqdm

from popmargin.errors import ConfigError, RunError, import_extra
from popmargin.generate.purse import Purse, usage_of

_LONGEST_WAIT = 60.0
_LONGEST_ASKED_WAIT = 600.0  # of a server's own Retry-After
SHOWN = 300  # characters of a server's words
_STRANGERS = 8  # failures without any answer after which the fault is the server's or the request's
_STRANGE_QUESTIONS = 32  # the same where each failure may be its question's own: too long, or filtered
_TRY_AGAIN = frozenset({408, 409, 425, 429})
_NEVER = {
    401: "Is the key correct? Name the environment variable that holds it (api_key_env).",
    402: "Check the account's billing.",
    403: "Does the key give access to this model? Name the environment variable that holds it (api_key_env).",
    404: "Check the address (it often ends in /v1) and the name of the model.",
    405: "Check the address: it often ends in /v1.",
    407: "The proxy requires a login.",
}
_OF_THE_QUESTION = re.compile(
    r"content|filter|polic|safety|moderat|flagged|harm|context|too (?:long|large|many)|exceed|maximum|length",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Failure:
    """A question that the server did not answer, though it answers others.

    Attributes:
        reason: the kind of failure, such as "HTTP 400" or "empty answer".
        text: what the server said.
    """

    reason: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.text}" if self.text else self.reason


NOT_ASKED = Failure("not asked", "what it may cost does not fit into what is left to pay")


class NoAnswerError(ValueError):
    """Raised by readers of answers: a chat completion that says nothing.

    Args:
        text: why.
        again: whether to ask again may help.
    """

    def __init__(self, text: str, *, again: bool) -> None:
        super().__init__(text)
        self.again = again


@dataclass(frozen=True)
class _Calls:
    """Questions that are asked together, and what becomes of their answers; see `Server.ask`."""

    bodies: Mapping[str, dict[str, Any]]
    read: Callable[[str, Any], Any]
    keep: Callable[[str, Any], None]
    kept: str
    purse: Purse


class Server:
    """An OpenAI-compatible server.

    Args:
        url: base of the API ("http://localhost:8000/v1"), or the address of its endpoint.
        what: what it is, for messages ("Judge").
        endpoint: what is asked: "chat/completions" or "completions".
        api_key_env: environment variable that holds the key; no key is sent when None. It is stored nowhere.
        workers: requests at a time.
        retries: further attempts after a lost connection, a 408, 409, 425, 429 or 5xx answer, or one that cannot be
            read.
        backoff: seconds before the first of them; doubled each time, with up to half of it as jitter, up to a minute. A
            longer Retry-After of the server (seconds or a date) is obeyed, up to ten minutes.
        timeout: seconds for one request.
        requests_per_minute: most requests that are begun in a minute, attempts included; no limit when None.

    Attributes:
        requests: calls made by this object (attempts included).
        failed: questions that ended as a `Failure`.

    Raises:
        ConfigError: the address is no URL, the key is missing, or a setting is out of range.
        MissingExtraError: httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        what: str = "Server",
        endpoint: str = "chat/completions",
        api_key_env: str | None = None,
        workers: int = 8,
        retries: int = 5,
        backoff: float = 1.0,
        timeout: float = 120.0,
        requests_per_minute: float | None = None,
    ) -> None:
        self._httpx: Any = import_extra("httpx", "judge")
        self._what = what
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{what} address {url!r} is not a URL. Give one such as http://localhost:8000/v1.")
        if workers < 1 or retries < 0 or (requests_per_minute is not None and requests_per_minute <= 0):
            raise ConfigError(
                f"{what} {url}: workers is {workers}, retries {retries}, requests per minute {requests_per_minute}; "
                "give at least 1 worker, 0 or more retries, and a positive rate."
            )
        base = url.rstrip("/").removesuffix("/completions").removesuffix("/chat")
        self.url = f"{base}/{endpoint}"
        self._headers = key_headers(api_key_env, what)
        self._workers = workers
        self._retries = retries
        self._backoff = backoff
        self._timeout = timeout
        self._pause = 0.0 if requests_per_minute is None else 60.0 / requests_per_minute
        self._lock = threading.Lock()
        self._next_start = 0.0
        self.requests = 0
        self.failed = 0
        self.understood = False
        self._in_a_row = 0
        self._stopped = threading.Event()

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
        """Ask several questions, in their order; answers are handed over as they come.

        A `Failure` is given back where the server refused this one question or gave no answer that can be read
        (nothing, no JSON, no choices, no text), however often it was asked.

        Args:
            wanted: key -> request body.
            read: takes what is kept of an answer, by key, from the server's JSON; raises `NoAnswerError`, or whatever
                reading what is not there raises.
            keep: stores it; called from several threads.
            kept: where, for messages.
            purse: pays: it lets calls be made.
            progress: name of a progress bar; none when None.

        Returns:
            Key -> failure, of the questions that have no answer; `NOT_ASKED` where the purse did not let it be asked.

        Raises:
            RunError: the server cannot be reached, refuses all (a wrong key, an unknown model), or fails at the first
                questions or at many in a row.
        """
        failures: dict[str, Failure] = {}
        if not wanted:
            return failures
        self._stopped.clear()
        calls = _Calls(wanted, read, keep, kept, purse)
        with (
            self._httpx.Client(timeout=self._timeout, headers=self._headers) as client,
            ThreadPoolExecutor(self._workers) as pool,
        ):
            jobs = {pool.submit(self._ask_one, client, calls, key): key for key in wanted}
            try:
                for job in tqdm(as_completed(jobs), total=len(jobs), desc=progress, disable=progress is None):
                    failure = job.result()
                    if failure is not None:
                        failures[jobs[job]] = failure
            except BaseException:
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)  # one refusal is enough; do not send the rest
                raise
        return failures

    def _ask_one(self, client: Any, calls: "_Calls", key: str) -> Failure | None:
        if self._stopped.is_set():  # by another question
            return None
        try:
            return self._try(client, calls, key)
        except RunError:
            self._stopped.set()
            raise

    def _try(self, client: Any, calls: "_Calls", key: str) -> Failure | None:
        failure, again, wait = self._attempt(client, calls, key)
        for attempt in range(self._retries):
            if failure is None or not again:
                break
            wait = max(wait, min(self._backoff * 2.0**attempt * random.uniform(1.0, 1.5), _LONGEST_WAIT))
            if self._stopped.wait(wait):
                return failure
            failure, again, wait = self._attempt(client, calls, key)
        if failure is not None and failure is not NOT_ASKED:
            self._count(failure, calls.kept, retried=again)
        return failure

    def _attempt(self, client: Any, calls: "_Calls", key: str) -> tuple[Failure | None, bool, float]:
        """One request: what is wrong with its answer, whether to try again, and how long the server asks to wait."""
        body, purse = calls.bodies[key], calls.purse
        if not purse.admit(key, body):
            return NOT_ASKED, False, 0.0
        self._wait_for_turn()
        usage: Mapping[str, Any] | None = {}  # what was sent may have been answered, until the server says otherwise
        try:
            # Escaped, since half a surrogate pair in a text cannot be sent as it is.
            headers = {"Content-Type": "application/json"}
            response = client.post(self.url, content=json.dumps(body).encode(), headers=headers)
            usage = usage_of(response)
        except self._httpx.RequestError as error:
            usage = None if isinstance(error, self._httpx.ConnectError | self._httpx.ConnectTimeout) else {}
            return Failure("no answer", f"{type(error).__name__}: {error}"), True, 0.0
        finally:
            purse.settle(key, body, usage)
        text, status = response.text[:SHOWN].strip(), response.status_code
        failure = Failure(f"HTTP {status}", text)
        if 200 <= status < 300:
            problem = self._keep(calls, key, response)
            if problem is None:
                return None, False, 0.0
            return problem[0], problem[1], 0.0
        moderated = status == 403 and _OF_THE_QUESTION.search(text)
        if (status < 400 or status in _NEVER or "insufficient_quota" in text) and not moderated:
            where = f" It points to {response.headers.get('location')}." if status < 400 else ""
            raise RunError(
                f"{self._what} {self.url} refused the request. {failure}.{where} {_NEVER.get(status, '')}".rstrip()
            )
        again = status in _TRY_AGAIN or status >= 500
        return failure, again, min(retry_after(response.headers), _LONGEST_ASKED_WAIT)

    def _wait_for_turn(self) -> None:
        with self._lock:
            self.requests += 1
            now = time.monotonic()
            start = max(now, self._next_start)
            self._next_start = start + self._pause
        if start > now:
            time.sleep(start - now)

    def _keep(self, calls: "_Calls", key: str, response: Any) -> tuple[Failure, bool] | None:
        """Store what is kept of an answer; else what is wrong with it, and whether to ask again may help."""
        try:
            answer = calls.read(key, response.json())
        except NoAnswerError as error:
            return Failure("empty answer", str(error)), error.again
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return Failure("unreadable answer", response.text[:SHOWN].strip() or "(nothing)"), True
        calls.keep(key, answer)
        with self._lock:
            self.understood = True
            self._in_a_row = 0
        return None

    def _count(self, failure: Failure, where: str, *, retried: bool) -> None:
        """Count a question that failed; where all do, or many in a row that were tried again, the run has to stop.

        Raises:
            RunError: it has.
        """
        with self._lock:
            self.failed += 1
            # Once a server has answered, what it refuses at once is the question's own fault.
            self._in_a_row += retried or not self.understood
            of_question = failure.reason == "empty answer" or bool(_OF_THE_QUESTION.search(failure.text))
            limit = _STRANGE_QUESTIONS if of_question and not self.understood else _STRANGERS
            lost = failure.reason == "no answer" and not self.understood
            if self._in_a_row < limit and not lost:
                return
            row = self._in_a_row
        kept = f"Answers so far are kept in {where}: run again to continue."
        attempts = f"{self._retries + 1} attempt{'s' if self._retries else ''}"
        if lost:
            raise RunError(f"{self._what} {self.url} gave no answer after {attempts}. {failure.text}. {kept}")
        if failure.reason == "unreadable answer":
            raise RunError(
                f"{self._what} {self.url} did not answer like an OpenAI-compatible server: {failure.text!r}, {row} "
                f"questions in a row. Is the address correct? {kept}"
            )
        which = f"{row} questions in a row failed" if self.understood else f"The first {row} questions all failed"
        tried = f"{which} ({attempts} each if retrying may help)"
        raise RunError(f"{self._what} {self.url}: {tried}. {failure}. {_remedy(failure)}{kept}")


def _remedy(failure: Failure) -> str:
    """What may help against a refusal of all questions."""
    if "max_completion_tokens" in failure.text:
        return "Use max_completion_tokens instead (--request max_completion_tokens=512). "
    if "logprobs" in failure.text:
        return "Turn off token probabilities (--no-logprobs). "
    if "temperature" in failure.text:
        return "Omit the field (--request temperature=null). "
    if failure.reason == "empty answer":
        return "Allow more tokens. "
    return ""


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait, from Retry-After as a number or as a date; 0 without one.

    Example:
        >>> retry_after({"retry-after": "1.5"}), retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"})
        (1.5, 0.0)
    """
    asked = headers.get("retry-after", "").strip()
    try:
        seconds = float(asked)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(asked).timestamp() - time.time()
        except ValueError:
            return 0.0
    return seconds if seconds > 0 else 0.0


def request_fields(settings: Mapping[str, Any], request: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields of a request with a user's own over them; null leaves a field out.

    `max_completion_tokens` takes the place of `max_tokens`, which the servers that know it refuse.

    Raises:
        ConfigError: a field that popmargin itself writes.

    Example:
        >>> request_fields({"temperature": 0, "max_tokens": 8}, {"max_completion_tokens": 512, "temperature": None})
        {'max_completion_tokens': 512}
    """
    own = dict(request or {})
    for name in ("model", "messages", "stream"):
        if name in own:
            raise ConfigError(f"The field '{name}' of a request cannot be set: popmargin sets it itself. Remove it.")
    if own.get("max_completion_tokens") is not None:
        own.setdefault("max_tokens", None)
    return {name: value for name, value in {**settings, **own}.items() if value is not None}


def key_headers(api_key_env: str | None, what: str) -> dict[str, str]:
    """What tells a server that the caller may ask; nothing without a key.

    Raises:
        ConfigError: there is no such environment variable.
    """
    if api_key_env is None:
        return {}
    key = os.environ.get(api_key_env)
    if not key:
        raise ConfigError(
            f"The environment variable {api_key_env} (api_key_env) is not set; put the {what.lower()}'s key in it."
        )
    return {"Authorization": f"Bearer {key}"}
