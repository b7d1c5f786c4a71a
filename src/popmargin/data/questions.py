"""The questions that can be asked about preferences, and the possible answers, for people and models alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, permutations
from typing import Literal, NewType, get_args

from popmargin.data.conversation import Text

Kind = Literal["preference", "pop", "rating", "rank"]
"""Which response is better (preference), the stronger of two preferences (pop), how good a response is (rating), or the
order of several preferences by strength (rank)."""

Rating = Literal["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]
Order = NewType("Order", str)
"""Numbers of the preferences of a ranking, the strongest first: "2>1>3"."""
Verdict = Literal["first", "second", "tie", "unsure", "wrong", "both_bad"] | Rating | Order
"""first / second: for a preference its `chosen` / `rejected` response, for pop the stronger preference. wrong: a shown
preference is flipped, its rejected response is better; `Label.wrong` says which of the two. both_bad: neither response
to a prompt is any good, where a project offers that answer. A number is the rating of a response, on the project's
scale; it may also be unsure. An order is the answer to a ranking, in which the preferences are numbered from 1."""

Side = Literal["chosen", "rejected"]
"""A response of a preference, by its name in the data."""

KINDS: tuple[Kind, ...] = ("preference", "pop", "rating", "rank")
RANKED = range(3, 7)
"""How many preferences one ranking may have: two are a comparison, and nobody orders many at once."""
RATINGS: tuple[Rating, ...] = get_args(Rating)
VERDICTS: tuple[Verdict, ...] = ("first", "second", "tie", "unsure", "wrong", "both_bad", *RATINGS)
SIDES: tuple[Side, ...] = get_args(Side)


def verdicts_of(kind: Kind, scale: int | None = None) -> tuple[Verdict, ...]:
    """The answers to questions of a kind, with ratings up to a scale; "unsure" is the last.

    Example:
        >>> verdicts_of("rating", 3)
        ('1', '2', '3', 'unsure')
        >>> verdicts_of("preference")
        ('first', 'second', 'tie', 'both_bad', 'unsure')
    """
    if kind == "rating":
        return (*RATINGS[:scale], "unsure")
    if kind == "rank":
        return ("unsure",)  # besides the orders, which depend on how many preferences there are
    return ("first", "second", "tie", "wrong" if kind == "pop" else "both_bad", "unsure")


@cache
def orders_of(size: int) -> frozenset[str]:
    """All orders of so many preferences.

    Example:
        >>> len(orders_of(3)), "2>1>3" in orders_of(3), "2>2>3" in orders_of(3)
        (6, True, False)
    """
    return frozenset(order_of(numbers) for numbers in permutations(range(1, size + 1)))


def order_of(numbers: Sequence[int]) -> Order:
    """The verdict with these numbers, the strongest first."""
    return Order(">".join(map(str, numbers)))


def numbers_of(order: str) -> list[int]:
    """The numbers in an order.

    Example:
        >>> numbers_of("2>1>3")
        [2, 1, 3]
    """
    return [int(number) for number in order.split(">")]


def turned_pairs(order: str, other: str) -> list[tuple[int, int]]:
    """The comparisons in which an order of the same preferences differs from another one: (above, below) in it.

    Example:
        >>> turned_pairs("2>1>3", "1>2>3"), turned_pairs("1>2>3", "1>2>3")
        ([(2, 1)], [])
    """
    place = {number: at for at, number in enumerate(numbers_of(other))}
    return [(one, two) for one, two in combinations(numbers_of(order), 2) if place[one] > place[two]]


def same_share(order: str, other: str) -> float:
    """Share of the comparisons that are the same in two orders: ½ by chance, (1 + τ) / 2 by Kendall's τ.

    Example:
        >>> same_share("2>1>3", "1>2>3"), same_share("3>2>1", "1>2>3")
        (0.6666666666666667, 0.0)
    """
    size = len(numbers_of(order))
    return 1 - len(turned_pairs(order, other)) / (size * (size - 1) / 2)


def is_order(verdict: str | None) -> bool:
    """Whether a verdict is the answer to a ranking."""
    return verdict is not None and any(verdict in orders_of(size) for size in RANKED)


def golds_of(kind: Kind, scale: int | None = None) -> tuple[Verdict, ...]:
    """The answers of a kind that can be known beforehand; for rankings there are only orders."""
    if kind == "rank":
        return ()
    return RATINGS[:scale] if kind == "rating" else verdicts_of(kind)


@dataclass(frozen=True, kw_only=True)
class PreferenceText:
    """One preference, to be shown; `columns` are names and values of its other columns that people see with it."""

    id: str
    prompt: Text
    chosen: Text
    rejected: Text
    columns: tuple[tuple[str, str], ...] = ()
