"""What calls of judges cost: said before the first one, kept on disk, and held below a limit."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from popmargin.errors import ConfigError, RunError, counted
from popmargin.generate.answer_cache import AnswerCache

_TEMPLATE = 100
"""Tokens that a server may put around a message."""
_BYTES = 4
"""Bytes of a token of English text, about."""


@dataclass(frozen=True)
class Prices:
    """Prices per million tokens.

    Example:
        >>> Prices(1.0, 2.0).of(1_000_000, 500_000)
        2.0
    """

    prompt: float = 0.0
    completion: float = 0.0

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """What so many tokens cost."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6

    @property
    def known(self) -> bool:
        """Whether anything costs something."""
        return self.prompt > 0 or self.completion > 0


@dataclass(frozen=True)
class Forecast:
    """What will be asked, before anything is.

    Attributes:
        questions: an item each.
        calls: requests without an answer in the cache.
        cached: requests that the cache answers.
        about: their cost if a token is four bytes, and answers are as long as they may be.
        most: the same if each byte is a token; nan if answers have no limit.
        priced: whether prices are known.
    """

    questions: int = 0
    calls: int = 0
    cached: int = 0
    about: float = 0.0
    most: float = 0.0
    priced: bool = False

    def __add__(self, other: "Forecast") -> "Forecast":
        return Forecast(
            questions=self.questions + other.questions,
            calls=self.calls + other.calls,
            cached=self.cached + other.cached,
            about=self.about + other.about,
            most=self.most + other.most,
            priced=self.priced or other.priced,
        )

    def __str__(self) -> str:
        """In words.

        Example:
            >>> str(Forecast(2, 4, 0, 0.001, 0.004, priced=True))
            '2 questions, 4 calls, 0 answers from the cache; cost about 0.001, at most 0.004'
        """
        asked = (
            f"{counted(self.questions, 'question')}, {counted(self.calls, 'call')}, "
            f"{counted(self.cached, 'answer')} from the cache"
        )
        if not self.priced:
            return f"{asked}; cost unknown without --price-in and --price-out"
        return f"{asked}; cost about {self.about:.4g}, at most {self.most:.4g}"


def most_tokens(body: Mapping[str, Any]) -> tuple[int, int | None]:
    """The most tokens of a request and of its answer: a token has a byte or more. None if the answer has no limit.

    Example:
        >>> most_tokens({"messages": [], "max_tokens": 8})
        (102, 8)
    """
    shown = [body[name] for name in ("messages", "prompt", "tools") if name in body]
    text = json.dumps(shown[0] if len(shown) == 1 else shown, ensure_ascii=False).encode("utf-8", "surrogatepass")
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    return len(text) + _TEMPLATE, None if limit is None else int(limit) * int(body.get("n") or 1)


def forecast_of(bodies: Sequence[Mapping[str, Any]], prices: Prices) -> Forecast:
    """What calls will cost, without questions and cached answers."""
    about = most = 0.0
    for body in bodies:
        prompt, completion = most_tokens(body)
        longest = float("nan") if completion is None else float(completion)
        about += prices.of((prompt - _TEMPLATE) / _BYTES, longest)
        most += prices.of(prompt, longest)
    return Forecast(calls=len(bodies), about=about, most=most, priced=prices.known)


class Budget:
    """What may be paid, by all judges that share it, in this run and the ones before.

    Args:
        limit: in the currency of the prices; None for no limit.

    Attributes:
        paid: by everybody.
        spent: by this command.
    """

    def __init__(self, limit: float | None = None) -> None:
        self.limit = limit
        self.paid = self.spent = 0.0
        self.closed = False
        self._held: list[float] = []
        self._changed = threading.Condition()

    def hold(self, most: float, *, wait: bool = True) -> bool:
        """Set aside what a call costs at most; false if it might go past the limit. Waits for calls under way, which
        may cost less than was set aside; the first call that does not fit then ends it for all."""
        with self._changed:
            while not self.closed and self._beyond(most):
                if not wait:
                    return False
                if self._held:
                    self._changed.wait()
                else:
                    self.closed = True
            if self.closed:
                self._changed.notify_all()
                return False
            self._held.append(most)
            return True

    def _beyond(self, most: float) -> bool:
        return self.limit is not None and self.paid + sum(self._held) + most > self.limit * (1 + 1e-9)

    def fits(self, more: float = 0.0) -> bool:
        """Whether what is paid and set aside, and more, is within the limit."""
        with self._changed:
            return not self._beyond(more)

    def stop(self, kept: Any) -> RunError:
        """The error that ends a command whose next call might go past the limit.

        Args:
            kept: where answers are kept.
        """
        return RunError(
            f"Stopped at the limit of {self.limit or 0.0:g} (--max-cost, max_cost): {self.paid:.4g} is paid, and the "
            f"next call might go past it. Answers so far are kept in {kept}: raise the limit to go on there."
        )

    def lines(self, forecast: Forecast | None = None) -> list[str]:
        """What is paid and what is left, before the first call.

        Args:
            forecast: of what will be asked; None if it is not known.
        """
        lines = [f"paid in earlier runs: {self.paid:.4g}"] if self.paid else []
        if self.limit is not None:
            left = self.limit - self.paid
            most = 0.0 if forecast is None else forecast.most
            enough = "enough for all" if most <= left else "not enough for all if answers and texts have many tokens"
            said = "" if forecast is None else f", {enough}"
            lines.append(f"--max-cost {self.limit:g}: {max(0.0, left):.4g} left{said}")
        return lines

    def note(self, cost: float) -> None:
        """Count what earlier runs and other commands have paid."""
        with self._changed:
            self.paid += cost
            self._changed.notify_all()

    def settle(self, most: float, cost: float) -> None:
        """Put what a call cost in the place of what was set aside for it."""
        with self._changed:
            if most in self._held:
                self._held.remove(most)
            self.paid += cost
            self.spent += cost
            self._changed.notify_all()


class Purse:
    """Pays one judge's calls from a budget, and keeps what was paid on disk, beside the answers.

    With a limit, a call is noted before it is made, so that one that was under way when a run was killed counts as
    paid, at the most that it may have cost; and a command that runs at the same time sees it.

    Args:
        budget: shared by the judges of a command.
        cache: where payments are kept; None keeps them in memory.
        scope: whose payments are counted: a project and a judge.
        prices: of this judge.

    Raises:
        ConfigError: a limit without a price.
    """

    def __init__(self, budget: Budget, cache: AnswerCache | None, *, scope: str, prices: Prices) -> None:
        self.budget = budget
        if self.limited and not prices.known:
            raise ConfigError(
                "--max-cost needs the prices of the judge: give --price-in and --price-out (as options: max_cost, "
                "price_in, price_out)."
            )
        self.prices = prices
        self._cache = cache
        self._scope = scope
        self._batched: set[tuple[str, str]] = set()
        self._admitted: Counter[str] = Counter()
        self._open: dict[str, list[Any]] = {}
        self._lock = threading.Lock()
        self._known = 0  # payments of the cache that are counted
        self._own: Counter[str] = Counter()
        self._others()

    def _others(self) -> None:
        """Count the payments of earlier runs, and of other commands since."""
        if self._cache is None:
            return
        with self._lock:
            new, self._known = self._cache.payments[self._known :], len(self._cache.payments)
            cost = 0.0
            for key, paid in new:
                if self._own[line := json.dumps([key, paid])]:
                    self._own[line] -= 1
                elif paid.get("for") == self._scope:
                    cost += self._take(key, paid)
        self.budget.note(cost)

    def _take(self, key: str, paid: Mapping[str, Any]) -> float:
        """What a payment adds: a call that was begun counts as the most that it may cost, until its cost is known."""
        if "most" in paid:
            self._open.setdefault(key, []).append(paid["most"])
            return self.prices.of(*paid["most"])
        cost = -self.prices.of(*self._open[key].pop()) if self._open.get(key) else 0.0
        batch = paid.get("batch")
        if batch is None or (key, batch) not in self._batched:
            cost += self.prices.of(*paid["tokens"])
        if batch is not None:
            self._batched.add((key, batch))
        return cost

    def _pay(self, key: str, paid: Mapping[str, Any], allowed: Callable[[], bool] | None = None) -> bool:
        if self._cache is None:
            return True
        line = json.dumps([key, paid])
        with self._lock:
            self._own[line] += 1
        if self._cache.pay(key, paid, allowed):
            return True
        with self._lock:
            self._own[line] -= 1
        return False

    def _still_fits(self) -> bool:
        self._others()
        return self.budget.fits()

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self.budget.limit is not None

    def admit(self, key: str, body: Mapping[str, Any], *, wait: bool = True) -> bool:
        """Whether a call may be made; what it costs at most is set aside.

        Args:
            key: of the request.
            body: the request.
            wait: wait for calls under way, which may cost less than was set aside.

        Raises:
            ConfigError: there is a limit, and the answer has none.
        """
        if not self.limited:
            return True
        tokens = self._most(body)
        most = self.prices.of(*tokens)
        if self._cache is not None and not self.budget.fits(most):  # calls of other commands may have cost less by now
            self._cache.refresh()
            self._others()
        while self.budget.hold(most, wait=wait):
            if self._pay(key, {"for": self._scope, "most": list(tokens)}, self._still_fits):
                with self._lock:
                    self._admitted[key] += 1
                return True
            self.budget.settle(most, 0.0)  # another command was faster
        return False

    def settle(self, key: str, body: Mapping[str, Any], usage: Mapping[str, Any] | None, *, batch: str = "") -> None:
        """Count what a call cost.

        Args:
            key: of the request.
            body: the request.
            usage: the server's count of tokens; empty if it gave none, which counts as the most they can be. None if
                the call cost nothing.
            batch: the batch that the call was part of; each of its answers is paid once, however often it is read.
        """
        held, counted_before = self._set_aside(key, body)
        if batch and (key, batch) in self._batched:
            self.budget.settle(held, -counted_before)
            return
        tokens = (0, 0)
        if usage is not None:
            bound = most_tokens(body)
            given = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
            prompt, completion = (int(b or 0) if n is None else int(n) for n, b in zip(given, bound, strict=True))
            tokens = (prompt, completion)
        if any(tokens) or self.limited:
            self._pay(key, {"for": self._scope, "tokens": list(tokens)} | ({"batch": batch} if batch else {}))
        if batch:
            self._batched.add((key, batch))
        self.budget.settle(held, self.prices.of(*tokens) - counted_before)

    def _set_aside(self, key: str, body: Mapping[str, Any]) -> tuple[float, float]:
        """What was set aside for a call, and what was counted as paid since an earlier run began it."""
        with self._lock:
            if self._admitted[key]:
                self._admitted[key] -= 1
                return self.prices.of(*self._most(body)), 0.0
            if self._open.get(key):
                return 0.0, self.prices.of(*self._open[key].pop())
        return 0.0, 0.0

    def _most(self, body: Mapping[str, Any]) -> tuple[int, int]:
        prompt, completion = most_tokens(body)
        if completion is None:
            raise ConfigError(
                "--max-cost needs a limit for the length of an answer: give --max-tokens, or --request "
                "max_completion_tokens=2048."
            )
        return prompt, completion
