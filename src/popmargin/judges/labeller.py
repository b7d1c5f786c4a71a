"""The labeller protocol: questions, opinions, and an account of their cost."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, Protocol

from popmargin.data.questions import Kind, PreferenceText, Verdict
from popmargin.errors import counted

_ORDERS = re.compile(r"orders: ([AB=?])(?: ([01]\.\d+))?(?:, ([AB=?])(?: ([01]\.\d+))?)?")


@dataclass(frozen=True)
class Question:
    """A question: which of two preferences is stronger (if `second` is given), or whether chosen is better."""

    kind: Kind
    first: PreferenceText
    second: PreferenceText | None = None


@dataclass(frozen=True)
class Opinion:
    """A labeller's answer.

    Attributes:
        verdict: first = the first preference is the stronger one, or chosen is the better response.
        confidence: the labeller's probability that its verdict is right, from ½ to 1; None if it has none.
        note: how it was obtained, such as a judge's answers in both orders.
        asked: False if the budget ended before the question was asked in full; the verdict is "unsure" then, and no
            label.
    """

    verdict: Verdict
    confidence: float | None = None
    note: str = ""
    asked: bool = True


@dataclass
class Account:
    """The cost and outcome of labelling.

    Attributes:
        questions: questions that were answered; = labels + unsure.
        labels: verdicts first, second or tie.
        unasked: questions beyond these, which the budget left out.
        unsure: questions without a verdict: an answer is unparsed or missing, or a rating is missing.
        asked: calls to a server or a model, including retries.
        cached: answers already in the cache.
        unparsed: answers without a clear verdict, over all orders.
        cut: those that ended at the token limit.
        failed: prompts that the server refused or did not answer, over all orders.
        reasons: number of failures by reason.
        example: the first answer without a verdict, or the first failure.
        named_a, named: answers that named position A, and A or B.
        flips: questions for which both orders named the same position.
        both_orders: questions with both orders parsed.
        prompt_tokens, completion_tokens: of the calls made now.
        cost: of these tokens at the given prices; 0 without prices.
        notes: what a reward did with texts that it could not score in full, in sentences.
    """

    questions: int = 0
    labels: int = 0
    unsure: int = 0
    unasked: int = 0
    asked: int = 0
    cached: int = 0
    unparsed: int = 0
    cut: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter[str])
    example: str = ""
    named_a: int = 0
    named: int = 0
    flips: int = 0
    both_orders: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    notes: list[str] = field(default_factory=list[str])

    def add(self, other: "Account") -> None:
        """Add another account."""
        for one in fields(self):
            if one.name != "example":
                setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))
        self.example = self.example or other.example

    def __str__(self) -> str:
        unasked = f"; {self.unasked} more not asked" if self.unasked else ""
        said = f"{self.questions} questions = {self.labels} labels + {self.unsure} unsure{unasked}"
        return "\n".join([said, *self.usage()])

    def usage(self) -> list[str]:
        """What the answers took and how many were none, in lines."""
        lines: list[str] = []
        if self.asked or self.cached:
            answers = f"{counted(self.asked, 'call')}, {counted(self.cached, 'answer')} from the cache"
            lines.append(f"  {answers}, {self.unparsed} unparsed, {self.failed} failed")
        if self.reasons:
            lines.append("  failed: " + ", ".join(f"{reason}: {n}" for reason, n in self.reasons.most_common()))
        if self.cut:
            lines.append(f"  cut off at the token limit and unparsed: {self.cut}; raise --max-tokens")
        if self.example:
            lines.append(f"  first answer without a verdict: {self.example}")
        if self.both_orders:
            share = self.flips / self.both_orders
            lines.append(f"  flipped with the order: {self.flips} of {self.both_orders} ({share:.1%})")
        if self.named:
            lines.append(f"  picked position A: {self.named_a} of {self.named} ({self.named_a / self.named:.1%})")
        if self.prompt_tokens or self.cost:
            tokens = f"{self.prompt_tokens} prompt + {counted(self.completion_tokens, 'completion token')}"
            lines.append(f"  {tokens}{f', cost {self.cost:.4f}' if self.cost else ''}")
        return [*lines, *(f"  {note}" for note in self.notes)]


class Labeller(Protocol):
    """Answers questions; the same questions get the same answers."""

    @property
    def name(self) -> str:
        """Its name as an annotator; a different model or prompt is a different annotator."""
        ...

    @property
    def kind(self) -> Literal["ratings", "reward", "judge"]:
        """Its kind of annotator."""
        ...

    def label(self, questions: Sequence[Question], account: Account, *, progress: bool = False) -> list[Opinion]:
        """One opinion per question, in order; the cost is added to the account."""
        ...


@dataclass(frozen=True)
class Order:
    """A judge's answer to one order of presentation.

    Attributes:
        place: "A" or "B" as shown, "=" for neither, "?" if the answer could not be parsed.
        p: the judge's probability of A among A and B; None if the server gives no probabilities.
    """

    place: str
    p: float | None = None


def orders_note(orders: Sequence[Order], raw: str = "", failed: str = "") -> str:
    """The note of a judge's label: its answers in both orders, why there is no answer, and the raw text of an unparsed
    answer.

    Example:
        >>> orders_note([Order("A", 0.8), Order("?")], "Hm."), orders_note([Order("?")], failed="HTTP 400: too long")
        ('orders: A 0.800, ?; unparsed: Hm.', 'orders: ?; failed: HTTP 400: too long')
    """
    shown = ", ".join(f"{order.place}{'' if order.p is None else f' {order.p:.3f}'}" for order in orders)
    parts = (f"; {what}: {text}" for what, text in (("failed", failed), ("unparsed", raw)) if text)
    return f"orders: {shown}{''.join(parts)}"


def read_orders(note: str) -> tuple[Order, Order] | None:
    """The inverse of `orders_note`; None for a note without two orders.

    Example:
        >>> read_orders("orders: A 0.800, B 0.250")
        (Order(place='A', p=0.8), Order(place='B', p=0.25))
    """
    found = orders_of(note)
    return (found[0], found[1]) if len(found) == 2 else None


def orders_of(note: str) -> list[Order]:
    """The answers in a judge's note: two, or one if it was asked once; none in other notes.

    Example:
        >>> orders_of("orders: B"), orders_of("too long")
        ([Order(place='B', p=None)], [])
    """
    found = _ORDERS.match(note)
    if found is None:
        return []
    given = (found.group(1, 2), found.group(3, 4))
    return [Order(place, float(p) if p else None) for place, p in given if place]


def count_verdicts(opinions: Sequence[Opinion], account: Account) -> None:
    """Count questions, labels and those without a verdict."""
    asked = [opinion for opinion in opinions if opinion.asked]
    unsure = sum(opinion.verdict == "unsure" for opinion in asked)
    account.questions += len(asked)
    account.unasked += len(opinions) - len(asked)
    account.unsure += unsure
    account.labels += len(asked) - unsure
