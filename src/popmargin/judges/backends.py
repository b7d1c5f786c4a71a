"""The backend that asks an OpenAI-compatible server a judge's prompts; `local_backend.py` has that of a local model."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from popmargin.errors import ConfigError
from popmargin.generate.answer_cache import AnswerCache, cache_file, request_key
from popmargin.generate.server import NOT_ASKED, Failure, request_fields
from popmargin.generate.spending import Budget, Forecast, Prices, Purse, forecast_of
from popmargin.judges.client import ChatClient, answer_text
from popmargin.judges.comparing import Judge, Reply
from popmargin.judges.labeller import Account, Labeller, Opinion
from popmargin.judges.read_verdict import read_verdict

LETTERS = ("A", "B")


class ServerBackend:
    """A model behind an OpenAI-compatible server, at temperature 0.

    Args:
        model: its name on the server.
        url: base of the API.
        cache: JSONL file of answers, keyed by model, prompt and parameters; None for one in the user's cache folder.
        logprobs: request token probabilities; servers that do not support this refuse it.
        max_tokens: maximum length of an answer.
        request: further fields of the request, such as {"max_completion_tokens": 512}; None omits a field.
        again: ask again if the cached answer has no clear verdict.
        price_in: per million prompt tokens.
        price_out: per million completion tokens.
        budget: pays the calls, and counts them over restarts; None has no limit.
        scope: whose payments count with it.
        client: options of `ChatClient`: api_key_env, workers, retries, backoff, timeout, requests_per_minute.

    Raises:
        ConfigError: no model, no URL, or a missing key.
        MissingExtraError: httpx is not installed.
    """

    def __init__(
        self,
        model: str,
        url: str,
        *,
        cache: str | Path | None = None,
        logprobs: bool = True,
        max_tokens: int = 8,
        request: Mapping[str, Any] | None = None,
        again: bool = False,
        price_in: float = 0.0,
        price_out: float = 0.0,
        budget: Budget | None = None,
        scope: str = "",
        **client: Any,
    ) -> None:
        if not model:
            raise ConfigError(f"The judge at {url} has no model name. Give judge:MODEL@URL, or the option model.")
        store = AnswerCache(cache_file("verdicts.jsonl") if cache is None else Path(cache))
        self._prices = Prices(price_in, price_out)
        self._budget = Budget() if budget is None else budget
        purse = Purse(self._budget, store, scope=scope, prices=self._prices)
        self._client = ChatClient(url, read=read_reply, cache=store, purse=purse, **client)
        self._model = model
        settings: dict[str, Any] = {"temperature": 0, "max_tokens": max_tokens}
        if logprobs:
            settings |= {"logprobs": True, "top_logprobs": 20}
        self._settings = request_fields(settings, request)
        self._again = again

    @property
    def budget(self) -> Budget:
        """What is paid, and the limit."""
        return self._budget

    @property
    def cache(self) -> Path:
        """The file that keeps the answers."""
        return self._client.cache.path

    @property
    def name(self) -> str:
        """The model's name."""
        return self._model

    def reply(self, prompts: Sequence[str], account: Account, *, progress: bool = False) -> list[Reply]:
        """Replies to prompts, with the reason if there is none; tokens are counted for new answers."""
        bodies = [self._body(prompt) for prompt in prompts]
        keys = [request_key(body) for body in bodies]
        new = self._new(keys)
        before, paid = self._client.requests, self._budget.spent
        try:
            answers = self._client.ask(bodies, progress=progress, anew=self._anew)
        finally:
            account.asked += self._client.requests - before
            account.cost += self._budget.spent - paid
        account.cached += len(bodies) - len(new)
        replies = [_reply(answer) for answer in answers]
        given = {key: reply for key, reply in zip(keys, replies, strict=True) if not reply.failure}
        for key in new & given.keys():
            account.prompt_tokens += given[key].prompt_tokens
            account.completion_tokens += given[key].completion_tokens
        return replies

    def forecast(self, prompts: Sequence[str]) -> Forecast:
        """What asking these will take; nothing is asked."""
        bodies = {request_key(body): body for body in map(self._body, prompts)}
        new = self._new(bodies)
        return replace(forecast_of([bodies[key] for key in new], self._prices), cached=len(prompts) - len(new))

    def _body(self, prompt: str) -> dict[str, Any]:
        return {"model": self._model, "messages": [{"role": "user", "content": prompt}], **self._settings}

    def _new(self, keys: Iterable[str]) -> set[str]:
        """Requests that the cache does not answer."""
        cached = self._client.cache.answers
        return {key for key in keys if key not in cached or self._anew(cached[key])}

    def _anew(self, answer: Any) -> bool:
        """Whether a cached answer is useless: empty (as older versions stored), or without a verdict."""
        return not answer["text"].strip() or (self._again and read_verdict(answer["text"]) is None)


def refuse_unasked(labeller: Labeller, opinions: Sequence[Opinion]) -> None:
    """For those who need every answer: stop where the budget ended before a question was asked.

    Raises:
        RunError: it did.
    """
    if all(opinion.asked for opinion in opinions):
        return
    assert isinstance(labeller, Judge) and isinstance(labeller.backend, ServerBackend), "only these have a budget"
    raise labeller.backend.budget.stop(labeller.backend.cache)


def _reply(answer: Any) -> Reply:
    if answer is NOT_ASKED:
        return Reply("", failure=str(answer), asked=False)
    return Reply("", failure=str(answer)) if isinstance(answer, Failure) else Reply(**answer)


def read_reply(response: Any) -> dict[str, Any]:
    """The stored part of a server's answer: text, probability of A at the verdict, the verdict's position, tokens.

    Raises:
        NoAnswerError: it has no text.

    Example:
        >>> read_reply({"choices": [{"message": {"content": "B"}}]})
        {'text': 'B', 'p': None, 'at': None, 'cut': False, 'prompt_tokens': 0, 'completion_tokens': 0}
    """
    usage = response.get("usage") or {}
    choice = response["choices"][0]
    text = answer_text(response)
    verdict = read_verdict(text)
    at = None if verdict is None else verdict.start
    p = None if at is None else _probability((choice.get("logprobs") or {}).get("content") or [], text, at)
    return {
        "text": text,
        "p": p,
        "at": None if p is None else at,
        "cut": choice.get("finish_reason") == "length",
        "prompt_tokens": int(usage.get("prompt_tokens") or 0),
        "completion_tokens": int(usage.get("completion_tokens") or 0),
    }


def _probability(tokens: Sequence[Any], text: str, at: int) -> float | None:
    """P(A) among A and B at the token of the letter at a position in the text; variants such as " A" are summed."""
    written = [bytes(token.get("bytes") or token["token"].encode()) for token in tokens]
    start = b"".join(written).rfind(text.encode("utf-8", "surrogatepass"))  # tokens may begin before the text
    if start < 0:
        return None
    place = start + len(text[:at].encode("utf-8", "surrogatepass"))
    end = 0
    for token, part in zip(tokens, written, strict=True):
        end += len(part)
        if end > place:
            return _share_of_a(token)
    return None


def _share_of_a(token: Any) -> float | None:
    said = _core(token["token"])
    letters = LETTERS if said.isupper() else tuple(letter.lower() for letter in LETTERS)
    if said not in letters:
        return None
    mass = dict.fromkeys(letters, 0.0)
    for entry in token.get("top_logprobs") or [token]:
        letter = _core(entry["token"])
        if letter in mass:
            mass[letter] += math.exp(entry["logprob"])
    # With only one letter listed, little is known about the other: no probability is better than 1.
    return mass[letters[0]] / sum(mass.values()) if all(mass.values()) else None


def _core(token: str) -> str:
    return token.strip(" *'\"\n\t()[]{}<>:.,`$")
