"""Helpers of `Responses`: parsing user values, merging responses, and finding identical ones.

Axis suffix n: all responses, those of a prompt together.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from popmargin.data.conversation import Text, prompt_key
from popmargin.errors import DataError, counted


class ResponseParts(NamedTuple):
    """The contents of `Responses`; scores and fields flat (n,)."""

    prompts: Sequence[Text]
    responses: Sequence[Sequence[Text]]
    scores: Mapping[str, Any]
    fields: Mapping[str, Any]
    columns: Mapping[str, Any]


class Flat(list[Any]):
    """One value for each response. A plain list of lists could be that, or one list for each prompt."""


def flat_values(name: str, values: Any, counts: Int64[np.ndarray, " P"]) -> list[Any]:
    """One value per response, from one for all, a list per prompt, or a flat list.

    Raises:
        DataError: the wrong number of values.
    """
    count = int(counts.sum())
    if isinstance(values, Flat) and len(values) == count:
        return values
    if isinstance(values, str | bool | int | float):
        return Flat([values] * count)
    listed: list[Any] = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if len(listed) == len(counts) and all(isinstance(item, list | tuple | np.ndarray) for item in listed):
        for number, (item, expected) in enumerate(zip(listed, counts, strict=True)):
            if len(item) != expected:
                raise DataError(f"{counted(len(item), 'value')} of '{name}' for prompt {number}, which has {expected}.")
        return Flat(value for item in listed for value in item)
    if len(listed) != count:
        raise DataError(f"{counted(len(listed), 'value')} of '{name}' for {counted(count, 'response')}.")
    return Flat(listed)


def field_values(fields: Mapping[str, Any], counts: Int64[np.ndarray, " P"]) -> dict[str, list[Any]]:
    """The same by name; None means no field."""
    return {name: flat_values(name, values, counts) for name, values in fields.items() if values is not None}


def score_values(
    scores: Mapping[str, Any], counts: Int64[np.ndarray, " P"], texts: Sequence[Text]
) -> dict[str, Float64[np.ndarray, " n"]]:
    """Scores as arrays, nan for None.

    Raises:
        DataError: the wrong number of values, or an infinite one.
    """
    found: dict[str, np.ndarray] = {}
    for name, values in scores.items():
        given = [math.nan if value is None else value for value in flat_values(name, values, counts)]
        found[name] = np.array(given, dtype=np.float64)
        wrong = np.flatnonzero(np.isinf(found[name]))
        if len(wrong):
            raise DataError(
                f"The score '{name}' of response {wrong[0]} is infinite ({texts[wrong[0]]!r:.80}). Look at what scored "
                "it, or give nan for responses without a score."
            )
    return found


def column_values(columns: Mapping[str, Any], count: int) -> dict[str, list[Any]]:
    """Columns of the prompts as lists.

    Raises:
        DataError: different numbers of values and prompts.
    """
    lists: dict[str, list[Any]] = {
        name: values.tolist() if isinstance(values, np.ndarray) else list(values) for name, values in columns.items()
    }
    for name, values in lists.items():
        if len(values) != count:
            raise DataError(f"{counted(len(values), 'value')} of '{name}' for {counted(count, 'prompt')}.")
    return lists


def refuse_same_names(names: Sequence[str]) -> None:
    """Refuse a name used twice.

    Raises:
        DataError: the message has the name.
    """
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"The name '{twice[0]}' is used twice in responses. Give the score or column another one.")


def changed(before: Mapping[str, Any], given: Mapping[str, Any] | None, named: Mapping[str, Any]) -> dict[str, Any]:
    """Existing values updated by the given ones; None removes."""
    return {name: values for name, values in {**before, **(given or {}), **named}.items() if values is not None}


def joined(parts: Sequence[ResponseParts], *, merge: bool) -> ResponseParts:
    """See `Responses.concat`."""
    rows: dict[Any, list[tuple[int, int]]] = {}
    for number, part in enumerate(parts):
        for row, prompt in enumerate(part.prompts):
            rows.setdefault(prompt_key(prompt) if merge else (number, row), []).append((number, row))
    starts = [np.cumsum([0, *map(len, part.responses)]).tolist() for part in parts]
    places = [
        (number, place)
        for group in rows.values()
        for number, row in group
        for place in range(starts[number][row], starts[number][row + 1])
    ]
    scores, fields = (
        {
            name: Flat(of[number][name][place] if name in of[number] else missing for number, place in places)
            for name in dict.fromkeys(name for each in of for name in each)
        }
        for of, missing in (([part.scores for part in parts], math.nan), ([part.fields for part in parts], None))
    )
    columns = {
        name: [_shared(name, [(parts[number], row) for number, row in group]) for group in rows.values()]
        for name in dict.fromkeys(name for part in parts for name in part.columns)
    }
    return ResponseParts(
        [parts[group[0][0]].prompts[group[0][1]] for group in rows.values()],
        [[text for number, row in group for text in parts[number].responses[row]] for group in rows.values()],
        scores,
        fields,
        columns,
    )


def _shared(name: str, rows: Sequence[tuple[ResponseParts, int]]) -> Any:
    """The value of a prompt's column, which must be the same wherever the prompt occurs; None is not a value."""
    values = [part.columns[name][row] for part, row in rows if name in part.columns]
    known = [value for value in values if value is not None]
    other = next((value for value in known if value != known[0]), None)
    if other is not None:
        part, row = rows[0]
        raise DataError(
            f"The prompt {str(part.prompts[row])[:80]!r} has the {name} {known[0]!r} and {other!r}. Make them the "
            f"same, take the column away (with_columns({name}=None)), or keep the prompts apart (merge=False)."
        )
    return known[0] if known else None


def identical(texts: Sequence[Text], ends: Int64[np.ndarray, " P_plus_1"]) -> list[list[list[int]]]:
    """For each prompt the positions of its responses, identical ones grouped, in order of first occurrence."""
    found: list[list[list[int]]] = []
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        groups: dict[str, list[int]] = {}
        for place in range(start, end):
            groups.setdefault(prompt_key(texts[place]), []).append(place)
        found.append(list(groups.values()))
    return found


def summed_up(
    groups: Sequence[Sequence[Sequence[int]]], scores: Mapping[str, Any], count: Sequence[int | None]
) -> tuple[dict[str, list[float]], list[int]]:
    """Mean scores of identical responses, and their total count; each counts once if that is unknown."""
    flat = [places for of_prompt in groups for places in of_prompt]
    means = {name: [_mean(values[places]) for places in flat] for name, values in scores.items()}
    return means, [sum(1 if (times := count[place]) is None else times for place in places) for places in flat]


def _mean(values: Float64[np.ndarray, " k"]) -> float:
    """The mean of the known ones, nan if there are none; equal ones keep their exact value."""
    known = values[~np.isnan(values)]
    if not len(known):
        return math.nan
    return float(known[0] if (known == known[0]).all() else known.mean())
