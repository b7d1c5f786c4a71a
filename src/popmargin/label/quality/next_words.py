"""What `next_hour` found, in sentences and as a table."""

from collections.abc import Sequence
from typing import Any

from popmargin.errors import counted
from popmargin.label.quality.budget_tables import NEEDS_NEW, OPTIONS, Option, unit_price
from popmargin.label.quality.next_question import NextHour, Standing, Verdicts, hourly
from popmargin.label.quality.task_prices import TaskPrices
from popmargin.report.metrics import has_bounds, number
from popmargin.report.tables import duration
from popmargin.statistics.intervals import UNDEFINED, Interval

WORDS: dict[Option, str] = {
    "more": "labels of new preferences",
    "grade": "labels of new preferences, each with a grade",
    "inline": "labels of new preferences, each compared with the one before",
    "rated": "ratings of both responses of new preferences",
    "votes": "another vote on labelled preferences",
    "ratings": "ratings of both responses of labelled preferences",
    "chain": "chained comparisons of labelled preferences",
    "random": "comparisons of random labelled preferences",
}
_MEASURED: dict[Option, str] = {
    "more": "preference", "rated": "rating", "votes": "vote", "ratings": "rating", "chain": "chained",
    "random": "comparison",
}  # fmt: skip


def next_sentences(found: NextHour) -> list[str]:
    """What to do next, and how sure that is."""
    has = found.standing
    if has.prices is None:
        return ["The budget studies have texts only: they do not say what to ask next about images."]
    if not has.labelled:
        return ["No preference has a label yet: begin with labels, of a few dozen preferences by two people each."]
    sentences = [_has(has), *_rankings(has), *_outside(found)]
    for said in found.said:
        if not said.study.outside(has.labelled):
            sentences += _advice(said, has)
    sentences += _agreement(found)
    sentences.append(
        "Source: docs/studies/budget.md, simulated annotators and rewards on a small model's features: points of "
        "accuracy on held-out preferences, with 95% intervals."
    )
    return sentences


def next_table(found: NextHour) -> list[dict[str, Any]]:
    """A row for each option: what an hour buys, and each study's gain."""
    prices = found.standing.prices
    if prices is None or not found.said:
        return []
    return [
        {
            "option": option,
            "words": WORDS[option],
            "seconds": unit_price(option, prices.seconds),
            "measured": prices.prices[_MEASURED[option]].measured if option in _MEASURED else UNDEFINED,
            "an_hour": hourly(option, prices),
            "possible": bool(found.standing.unlabelled) or option not in NEEDS_NEW,
            "gains": [said.gains[option] for said in found.said],
        }
        for option in OPTIONS
    ]


def points(value: Interval) -> str:
    """A gain in points with its interval.

    Example:
        >>> points(Interval(1.25, 0.5, 2.0))
        '+1.2 [+0.5, +2.0]'
    """
    ends = [number(one, 1, sign=True) for one in (value.estimate, value.low, value.high)]
    return f"{ends[0]} [{ends[1]}, {ends[2]}]"


def _has(has: Standing) -> str:
    prices = has.prices
    assert prices is not None
    votes = f", {number(has.votes, 1)} labels each" if has.votes == has.votes else ", by the data"
    new = counted(has.unlabelled, "preference") if has.unlabelled else "none"
    length = number(prices.words[0] + 2 * prices.words[1], 0)
    return (
        f"{counted(has.labelled, 'preference')} with a label{votes}; without a label: {new}; {length} words to read in "
        f"each. {_times(prices)}"
    )


def _times(prices: TaskPrices) -> str:
    names = {"preference": "a label of a preference", "comparison": "a comparison", "chained": "a chained comparison",
             "rating": "both ratings of a preference", "ranking": "a ranking"}  # fmt: skip
    known = [
        f"{words} {duration(price.seconds)}{_bounds(price.measured)}"
        for name, words in names.items()
        if name in prices.prices and (price := prices.prices[name]).labels
    ]
    if not known:
        return (
            "No time is measured yet: seconds are those of "
            f"{number(prices.words[0] + 2 * prices.words[1], 0)} words at 238 a minute."
        )
    return f"Measured (median): {', '.join(known)}; other seconds are from the words, at the same pace."


def _rankings(has: Standing) -> list[str]:
    """What a ranking costs; the studies do not say what one is worth."""
    if has.prices is None or not has.ranked:
        return []
    seconds, size = has.prices.seconds, has.ranked
    each, chained = duration(seconds["ranking"] / (size - 1)), duration(seconds["chained"])
    return [
        (
            f"A ranking of {size} takes {duration(seconds['ranking'])}: {each} for each of its {size - 1} comparisons "
            f"of neighbours, beside {chained} for a chained comparison. The budget studies have no rankings: what one "
            "is worth in training is not known, and no line below is about them."
        )
    ]


def _bounds(value: Interval) -> str:
    return f" [{number(value.low, 1)}, {number(value.high, 1)}]" if has_bounds(value) else " (no interval: too few)"


def _outside(found: NextHour) -> list[str]:
    """Where the project is outside the studies."""
    labelled, sentences = found.standing.labelled, list[str]()
    for said in found.said:
        if said.study.outside(labelled):
            low, high = (number(size, 0) for size in (said.study.sizes[0], said.study.sizes[-1]))
            sizes = low if low == high else f"{low} to {high}"
            sentences.append(
                f"On {said.study.name} the study has {sizes} labels, this project "
                f"{number(labelled, 0)}: it does not say what to ask next. The table has its nearest numbers."
            )
    if found.said and found.share < 1:
        sentences.append(
            f"{_hours(found.hours)} is {number(found.share, 2)} of the time that the labels took, and the studies "
            "begin at 1: gains are on a straight line from there to zero, which is too low, if anything, but alike for "
            "all."
        )
    return sentences


def _hours(hours: float) -> str:
    return "An hour" if hours == 1 else f"{number(hours, 1)} hours"


def _advice(said: Verdicts, has: Standing) -> list[str]:
    sentences: list[str] = []
    groups: list[tuple[str, Option, Sequence[Option]]] = []
    if has.unlabelled:
        groups.append((_on(said), said.best, said.ties))
        groups.append(("without new preferences", *said.old))
    else:
        groups.append((f"{_on(said)}, without new preferences", *said.old))
    for where, best, ties in groups:
        take = ties[0]
        text = f"{where}: {WORDS[take]}, {points(said.gains[take].points)} points"
        if take != best:
            text += f" (highest: {WORDS[best]}, {points(said.gains[best].points)})"
        others = [WORDS[name] for name in ties if name not in (take, best)]
        if others:
            text += f"; not told apart: {', '.join(others)}"
        if said.gains[take].points.low <= 0:
            text += "; the interval contains zero, so this may be worth nothing"
        sentences.append(f"{text[:1].upper()}{text[1:]}.")
    return sentences


def _on(said: Verdicts) -> str:
    return f"On {said.study.name}, {number(said.study.words[0] + 2 * said.study.words[1], 0)} words each"


def _agreement(found: NextHour) -> list[str]:
    """What the project's noise means for the tables, which have one."""
    has, studies = found.standing, [said.study.agreement for said in found.said]
    shares = " and ".join(dict.fromkeys(number(share, 0, share=True) for share in studies))
    if not has_bounds(has.agreement):
        return [f"How often two people agree is not known here; in the studies it is {shares}. An overlap of 2 tells."]
    ends = [number(100 * end, 0) for end in (has.agreement.low, has.agreement.high)]
    text = f"{number(has.agreement.estimate, 0, share=True)} [{', '.join(ends)}]"
    if all(has.agreement.low <= share <= has.agreement.high for share in studies):
        return [f"Two people agree in {text} of labels, as in the studies ({shares})."]
    more = "more" if has.agreement.estimate > max(studies) else "less"
    return [
        (
            f"Two people agree in {text} of labels, {more} than in the studies, which have {shares} only: they do not "
            "say what another agreement changes."
        )
    ]
