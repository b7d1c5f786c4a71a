"""A language model as the judge: both orders of presentation, verdicts from its probabilities if available."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from popmargin.data.questions import Kind
from popmargin.errors import ConfigError
from popmargin.judges.labeller import Account, Opinion, Order, Question, count_verdicts, orders_note
from popmargin.judges.prompts import fill, load_prompt, pop_parts
from popmargin.judges.read_verdict import Verdict, read_verdict

REMINDER = "\n\nReply with A, B or tie, and nothing else: the reply before could not be read.\n"
_RAW = 400  # characters of an unparsed answer stored in a note: its beginning and its end


@dataclass(frozen=True)
class Reply:
    """A backend's answer to one prompt.

    Attributes:
        text: what the model wrote; for a local model the more likely of the two letters.
        p: probability of A among A and B at the letter of the verdict; None if the backend gives none.
        at: position of that letter in the text; None if the text is the letter.
        cut: whether the answer ended at the token limit.
        failure: why there is no answer; the text is empty then.
        asked: False if the budget ended before.
        prompt_tokens, completion_tokens: 0 if the backend does not say.
    """

    text: str
    p: float | None = None
    at: int | None = None
    cut: bool = False
    failure: str = ""
    asked: bool = True
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Backend(Protocol):
    """Answers prompts, from its cache if possible."""

    @property
    def name(self) -> str:
        """Its name, for the annotator's name."""
        ...

    def reply(self, prompts: Sequence[str], account: Account, *, progress: bool = False) -> list[Reply]:
        """One reply per prompt, in order; calls, cached answers, tokens and cost are added to the account."""
        ...


class Judge:
    """Labels by a chat model that is asked each question in both orders.

    Let p₁ be the probability of A with the first side as A, and p₂ with the second side as A. Then the judge's
    probability of the first side is p = (p₁ + 1 − p₂) / 2, which cancels position bias. The verdict is the more likely
    side and its confidence max(p, 1 − p), which can be compared with how often the judge is right. A backend without
    probabilities counts as p ∈ {0, ½, 1}: orders that disagree are a tie, with confidence ½.

    A question with an unparsed or missing answer is "unsure", with the raw text or the reason in its note. None is
    dropped, and `label_store` asks about them `again`.

    Args:
        backend: of `popmargin.judges.backends` or `local_backend`.
        prompts: a user's prompt file by kind of question; the built-in one if missing.
        orders: "both", or "one" to halve the cost; position bias then cannot be separated from the verdict.
        name: as an annotator; None for the backend's.

    Raises:
        ConfigError: a prompt lacks a placeholder, or orders is unknown.
    """

    kind: Literal["judge"] = "judge"

    def __init__(
        self,
        backend: Backend,
        *,
        prompts: Mapping[Kind, str | Path] | None = None,
        orders: str = "both",
        name: str | None = None,
    ) -> None:
        if orders not in ("both", "one"):
            raise ConfigError(f"orders is {orders!r}; choose 'both' or 'one'.")
        self._orders = 2 if orders == "both" else 1
        kinds: tuple[Kind, ...] = ("pop", "preference")
        self._templates = {kind: load_prompt(kind, (prompts or {}).get(kind)) for kind in kinds}
        self.name = name or f"judge:{backend.name}"
        self.backend = backend

    def in_one_order(self) -> "Judge":
        """The same judge, asked in one order only: by those who ask both themselves."""
        judge = copy.copy(self)
        judge._orders = 1
        return judge

    def reminding(self) -> "Judge":
        """The same judge with a reminder of the form under each prompt, for questions of which no answer could be read.

        The reminder makes another prompt, so these answers are cached as well.
        """
        judge = copy.copy(self)
        judge._templates = {kind: text + REMINDER for kind, text in self._templates.items()}
        return judge

    def label(self, questions: Sequence[Question], account: Account, *, progress: bool = False) -> list[Opinion]:
        """One opinion for each question."""
        asked = self.prompts(questions)
        replies = self.backend.reply(asked, account, progress=progress)
        opinions = [
            _opinion(replies[start : start + self._orders], account) for start in range(0, len(asked), self._orders)
        ]
        count_verdicts(opinions, account)
        return opinions

    def prompts(self, questions: Sequence[Question]) -> list[str]:
        """What the model is asked, all orders of a question in a row."""
        return [self._prompt(question, turned) for question in questions for turned in range(self._orders)]

    def _prompt(self, question: Question, turned: int) -> str:
        template = self._templates[question.kind]
        if question.second is not None:
            pair = (question.first, question.second)
            return fill(template, pop_parts(*(pair[::-1] if turned else pair)))
        sides = (question.first.chosen, question.first.rejected)
        first, second = sides[::-1] if turned else sides
        return fill(template, {"prompt": question.first.prompt, "first": first, "second": second})


def parse_letter(text: str) -> str:
    """The position that an answer names: "A", "B", "=" for a tie, "?" without a clear verdict (see `read_verdict`).

    Example:
        >>> parse_letter(" **B**."), parse_letter("The answer is A."), parse_letter("Tie"), parse_letter("A cat is B")
        ('B', 'A', '=', '?')
    """
    verdict = read_verdict(text)
    return "?" if verdict is None else verdict.place


def _opinion(replies: Sequence[Reply], account: Account) -> Opinion:
    if not all(reply.asked for reply in replies):
        return Opinion("unsure", None, "not asked", asked=False)
    orders = [_order(reply) for reply in replies]
    failed = [reply.failure for reply in replies if reply.failure]
    unparsed = [reply for reply, order in zip(replies, orders, strict=True) if order.place == "?" and not reply.failure]
    account.failed += len(failed)
    account.reasons.update(failure.partition(":")[0] for failure in failed)
    account.unparsed += len(unparsed)
    account.cut += sum(reply.cut for reply in unparsed)
    account.named += sum(order.place in "AB" for order in orders)
    account.named_a += sum(order.place == "A" for order in orders)
    words = [_shortened(reply.text) for reply in unparsed]
    note = orders_note(orders, " | ".join(words), " | ".join(dict.fromkeys(failed)))
    if failed or unparsed:
        account.example = account.example or (failed[0] if failed else repr(words[0]))
        return Opinion("unsure", None, note)
    account.both_orders += len(orders) == 2
    account.flips += flipped(orders)
    sides = [_chance(order) if not turned else 1.0 - _chance(order) for turned, order in enumerate(orders)]
    p = sum(sides) / len(sides)
    return Opinion("tie" if p == 0.5 else "first" if p > 0.5 else "second", max(p, 1.0 - p), note)


def _shortened(text: str) -> str:
    words = " ".join(text.split()) or "(empty)"
    return words if len(words) <= _RAW else f"{words[: _RAW // 2]} … {words[-_RAW // 2 :]}"


def flipped(orders: Sequence[Order]) -> bool:
    """Whether both orders named the same position, so that reversing the order changed the verdict.

    Example:
        >>> flipped([Order("A"), Order("A")]), flipped([Order("A"), Order("B")])
        (True, False)
    """
    return len(orders) == 2 and orders[0].place == orders[1].place and orders[0].place in "AB"


def _order(reply: Reply) -> Order:
    verdict = None if reply.failure else read_verdict(reply.text)
    if verdict is None:
        return Order("?")
    p = _probability(reply, verdict)
    if p is None or p == 0.5:
        return Order(verdict.place, p)
    return Order("A" if p > 0.5 else "B", p)


def _probability(reply: Reply, verdict: Verdict) -> float | None:
    """The probability of A, if it was read at the verdict; older caches do not say where they read it."""
    if verdict.start is None or reply.p is None:
        return None
    alone = reply.text.strip(" *'\".\n") in ("A", "B")
    return reply.p if reply.at == verdict.start or (reply.at is None and alone) else None


def _chance(order: Order) -> float:
    return order.p if order.p is not None else {"A": 1.0, "B": 0.0, "=": 0.5}[order.place]
