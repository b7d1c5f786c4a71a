"""Seconds of every kind of question in a project: measured where people answered it, from the words elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from popmargin.data.conversation import Text
from popmargin.data.questions import KINDS, Kind, PreferenceText
from popmargin.statistics.intervals import UNDEFINED, Interval
from popmargin.statistics.medians import median_interval

pc: Any = pyarrow.compute
WORDS_PER_MINUTE = 238.0
"""Of silent reading (Brysbaert 2019), as in the budget study."""
DECIDE = 5.0
"""Seconds to decide after reading, as in the budget study."""
GRADE = 2.0
"""Seconds for a grade beside a label, as in the budget study."""


@dataclass(frozen=True)
class Price:
    """Seconds of one question.

    Attributes:
        seconds: what it takes.
        measured: the median with its interval, if people's times are known.
        labels: with a time.
    """

    seconds: float
    measured: Interval = UNDEFINED
    labels: int = 0


@dataclass(frozen=True)
class TaskPrices:
    """What the questions of a project take.

    Attributes:
        prices: by name, as in the budget study: preference, vote, comparison, chained, inline, rating (both responses
            of a preference) and grade; and ranking, a whole screen, in projects that ask for rankings.
        words: mean words of a prompt, and of a response.
        pace: of the people, in multiples of the seconds from the words; 1 if nothing is measured.
    """

    prices: Mapping[str, Price]
    words: tuple[float, float]
    pace: float

    @property
    def seconds(self) -> dict[str, float]:
        """By name."""
        return {name: price.seconds for name, price in self.prices.items()}


def task_prices(
    words: tuple[float, float], medians: Mapping[Kind, tuple[Interval, int]], *, chained: bool, ranked: int = 0
) -> TaskPrices:
    """Prices from the words of the texts and the times of people.

    What nobody has answered yet is priced by its words, times the people's pace where that is known: how much slower or
    faster they are than the words say at the first kind that is measured (preferences, then comparisons, then ratings).

    Args:
        words: mean words of a prompt, and of a response.
        medians: of `median_seconds`.
        chained: comparisons share a preference with the one before, so that only one is read.
        ranked: preferences in a ranking; 0 without rankings.
    """
    reading = 60 * (words[0] + 2 * words[1]) / WORDS_PER_MINUTE
    by_words = {
        "preference": reading + DECIDE, "vote": reading + DECIDE, "comparison": 2 * reading + DECIDE,
        "chained": reading + DECIDE, "inline": DECIDE, "rating": reading + 2 * DECIDE, "grade": GRADE,
    }  # fmt: skip
    if ranked:  # each shares a preference with another one, so m − 1 are new
        by_words["ranking"] = (ranked - 1) * (reading + DECIDE)
    found: dict[str, Price] = {}
    priced: tuple[tuple[Kind, tuple[str, ...], int], ...] = (
        ("preference", ("preference", "vote"), 1),
        ("pop", ("chained" if chained else "comparison",), 1),
        ("rating", ("rating",), 2),
        ("rank", ("ranking",) if ranked else (), 1),
    )
    for kind, names, times in priced:
        median, labels = medians.get(kind, (UNDEFINED, 0))
        if labels and median.estimate > 0:
            both = Interval(times * median.estimate, times * median.low, times * median.high)
            found |= {name: Price(both.estimate, both, labels) for name in names}
    pace = next((price.seconds / by_words[name] for name, price in found.items()), 1.0)
    rest = {name: Price(pace * seconds) for name, seconds in by_words.items()}
    return TaskPrices(rest | found, words, pace)


def median_seconds(labels: Any) -> dict[Kind, tuple[Interval, int]]:
    """Median seconds of people's first answers of each kind, with an interval over items, and their number.

    Args:
        labels: as of `LabelStore.labels`, with kind, item, annotator_kind, seconds and repeat_of.
    """
    timed = pc.and_(pc.equal(labels["annotator_kind"], "person"), pc.is_valid(labels["seconds"]))
    labels = labels.filter(pc.and_(timed, pc.is_null(labels["repeat_of"])))
    found: dict[Kind, tuple[Interval, int]] = {}
    for kind in KINDS:
        own = labels.filter(pc.equal(labels["kind"], kind))
        if own.num_rows:
            items = own["item"].to_numpy().tolist()
            found[kind] = (median_interval(own["seconds"].to_numpy(), items), own.num_rows)
    return found


def are_chained(labels: Any) -> bool:
    """Whether most comparisons share a preference with the one that the same person answered before.

    Args:
        labels: as of `LabelStore.labels`, with assignment, kind, annotator, annotator_kind, first and second.
    """
    chosen = pc.and_(pc.equal(labels["kind"], "pop"), pc.equal(labels["annotator_kind"], "person"))
    own = labels.filter(chosen).sort_by([("annotator", "ascending"), ("assignment", "ascending")])
    if own.num_rows < 2:
        return False
    who, first, second = (pc.dictionary_encode(own[name].combine_chunks()) for name in ("annotator", "first", "second"))
    same = np.diff(who.indices.to_numpy()) == 0
    names = pa.concat_arrays([first.dictionary_decode(), second.dictionary_decode()]).dictionary_encode().indices
    one, two = np.split(names.to_numpy(), 2)
    shared = (one[1:] == one[:-1]) | (one[1:] == two[:-1]) | (two[1:] == one[:-1]) | (two[1:] == two[:-1])
    return bool(same.any()) and float(shared[same].mean()) > 0.5


def mean_words(texts: Mapping[str, PreferenceText]) -> tuple[float, float]:
    """Mean words of a prompt, and of a response.

    Example:
        >>> some = PreferenceText(id="a", prompt="why so?", chosen="that is it", rejected="no")
        >>> mean_words({"a": some})
        (2.0, 2.0)
    """
    prompts = [_words(one.prompt) for one in texts.values()]
    responses = [_words(side) for one in texts.values() for side in (one.chosen, one.rejected)]
    return float(np.mean(prompts)), float(np.mean(responses))


def _words(text: Text) -> int:
    said = [text] if isinstance(text, str) else [str(message.get("content") or "") for message in text]
    return sum(len(one.split()) for one in said)
