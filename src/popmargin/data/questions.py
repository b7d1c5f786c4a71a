"""The questions that can be asked about preferences, and the possible answers, for people and models alike."""

from dataclasses import dataclass
from typing import Literal, get_args

from popmargin.data.conversation import Text

Kind = Literal["preference", "pop", "rating"]
"""Which response is better (preference), the stronger of two preferences (pop), or how good a response is (rating)."""

Rating = Literal["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]
Verdict = Literal["first", "second", "tie", "unsure", "wrong", "both_bad"] | Rating
"""first / second: for a preference its `chosen` / `rejected` response, for pop the stronger preference. wrong: a shown
preference is flipped, its rejected response is better; `Label.wrong` says which of the two. both_bad: neither response
to a prompt is any good, where a project offers that answer. A number is the rating of a response, on the project's
scale; it may also be unsure."""

Side = Literal["chosen", "rejected"]
"""A response of a preference, by its name in the data."""

KINDS: tuple[Kind, ...] = ("preference", "pop", "rating")
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
    return ("first", "second", "tie", "wrong" if kind == "pop" else "both_bad", "unsure")


def golds_of(kind: Kind, scale: int | None = None) -> tuple[Verdict, ...]:
    """The answers of a kind that can be known beforehand."""
    return RATINGS[:scale] if kind == "rating" else verdicts_of(kind)


@dataclass(frozen=True, kw_only=True)
class PreferenceText:
    """One preference, to be shown; `columns` are names and values of its other columns that people see with it."""

    id: str
    prompt: Text
    chosen: Text
    rejected: Text
    columns: tuple[tuple[str, str], ...] = ()
