"""People's ratings of single responses as the ratings of preferences."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute

from popmargin.data.formats.unlabelled import MARK
from popmargin.data.questions import RATINGS, SIDES
from popmargin.errors import counted, first_few
from popmargin.label.projects.draft import response_keys

pc: Any = pyarrow.compute
COLUMNS = ("kind", "first", "response", "verdict", "repeat_of")
"""Columns of a table of labels that `mean_ratings` reads."""


@dataclass(frozen=True)
class RatedPreferences:
    """Ratings of preferences, row by row.

    Attributes:
        chosen: mean rating of the chosen response over annotators; None if unrated.
        rejected: the same for the rejected one.
    """

    chosen: list[float | None]
    rejected: list[float | None]

    @property
    def pairs(self) -> list[tuple[float, float] | None]:
        """Both ratings of each preference; None if one is missing."""
        both = zip(self.chosen, self.rejected, strict=True)
        return [None if better is None or worse is None else (better, worse) for better, worse in both]


def mean_ratings(labels: Any, columns: Mapping[str, Sequence[Any]]) -> RatedPreferences | None:
    """Mean rating of every response over annotators; None if nothing is rated.

    "Unsure" and repeated items do not count. A response in several preferences of a prompt was rated once, and its
    rating applies to all of them.

    Args:
        labels: table of labels with at least `COLUMNS`.
        columns: the preferences: id, prompt, chosen and rejected.
    """
    rated = pc.is_in(labels["verdict"], value_set=pyarrow.array(RATINGS))
    found = labels.filter(pc.and_(rated, pc.is_null(labels["repeat_of"])))
    if not found.num_rows:
        return None
    keys, rows = response_keys(columns), {key: row for row, key in enumerate(columns["id"])}
    given: dict[tuple[str, str], list[int]] = {}
    for first, side, verdict in zip(
        *(found[name].to_pylist() for name in ("first", "response", "verdict")), strict=True
    ):
        given.setdefault(keys[2 * rows[first] + SIDES.index(side)], []).append(int(verdict))
    means = {key: sum(values) / len(values) for key, values in given.items()}
    return RatedPreferences([means.get(key) for key in keys[0::2]], [means.get(key) for key in keys[1::2]])


def strengths_of(labels: Any, columns: Mapping[str, Sequence[Any]]) -> dict[str, float]:
    """Gap of the mean ratings of each preference by id, nan if one is missing; empty if nothing is rated."""
    rated = mean_ratings(labels, columns)
    if rated is None:
        return {}
    gaps = [math.nan if pair is None else pair[0] - pair[1] for pair in rated.pairs]
    return dict(zip(columns["id"], gaps, strict=True))


def put_ratings(
    columns: dict[str, list[Any]], labels: Any, notes: list[str]
) -> tuple[dict[int, tuple[float, float]], list[int]]:
    """If responses were rated, replace the preferences' imported ratings by their mean ratings.

    Args:
        columns: the preferences; the ratings are replaced, strength and margin emptied.
        labels: table of labels with at least `COLUMNS`.
        notes: sentences about what was done are appended.

    Returns:
        Row -> both ratings, for preferences rated the other way, and the rows without a rating.
    """
    rated = mean_ratings(labels, columns)
    if rated is None:
        return {}, []
    columns["chosen_rating"], columns["rejected_rating"] = list(rated.chosen), list(rated.rejected)
    for name in {"strength", "margin"} & columns.keys():
        columns[name] = [None] * len(columns["id"])
    pairs = rated.pairs
    missing = [row for row, pair in enumerate(pairs) if pair is None]
    empty_ratings(columns, missing)
    missing = [row for row in missing if columns["rejected"][row] is not None]
    ties = sum(pair is not None and pair[0] == pair[1] for pair in pairs)
    count = sum(side is not None for side in columns["rejected"])
    notes.append(
        f"{count - len(missing)} of {counted(count, 'preference')} have annotators' ratings for both "
        f"responses; {ties} of these are ties (a gap of 0)"
    )
    if missing:
        names = first_few([columns["id"][row] for row in missing])
        notes.append(f"{len(missing)} do not ({names}): --unrated keeps them without ratings or drops them")
    return {row: pair for row, pair in enumerate(pairs) if pair is not None and pair[0] < pair[1]}, missing


def ratings_decide(columns: dict[str, list[Any]], rows: Iterable[int]) -> None:
    """Where people's ratings say which response is better, or that neither is, an imported tie no longer counts.

    A tie of the data has a soft label of ½, which unequal ratings empty. Equal ratings give one to a preference that
    came without a label, since its order is arbitrary.
    """
    marks = columns.get(MARK, [None] * len(columns["id"]))
    for row in rows:
        better, worse = columns["chosen_rating"][row], columns["rejected_rating"][row]
        if None in (better, worse):
            continue
        if better != worse and columns["soft_label"][row] == 0.5:
            columns["soft_label"][row] = None
        elif better == worse and marks[row]:
            columns["soft_label"][row] = 0.5


def empty_ratings(columns: dict[str, list[Any]], rows: Iterable[int]) -> None:
    """Leave both ratings of these rows empty."""
    for row in rows:
        columns["chosen_rating"][row] = columns["rejected_rating"][row] = None
