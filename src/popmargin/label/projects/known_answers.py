"""Known answers of preferences, pairs of them and responses, read from a file of gold."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from popmargin.data.questions import RATINGS, SIDES, Verdict
from popmargin.data.schema import TEXT_COLUMNS, Preferences
from popmargin.errors import DataError
from popmargin.label.projects.known_orders import KnownOrders
from popmargin.pop.edges import PopEdges

RATED = tuple(f"{side}_rating" for side in SIDES)
Gold = PopEdges | Preferences | KnownOrders
"""PoP edges for pairs of preferences; orders for rankings; preferences with known labels or ratings for the other
kinds."""


def columns_of(preferences: Preferences) -> dict[str, list[Any]]:
    """Ids and texts of preferences as columns."""
    names = ("id", *TEXT_COLUMNS)
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for batch in preferences.batches(*names):
        for name in names:
            columns[name] += batch[name]
    return columns


def known_sides(columns: Mapping[str, Sequence[Any]], source: str, gold: Preferences) -> dict[str, Verdict]:
    """Preference -> which of its responses is known to be better, matched by id and texts.

    Gold that calls the other response chosen says "second"; a soft label of ½ says that they are equally good.

    Args:
        columns: the preferences: id, prompt, chosen and rejected.
        source: where they come from, for messages.
        gold: preferences with known labels.

    Raises:
        DataError: gold that is not among the preferences.
    """
    rows = {key: row for row, key in enumerate(columns["id"])}
    keys, known = response_keys(columns), dict[str, Verdict]()
    for batch in gold.batches():
        own = response_keys(batch)
        for place, key in enumerate(batch["id"]):
            if key not in rows:
                raise DataError(f"gold: preference {key!r} is not in {source}. Preferences are matched by id.")
            pair, said = keys[2 * rows[key] : 2 * rows[key] + 2], own[2 * place : 2 * place + 2]
            if said not in (pair, pair[::-1]):
                raise DataError(
                    f"gold: preference {key!r}: {source} has another prompt or other responses under this id. Copy "
                    "them exactly from there; the side says which response is better."
                )
            equal = batch["soft_label"][place] == 0.5
            known[key] = "tie" if equal else "first" if said == pair else "second"
    return known


def response_keys(rows: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Keys of the two responses of each preference: prompt and text; chosen before rejected.

    A response in several preferences of a prompt is one response and is rated once. A missing one has the text null.
    """
    texts = zip(rows["prompt"], rows["chosen"], rows["rejected"], strict=True)
    return [(json.dumps(prompt), json.dumps(text)) for prompt, *sides in texts for text in sides]


def known_answers(gold: PopEdges) -> dict[frozenset[str], tuple[tuple[str, str], bool]]:
    """Pair -> (stronger, weaker) and whether they are labelled equal.

    Raises:
        DataError: a pair has two answers, or there is none.
    """
    known: dict[frozenset[str], tuple[tuple[str, str], bool]] = {}
    for row in gold.table.to_pylist():
        if row["weaker"] is None:
            continue
        pair, tie = (row["stronger"], row["weaker"]), bool(row["tie"])
        before = known.setdefault(frozenset(pair), (pair, tie))
        if before[1] != tie or (not tie and before[0] != pair):
            raise DataError(
                f"gold: '{pair[0]}' against '{pair[1]}' has two answers. Keep one per pair, e.g. with label export "
                "--aggregate majority."
            )
    if not known:
        raise DataError("gold: no edge compares two preferences. Give edges that do, or omit gold.")
    return known


def known_ratings(
    ids: Sequence[str],
    source: str,
    scale: int,
    gold: Preferences,
    keys: Sequence[tuple[str, str]],
    columns: Sequence[str | None] = RATED,
) -> dict[tuple[str, str], Verdict]:
    """Response -> its known rating; matched by text, since gold may call the other response chosen.

    Args:
        ids: of the preferences.
        source: where they come from, for messages.
        scale: ratings go from 1 to this.
        gold: preferences with known ratings.
        keys: of the responses, as of `response_keys`.
        columns: of the ratings of chosen and rejected; None where there is no such column.

    Raises:
        DataError: gold that is not among the preferences, without a rating, or with two for a response.
    """
    known: dict[tuple[str, str], Verdict] = {}
    rows = {key: row for row, key in enumerate(ids)}
    for batch in gold.batches():
        responses = response_keys(batch)
        for place, key in enumerate(batch["id"]):
            if key not in rows:
                raise DataError(f"gold: preference {key!r} is not in {source}. Preferences are matched by id.")
            for response, side, rated in zip(responses[2 * place : 2 * place + 2], SIDES, columns, strict=True):
                rating = None if rated is None else batch[rated][place]
                if rating in (None, ""):
                    continue
                if response not in keys[2 * rows[key] : 2 * rows[key] + 2]:
                    raise DataError(
                        f"gold: preference {key!r}, column '{side}': {source} has no such prompt and "
                        "response under this id. Copy both exactly from there; the side does not matter."
                    )
                column = f"gold: preference {key!r}, column '{rated}'"
                verdict: Verdict | None = next(
                    (number for number in RATINGS[:scale] if number == _number(rating)), None
                )
                if verdict is None:
                    raise DataError(f"{column}: {_number(rating)} is not on the scale from 1 to {scale}.")
                if known.setdefault(response, verdict) != verdict:
                    raise DataError(f"{column}: the same response has two different known ratings. Keep one.")
    if not known:
        raise DataError(
            f"gold: no preference of {gold.report.source} has a rating. Put the known "
            f"ratings in {' and '.join(column for column in columns if column)}, or omit gold."
        )
    return known


def _number(rating: Any) -> str:
    """A rating as it stands on the scale; a column that the schema does not know has any values."""
    return f"{rating:g}" if isinstance(rating, float | int) else str(rating).strip()
