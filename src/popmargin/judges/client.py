"""A client of OpenAI-compatible chat servers: cached, resumable, rate-limited, with retries. Shared by all judges."""

import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from tqdm.auto import tqdm

from popmargin.errors import ConfigError, RunError, counted, import_extra
from popmargin.judges.answer_cache import AnswerCache, request_key

_LONGEST_WAIT = 60.0
_LONGEST_ASKED_WAIT = 600.0  # of a server's own Retry-After
_SHOWN = 300  # maximum characters quoted from a server
_STRANGERS = 8  # failures without any answer after which the server or the request is to blame
_STRANGE_QUESTIONS = 32  # the same if each question may itself be the cause: too long, or filtered
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
    """A question that the server did not answer, although it answers others.

    Attributes:
        reason: the kind of failure, such as "HTTP 400" or "empty answer".
        text: what the server said.
    """

    reason: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.text}" if self.text else self.reason


class NoAnswerError(ValueError):
    """Raised by readers of answers: a chat completion without content.

    Args:
        text: why.
        again: whether asking again may help.
    """

    def __init__(self, text: str, *, again: bool) -> None:
        super().__init__(text)
        self.again = again


class ChatClient:
    """Asks a chat server; repeated requests are answered from the cache.

    Args:
        url: base of the API ("http://localhost:8000/v1"), or its chat/completions address.
        read: extracts the part to store from the server's JSON.
        cache: where answers are stored.
        api_key_env: environment variable that holds the key; None sends no key. It is never stored.
        workers: concurrent requests.
        retries: further attempts after a lost connection, a 408, 409, 425, 429 or 5xx answer, or an unreadable
            one.
        backoff: seconds before the first retry; doubled each time, with up to half of it as jitter, up to a minute. A
            longer Retry-After of the server (seconds or a date) is obeyed, up to ten minutes.
        timeout: seconds for one request.
        requests_per_minute: maximum requests begun per minute, including retries; None for no limit.

    Attributes:
        requests: calls made by this object (including retries).
        failed: questions that ended as a `Failure`.

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
            raise ConfigError(f"Judge address {url!r} is not a URL. Give one such as http://localhost:8000/v1.")
        if workers < 1 or retries < 0 or (requests_per_minute is not None and requests_per_minute <= 0):
            raise ConfigError(
                f"Judge {url}: workers is {workers}, retries {retries}, requests per minute {requests_per_minute}; "
                "give at least 1 worker, 0 or more retries, and a positive rate."
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
        self._in_a_row = 0
        self._stopped = threading.Event()

    def ask(
        self, bodies: Iterable[dict[str, Any]], *, progress: bool = False, anew: Callable[[Any], bool] | None = None
    ) -> list[Any]:
        """The answer to each request body, in order; identical bodies are asked once.

        A `Failure` takes its place if the server refused this question or gave no readable answer (nothing, no JSON, no
        choices, no text) despite retries. It is not cached, so the next run asks again.

        Args:
            bodies: the requests.
            progress: show a progress bar.
            anew: which cached answers to ask for again.

        Raises:
            RunError: the server cannot be reached, refuses everything (a wrong key, an unknown model), or fails at the
                first questions or at many in a row.
        """
        asked = list(bodies)
        keys = [request_key(body) for body in asked]
        known = self.cache.answers
        wanted = {
            key: body
            for key, body in zip(keys, asked, strict=True)
            if key not in known or (anew is not None and anew(known[key]))
        }
        self._understood |= any(key in known for key in keys)
        # By key, so in random order: long questions are often adjacent, and would look like a failing server.
        failures = self._ask_all(dict(sorted(wanted.items())), progress) if wanted else {}
        return [failures[key] if key in failures else known[key] for key in keys]

    def _ask_all(self, wanted: Mapping[str, dict[str, Any]], progress: bool) -> dict[str, Failure]:
        failures: dict[str, Failure] = {}
        self._stopped.clear()
        with (
            self._httpx.Client(timeout=self._timeout, headers=self._headers) as client,
            ThreadPoolExecutor(self._workers) as pool,
        ):
            jobs = {pool.submit(self._ask_one, client, key, body): key for key, body in wanted.items()}
            try:
                for job in tqdm(as_completed(jobs), total=len(jobs), desc="judge", disable=not progress):
                    failure = job.result()
                    if failure is not None:
                        failures[jobs[job]] = failure
            except BaseException:
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)  # one refusal is enough; do not send the rest
                raise
        return failures

    def _ask_one(self, client: Any, key: str, body: dict[str, Any]) -> Failure | None:
        if self._stopped.is_set():  # by another question
            return None
        try:
            return self._try(client, key, body)
        except RunError:
            self._stopped.set()
            raise

    def _try(self, client: Any, key: str, body: dict[str, Any]) -> Failure | None:
        failure, again, wait = self._attempt(client, key, body)
        for attempt in range(self._retries):
            if failure is None or not again:
                break
            wait = max(wait, min(self._backoff * 2.0**attempt * random.uniform(1.0, 1.5), _LONGEST_WAIT))
            if self._stopped.wait(wait):
                return failure
            failure, again, wait = self._attempt(client, key, body)
        if failure is not None:
            self._count(failure, retried=again)
        return failure

    def _attempt(self, client: Any, key: str, body: dict[str, Any]) -> tuple[Failure | None, bool, float]:
        """One request: the error in its answer, whether to retry, and how long the server asks to wait."""
        self._wait_for_turn()
        try:
            # Escaped, since half a surrogate pair in a text cannot be sent directly.
            headers = {"Content-Type": "application/json"}
            response = client.post(self.url, content=json.dumps(body).encode(), headers=headers)
        except self._httpx.RequestError as error:
            return Failure("no answer", f"{type(error).__name__}: {error}"), True, 0.0
        text, status = response.text[:_SHOWN].strip(), response.status_code
        failure = Failure(f"HTTP {status}", text)
        if 200 <= status < 300:
            problem = self._keep(key, response)
            if problem is None:
                return None, False, 0.0
            return problem[0], problem[1], 0.0
        moderated = status == 403 and _OF_THE_QUESTION.search(text)
        if (status < 400 or status in _NEVER or "insufficient_quota" in text) and not moderated:
            where = f" It points to {response.headers.get('location')}." if status < 400 else ""
            raise RunError(f"Judge {self.url} refused the request. {failure}.{where} {_NEVER.get(status, '')}".rstrip())
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

    def _keep(self, key: str, response: Any) -> tuple[Failure, bool] | None:
        """Store an answer; otherwise return what is wrong with it, and whether asking again may help."""
        try:
            answer = self._read(response.json())
        except NoAnswerError as error:
            return Failure("empty answer", str(error)), error.again
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return Failure("unreadable answer", response.text[:_SHOWN].strip() or "(nothing)"), True
        self.cache.add(key, answer)
        with self._lock:
            self._understood = True
            self._in_a_row = 0
        return None

    def _count(self, failure: Failure, *, retried: bool) -> None:
        """Count a failed question; if all fail, or many in a row despite retries, the run must stop.

        Raises:
            RunError: it must.
        """
        with self._lock:
            self.failed += 1
            # Once a server has answered, an immediate refusal is the question's own fault.
            self._in_a_row += retried or not self._understood
            of_question = failure.reason == "empty answer" or bool(_OF_THE_QUESTION.search(failure.text))
            limit = _STRANGE_QUESTIONS if of_question and not self._understood else _STRANGERS
            lost = failure.reason == "no answer" and not self._understood
            if self._in_a_row < limit and not lost:
                return
            row = self._in_a_row
        kept = f"Answers so far are kept in {self.cache.path}: run again to continue."
        attempts = counted(self._retries + 1, "attempt")
        if lost:
            raise RunError(f"Judge {self.url} gave no answer after {attempts}. {failure.text}. {kept}")
        if failure.reason == "unreadable answer":
            raise RunError(
                f"Judge {self.url} did not answer like an OpenAI-compatible server: {failure.text!r}, "
                f"{counted(row, 'question')} in a row. Is the address correct? {kept}"
            )
        which = (
            f"{counted(row, 'question')} in a row failed"
            if self._understood
            else f"all of the first {counted(row, 'question')} failed"
        )
        raise RunError(
            f"Judge {self.url}: {which} ({attempts} each if retrying may help). {failure}. {_remedy(failure)}{kept}"
        )


def _remedy(failure: Failure) -> str:
    """What may help if all questions are refused."""
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
    """Seconds that a server asks to wait, from Retry-After as a number or a date; 0 without one.

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
    """The fields of a request, overridden by a user's own; null omits a field.

    `max_completion_tokens` replaces `max_tokens`, which servers that know the former refuse.

    Raises:
        ConfigError: a field that the judge itself sets.

    Example:
        >>> request_fields({"temperature": 0, "max_tokens": 8}, {"max_completion_tokens": 512, "temperature": None})
        {'max_completion_tokens': 512}
    """
    own = dict(request or {})
    for name in ("model", "messages", "stream"):
        if name in own:
            raise ConfigError(f"The field '{name}' of a request cannot be set: the judge sets it itself. Remove it.")
    if own.get("max_completion_tokens") is not None:
        own.setdefault("max_tokens", None)
    return {name: value for name, value in {**settings, **own}.items() if value is not None}


def answer_text(response: Any) -> str:
    """The text of a chat completion.

    Raises:
        NoAnswerError: it has none, as when the model refused or all tokens went into reasoning.
    """
    choice = response["choices"][0]
    content = choice["message"].get("content")
    if isinstance(content, list):  # some servers give parts
        content = "".join(part.get("text", "") for part in content)
    if isinstance(content, str) and content.strip():
        return content
    refusal, finish = choice["message"].get("refusal"), choice.get("finish_reason")
    if refusal:
        raise NoAnswerError(f"the model refused: {str(refusal)[:_SHOWN]}", again=False)
    if finish == "length":
        raise NoAnswerError("the token limit was reached before the answer (finish_reason: length)", again=False)
    if finish not in (None, "stop"):
        raise NoAnswerError(f"finish_reason: {finish}", again=False)
    raise NoAnswerError("no text", again=True)


def _headers(api_key_env: str | None) -> dict[str, str]:
    if api_key_env is None:
        return {}
    key = os.environ.get(api_key_env)
    if not key:
        raise ConfigError(
            f"The environment variable {api_key_env} (api_key_env) is not set; put the judge's key in it."
        )
    return {"Authorization": f"Bearer {key}"}
