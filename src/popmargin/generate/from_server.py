"""Responses of a model behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp and others."""

import hashlib
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from popmargin.data.conversation import Text
from popmargin.data.read_prompts import Prompts
from popmargin.data.tools import for_template
from popmargin.errors import ConfigError, RunError
from popmargin.files import digest
from popmargin.generate.answer_cache import AnswerCache
from popmargin.generate.part_file import PartFile, payments_beside
from popmargin.generate.produced import Produced, as_responses
from popmargin.generate.server import NOT_ASKED, SHOWN, Failure, NoAnswerError, Server, request_fields
from popmargin.generate.spending import Budget, Prices, Purse, forecast_of

_ENDED = {"stop": True, "eos": True, "eos_token": True, "stop_sequence": True, "length": False}
"""What servers say at the end of a response: whether it ended by itself."""


@dataclass(frozen=True, kw_only=True)
class ServerSampling:
    """What a server is asked for.

    Attributes:
        samples: responses per prompt.
        max_new_tokens: longest response, tokens.
        temperature, top_p: always sent, so that no default of the server's counts.
        top_k: sent if above 0; only some servers know it.
        seed: every response has a seed of its own, made of this, its prompt and its number.
        logprobs: ask for the log-probs of the sampled tokens.
        request: further fields of the request; None leaves one of ours out.
    """

    samples: int = 1
    max_new_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    logprobs: bool = True
    request: Mapping[str, Any] = field(default_factory=dict[str, Any])


def server_responses(
    prompts: Prompts,
    server: str,
    model: str,
    sampling: ServerSampling,
    *,
    source: str | None = None,
    round: int | None = None,
    part: Path | None = None,
    missing: str = "error",
    progress: bool = False,
    price_in: float = 0.0,
    price_out: float = 0.0,
    max_cost: float | None = None,
    **options: Any,
) -> Produced:
    """Ask a server for responses: conversations through chat/completions, texts through completions.

    All responses to a prompt are asked for in one request. Those that do not come (some servers give one choice
    whatever was asked, or refuse to give several) are asked for one by one. Each is kept as it comes, so that none is
    lost or paid for twice; a later call with the same part file asks for those that are not there.

    Args:
        prompts: see `load_prompts`.
        server: base of the API, such as http://localhost:8000/v1.
        model: the model's name on the server.
        sampling: what is asked for.
        source: what the responses are said to be from; None takes the model's name.
        round: of an iteration, if there is one.
        part: file of what is finished, deleted by whoever saves the responses; None keeps none.
        missing: "error" raises where the server gave no response after all attempts, "keep" counts those.
        progress: show a progress bar, with tokens per second.
        price_in, price_out: per million tokens of prompts, and of responses.
        max_cost: most that all responses may cost, earlier calls with the same part file included.
        options: of `Server`: api_key_env, workers, retries, backoff, timeout, requests_per_minute.

    Returns:
        Responses with `finished`, `source` and `round`, and what the server says of them: `tokens` (their number),
        `token_logps` (nats) and their sum as the score `logp`, and `token_ids`.

    Raises:
        ConfigError: no model, a setting is out of range, or a limit without prices.
        RunError: the limit of the cost is reached, the server cannot be reached or refuses all, responses are missing,
            or the part file was begun for something else.
    """
    if not model:
        raise ConfigError(f"The server at {server} has no model name. Give one (--model NAME).")
    chat = bool(prompts.prompts) and not isinstance(prompts.prompts[0], str)
    endpoint = "chat/completions" if chat else "completions"
    kept = PartFile(part, {
        "prompts": digest(*(key.encode("utf-8", "surrogatepass") for key in prompts.keys)),
        "model": model,
        "endpoint": endpoint,
        **{name: dict(value) if name == "request" else value for name, value in vars(sampling).items()},
    })  # fmt: skip
    before, started = len(kept.done), time.monotonic()
    paid = None if part is None else AnswerCache(payments_beside(part))
    purse = Purse(Budget(max_cost), paid, scope="", prices=Prices(price_in, price_out))
    asking = _Asking(Server(server, endpoint=endpoint, **options), prompts, model, sampling, kept, purse)
    for line in asking.cost_lines():
        print(line, file=sys.stderr, flush=True)
    with tqdm(
        total=len(prompts) * sampling.samples, initial=before, desc="responses", disable=not progress, unit="response"
    ) as bar:
        asking.run(bar)
    if any(failure is NOT_ASKED for failure in asking.failures.values()):
        raise purse.budget.stop(kept.path or "no file")
    lost = Counter(failure.reason for failure in asking.failures.values())
    if lost and missing == "error":
        where, first = next(iter(asking.failures.items()))
        listed = ", ".join(f"{reason}: {count}" for reason, count in lost.most_common())
        kept_in = f" in {kept.path}" if kept.path else ""
        wanted = len(prompts) * sampling.samples
        raise RunError(
            f"{server} gave no answer for {lost.total()} of {wanted} responses ({listed}). The first, to prompt "
            f"{where[0]}: {first}. The others are kept{kept_in}: run again to ask for these, or do without them "
            "(--missing keep)."
        )
    made = as_responses(prompts, kept.done, source=model if source is None else source, round=round, scores=("logp",))
    return Produced(
        made,
        new=len(kept.done) - before,
        new_tokens=asking.tokens,
        seconds=time.monotonic() - started,
        notes=asking.notes(),
        missing=dict(lost),
    )


class _Asking:
    """Asks for what is not there, until it is or the server has failed at it."""

    def __init__(
        self,
        server: Server,
        prompts: Prompts,
        model: str,
        sampling: ServerSampling,
        kept: PartFile,
        purse: Purse,
    ) -> None:
        self._purse = purse
        self._server, self._prompts, self._model = server, prompts, model
        self._sampling, self._kept = sampling, kept
        self._keys = prompts.keys
        self._single = sampling.samples == 1
        self._bar: Any = None
        self._started = time.monotonic()
        self._counts: Counter[str] = Counter()
        self.tokens = 0
        self.failures: dict[tuple[int, int], Failure] = {}

    def cost_lines(self) -> list[str]:
        """What the missing responses will cost, and what is left to pay; nothing without prices."""
        bodies = [self._body(places) for places in self._wanted().values()]
        found = forecast_of(bodies, self._purse.prices)
        found = replace(found, questions=len(self._prompts), cached=len(self._kept.done))
        return [f"{self._model}: {found}", *self._purse.budget.lines(found)] if found.priced else []

    def run(self, bar: Any) -> None:
        """Ask in passes; each asks for what earlier ones did not bring."""
        self._bar = bar
        self._probe()
        while wanted := self._wanted():
            for key, failure in self._ask(wanted).items():
                self.failures |= dict.fromkeys(wanted[key], failure)

    def _probe(self) -> None:
        """Find out with one prompt whether the server gives several choices: some refuse to, and would refuse all."""
        while not self._single and (first := self._wanted(limit=1)):
            if not (failed := self._ask(first)):
                return
            self._single = True
            key, place = next(iter(self._wanted(limit=1).items()))
            if not self._ask({key: place}):
                return
            self._single = False  # it is the prompt that fails
            self.failures |= dict.fromkeys(next(iter(first.values())), next(iter(failed.values())))

    def notes(self) -> tuple[str, ...]:
        """What the server did beside answering."""
        return tuple(f"{what}: {count}" for what, count in self._counts.items() if count)

    def _wanted(self, limit: int | None = None) -> dict[str, list[tuple[int, int]]]:
        """Key of a request -> the responses that it is to bring: all of a prompt, or one."""
        found: dict[str, list[tuple[int, int]]] = {}
        for prompt in range(len(self._prompts)):
            places = [(prompt, number) for number in range(self._sampling.samples)]
            open_ = [place for place in places if place not in self._kept.done and place not in self.failures]
            groups = [open_] if not self._single and open_ == places else [[place] for place in open_]
            found |= {f"{prompt}/{group[0][1]}": group for group in groups}
            if limit is not None and len(found) >= limit:
                break
        return found

    def _ask(self, wanted: Mapping[str, list[tuple[int, int]]]) -> dict[str, Failure]:
        return self._server.ask(
            {key: self._body(places) for key, places in wanted.items()},
            read=lambda key, answer: self._read(answer),
            keep=lambda key, found: self._keep(wanted[key], found),
            kept=str(self._kept.path or "memory"),
            purse=self._purse,
        )

    def _body(self, places: Sequence[tuple[int, int]]) -> dict[str, Any]:
        sampling, (prompt, number) = self._sampling, places[0]
        settings: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": response_seed(sampling.seed, self._keys[prompt], number),
        }
        text: Text = self._prompts.prompts[prompt]
        if sampling.top_k:
            settings["top_k"] = sampling.top_k
        if len(places) > 1:
            settings["n"] = len(places)
        if sampling.logprobs:
            settings["logprobs"] = 1 if isinstance(text, str) else True
        fields = request_fields(settings, sampling.request)
        if isinstance(text, str):
            return {"model": self._model, "prompt": text, **fields}
        messages, tools = for_template(text)
        return {"model": self._model, "messages": messages, **({"tools": tools} if tools else {}), **fields}

    def _read(self, answer: Any) -> list[dict[str, Any]]:
        """The choices of an answer that are responses.

        Raises:
            NoAnswerError: there is none.
        """
        choices = sorted(answer["choices"], key=lambda choice: choice.get("index", 0))
        if not choices:
            raise NoAnswerError("no choices", again=True)
        found: list[dict[str, Any]] = []
        refused: list[str] = []
        for choice in choices:
            response = read_choice(choice)
            if isinstance(response, str):
                refused.append(response)
            else:
                found.append(response)
        if not found:
            raise NoAnswerError(refused[0], again=False)
        if len(choices) == 1 and "tokens" not in found[0]:
            count = (answer.get("usage") or {}).get("completion_tokens")
            found[0] |= {} if count is None else {"tokens": int(count)}
        return found

    def _keep(self, places: Sequence[tuple[int, int]], found: Sequence[Mapping[str, Any]]) -> None:
        entries = [
            {"prompt": prompt, "number": number, **response}
            for (prompt, number), response in zip(places, found, strict=False)
        ]
        self._kept.add(entries)
        if len(found) < len(places):
            self._single = True
        self._counts["requests answered with fewer choices than asked for"] += len(found) < len(places)
        self._counts["choices beyond those asked for, not used"] += max(len(found) - len(places), 0)
        self.tokens += sum(entry.get("tokens") or 0 for entry in entries)
        speed = self.tokens / max(time.monotonic() - self._started, 1e-9)
        self._bar.set_postfix_str(f"{speed:,.0f} tokens/s", refresh=False)
        self._bar.update(len(entries))


def response_seed(seed: int, key: str, number: int) -> int:
    """The seed of one response: its prompt's other responses, and other prompts, have others.

    Args:
        seed: of the sampling.
        key: of the prompt; see `prompt_key`.
        number: of the response among those to its prompt.
    """
    text = f"{seed}\x1f{number}\x1f{key}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big") % 2**31


def read_choice(choice: Mapping[str, Any]) -> dict[str, Any] | str:
    """What is kept of a choice of either endpoint, or why it is no response: a refusal, or a filter.

    An empty text is a response: the model may have ended at once, or thought up to the limit.

    Example:
        >>> read_choice({"text": " four", "finish_reason": "stop", "logprobs": {"token_logprobs": [-0.5]}})
        {'text': ' four', 'finished': True, 'tokens': 1, 'token_logps': [-0.5], 'logp': -0.5}
        >>> read_choice({"message": {"content": None}, "finish_reason": "content_filter"})
        'finish_reason: content_filter'
    """
    message = choice.get("message")
    text = choice["text"] if message is None else message.get("content")
    if isinstance(text, list):  # some servers give parts
        text = "".join(part.get("text", "") for part in text)
    finish = choice.get("finish_reason")
    if message is not None and message.get("refusal"):
        return f"the model refused: {str(message['refusal'])[:SHOWN]}"
    if finish == "content_filter" or (text is None and finish not in _ENDED):
        return f"finish_reason: {finish}"
    found: dict[str, Any] = {"text": text or "", "finished": _ENDED.get(str(finish))}
    logprobs = choice.get("logprobs") or {}
    listed = logprobs.get("content")
    logps = logprobs.get("token_logprobs") if listed is None else [token["logprob"] for token in listed]
    ids = choice.get("token_ids")
    if ids is not None:
        found |= {"token_ids": [int(token) for token in ids], "tokens": len(ids)}
    if logps is not None and None not in logps:
        found |= {"tokens": len(logps), "token_logps": [float(value) for value in logps], "logp": float(sum(logps))}
    return found
