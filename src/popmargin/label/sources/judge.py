"""A language model as the judge: both orders of presentation, verdicts from its probabilities where it gives them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from popmargin.errors import ConfigError
from popmargin.label.records import Kind
from popmargin.label.sources.base import Account, Opinion, Order, Question, orders_note
from popmargin.label.sources.prompts import fill, load_prompt, pop_parts
from popmargin.label.sources.ratings import count_verdicts

_TIE = re.compile(r"(?:tie|equal|same|neither|both|=)\b|=", re.IGNORECASE)
_LETTER = re.compile(r"\W*(?:(?:answer|comparison|verdict)\W*)?([ABC])(?![\w'])\W*", re.IGNORECASE)
_RAW = 200  # characters of an unparsed answer that a note keeps


@dataclass(frozen=True)
class Reply:
    """A backend's answer to one prompt.

    Attributes:
        text: what the model wrote; for a local model the more likely of the two letters.
        p: probability of A among A and B; None where the backend gives none.
        prompt_tokens, completion_tokens: 0 where the backend does not say.
    """

    text: str
    p: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Backend(Protocol):
    """Answers prompts, from its cache where it can."""

    @property
    def name(self) -> str:
        """What it is, for the annotator's name."""
        ...

    def reply(self, prompts: Sequence[str], account: Account, *, progress: bool = False) -> list[Reply]:
        """One reply for each prompt, in order; calls, cached answers, tokens and cost are added to the account."""
        ...


class Judge:
    """Labels by a chat model that is asked each question in both orders.

    Let p₁ be the probability of A with the first side as A, and p₂ with the second side as A. Then the judge's
    probability of the first side is p = (p₁ + 1 − p₂) / 2, which cancels a liking for one place; the verdict is the
    likelier side and its confidence max(p, 1 − p), so that it can be held against how often the judge is right. A
    backend without probabilities counts as p ∈ {0, ½, 1}: orders that disagree are a tie, with confidence ½.

    A question of which an answer cannot be parsed is "unsure", with the raw text in its note; none is dropped.

    Args:
        backend: of `popmargin.label.sources.backends`.
        prompts: a user's prompt file by kind of question; the built-in one where missing.
        orders: "both", or "one" to halve the cost; then nothing tells a verdict from a liking for a place.
        name: as an annotator; the backend's when None.

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
        self._backend = backend

    def label(self, questions: Sequence[Question], account: Account, *, progress: bool = False) -> list[Opinion]:
        """One opinion for each question."""
        asked = [self._prompt(question, turned) for question in questions for turned in range(self._orders)]
        replies = self._backend.reply(asked, account, progress=progress)
        opinions = [
            _opinion(replies[start : start + self._orders], account) for start in range(0, len(asked), self._orders)
        ]
        count_verdicts(opinions, account)
        return opinions

    def _prompt(self, question: Question, turned: int) -> str:
        template = self._templates[question.kind]
        if question.second is not None:
            pair = (question.first, question.second)
            return fill(template, pop_parts(*(pair[::-1] if turned else pair)))
        sides = (question.first.chosen, question.first.rejected)
        first, second = sides[::-1] if turned else sides
        return fill(template, {"prompt": question.first.prompt, "first": first, "second": second})


def parse_letter(text: str) -> str:
    """The place that an answer names: "A", "B", "=" for a tie, "?" when it names none.

    Example:
        >>> parse_letter(" **B**."), parse_letter("Answer: A"), parse_letter("Tie"), parse_letter("A cat is B")
        ('B', 'A', '=', '?')
    """
    lines = [line for line in text.strip().splitlines() if line.strip()]
    for line in (lines[:1] + lines[-1:]) if lines else []:
        found = _LETTER.fullmatch(line.strip())
        if found:
            return {"A": "A", "B": "B", "C": "="}[found[1].upper()]
        if _TIE.fullmatch(line.strip(" .*`'\"")):
            return "="
    return "?"


def _opinion(replies: Sequence[Reply], account: Account) -> Opinion:
    orders = [_order(reply) for reply in replies]
    raw = " | ".join(
        " ".join(reply.text.split())[:_RAW] or "(empty)"
        for reply, order in zip(replies, orders, strict=True)
        if order.place == "?"
    )
    account.unparsed += sum(order.place == "?" for order in orders)
    note = orders_note(orders, raw)
    if raw:
        return Opinion("unsure", None, note)
    account.both_orders += len(orders) == 2
    account.flips += flipped(orders)
    sides = [_chance(order) if not turned else 1.0 - _chance(order) for turned, order in enumerate(orders)]
    p = sum(sides) / len(sides)
    return Opinion("tie" if p == 0.5 else "first" if p > 0.5 else "second", max(p, 1.0 - p), note)


def flipped(orders: Sequence[Order]) -> bool:
    """Whether both orders named the same place, so that the other order gave the other verdict.

    Example:
        >>> flipped([Order("A"), Order("A")]), flipped([Order("A"), Order("B")])
        (True, False)
    """
    return len(orders) == 2 and orders[0].place == orders[1].place and orders[0].place in "AB"


def _order(reply: Reply) -> Order:
    place = parse_letter(reply.text)
    if place in "AB" and reply.p is not None and reply.p != 0.5:
        place = "A" if reply.p > 0.5 else "B"
    return Order(place, reply.p if place in "AB" else None)


def _chance(order: Order) -> float:
    return order.p if order.p is not None else {"A": 1.0, "B": 0.0, "=": 0.5}[order.place]
