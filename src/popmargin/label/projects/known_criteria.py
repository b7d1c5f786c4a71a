"""Known answers on several criteria, read from a file of gold: a column for each, or two for ratings.

A file without such columns says what is known on the first criterion, as for a single question.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from popmargin.data.questions import SIDES, Verdict, golds_of
from popmargin.data.schema import Preferences
from popmargin.errors import DataError, did_you_mean
from popmargin.label.outside.verdicts import verdict_of
from popmargin.label.projects.known_answers import known_ratings, known_sides
from popmargin.label.store.known import Known
from popmargin.label.store.records import Criterion

_TURNED: dict[Verdict, Verdict] = {"first": "second", "second": "first"}


def known_sides_on(
    columns: Mapping[str, Sequence[Any]], source: str, gold: Preferences, criteria: Sequence[Criterion]
) -> dict[str, Known]:
    """Preference -> what is known about its two responses, on each criterion that the row has an answer on.

    The columns are `criterion_NAME` or `NAME`, with words as in tables of labels; "first" is the response that the row
    calls chosen, which may be the other one in the data.

    Args:
        columns: the preferences: id, prompt, chosen and rejected.
        source: where they come from, for messages.
        gold: preferences with known answers.
        criteria: of the project; none for a single question.

    Raises:
        DataError: gold that is not among the preferences, a word that is no answer, or a row without any.
    """
    sides = known_sides(columns, source, gold)
    named = {one.name: _column(gold, f"criterion_{one.name}", one.name) for one in criteria}
    named = {name: column for name, column in named.items() if column}
    if not named:
        return dict(sides)
    own, found = {key: row for row, key in enumerate(columns["id"])}, dict[str, Known]()
    for batch in gold.batches():
        for place, key in enumerate(batch["id"]):
            turned = batch["chosen"][place] != columns["chosen"][own[key]]
            known: dict[str, Verdict | None] = {}
            for name, column in named.items():
                value = batch[column][place]
                if value in (None, ""):
                    continue
                verdict = verdict_of(value, "preference", None, {})
                if verdict is None:
                    allowed = golds_of("preference")
                    raise DataError(
                        f"gold: preference {key!r}, column '{column}': {str(value)[:40]!r} is no answer. "
                        f"{did_you_mean(str(value), allowed)}"
                    )
                known[name] = _TURNED.get(verdict, verdict) if turned else verdict
            if not known:
                raise DataError(
                    f"gold: preference {key!r} has no answer in any of its columns {', '.join(named.values())}. Give "
                    "one, or remove the row."
                )
            found[key] = known
    return found


def known_ratings_on(
    ids: Sequence[str],
    source: str,
    scale: int,
    gold: Preferences,
    keys: Sequence[tuple[str, str]],
    criteria: Sequence[Criterion],
) -> dict[tuple[str, str], Known]:
    """Response -> its known ratings, on each criterion that the file has a rating on.

    The columns are `chosen_rating_NAME` and `rejected_rating_NAME`, as in exported preferences.

    Args:
        ids, source, scale, gold, keys: as of `known_ratings`.
        criteria: of the project; none for a single question.

    Raises:
        DataError: as of `known_ratings`.
    """
    asked = {one.name: tuple(_column(gold, f"{side}_rating_{one.name}") for side in SIDES) for one in criteria}
    if not any(map(any, asked.values())):
        return dict(known_ratings(ids, source, scale, gold, keys))
    found: dict[tuple[str, str], dict[str, Verdict | None]] = {}
    for name, named in asked.items():
        if any(named):
            for response, verdict in known_ratings(ids, source, scale, gold, keys, named).items():
                found.setdefault(response, {})[name] = verdict
    return dict(found)


def _column(gold: Preferences, *names: str) -> str | None:
    """The first of these columns that a file of gold has beside those of preferences."""
    return next((name for name in names if name in gold.extra_columns), None)
