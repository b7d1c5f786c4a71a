"""A client of OpenAI-compatible chat servers whose answers are cached. Shared by all judges."""

from collections.abc import Callable, Iterable
from typing import Any

from popmargin.errors import ConfigError
from popmargin.generate.answer_cache import AnswerCache, request_key
from popmargin.generate.batch_server import BatchServer
from popmargin.generate.purse import Purse
from popmargin.generate.server import SHOWN, NoAnswerError, Server


class ChatClient:
    """Asks a chat server; repeated requests are answered from the cache.

    Args:
        url: base of the API ("http://localhost:8000/v1"), or its chat/completions address.
        read: extracts the part to store from the server's JSON.
        cache: where answers are stored.
        purse: pays the calls.
        batch: ask by the server's batch endpoint.
        batch_poll: seconds between two looks at a batch.
        api_key_env, workers, retries, backoff, timeout, requests_per_minute: see `Server` and `BatchServer`.

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
        purse: Purse,
        batch: bool = False,
        batch_poll: float = 30.0,
        api_key_env: str | None = None,
        workers: int = 8,
        retries: int = 5,
        backoff: float = 1.0,
        timeout: float = 120.0,
        requests_per_minute: float | None = None,
    ) -> None:
        self.cache = cache
        self._read = read
        self._purse = purse
        shared: dict[str, Any] = {
            "what": "Judge", "api_key_env": api_key_env, "retries": retries, "backoff": backoff, "timeout": timeout,
        }  # fmt: skip
        self._server: Server | BatchServer
        if batch:
            if requests_per_minute is not None:
                raise ConfigError("requests_per_minute is for single calls; a batch has no rate. Remove one of them.")
            log = cache.path.with_name(cache.path.name + ".batches")
            self._server = BatchServer(url, log=log, poll=batch_poll, **shared)
        else:
            self._server = Server(url, workers=workers, requests_per_minute=requests_per_minute, **shared)

    @property
    def url(self) -> str:
        """The address that is asked."""
        return self._server.url

    @property
    def requests(self) -> int:
        """Calls made by this object (attempts included)."""
        return self._server.requests

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
        self._server.understood |= any(key in known for key in keys)
        if not self._purse.limited:
            # By key, so in random order: long questions are often adjacent, and would look like a failing server. Where
            # the budget may end, both orders of a question are asked before the next one.
            wanted = dict(sorted(wanted.items()))
        failures = self._server.ask(
            wanted,
            read=lambda _, answer: self._read(answer),
            keep=self.cache.add,
            kept=str(self.cache.path),
            progress="judge" if progress else None,
            purse=self._purse,
        )
        return [failures[key] if key in failures else known[key] for key in keys]


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
        raise NoAnswerError(f"the model refused: {str(refusal)[:SHOWN]}", again=False)
    if finish == "length":
        raise NoAnswerError("the token limit was reached before the answer (finish_reason: length)", again=False)
    if finish not in (None, "stop"):
        raise NoAnswerError(f"finish_reason: {finish}", again=False)
    raise NoAnswerError("no text", again=True)
