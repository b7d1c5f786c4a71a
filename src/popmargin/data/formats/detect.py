"""Detecting the layout from the columns and first rows, and what a column of winners or strengths means."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from popmargin.data.formats import (
    hh_rlhf,
    hpd,
    implicit_prompt,
    pick_a_pic,
    preference,
    responses,
    signed_strength,
    single_responses,
    votes,
    winner,
)
from popmargin.data.formats.base import Format, Reader, Row
from popmargin.data.formats.columns import names_for, normal_name, unused_columns
from popmargin.data.formats.unlabelled import MARK, UNLABELLED
from popmargin.data.formats.winner import number_of
from popmargin.data.schema import COLUMNS
from popmargin.errors import DataError

FORMATS: dict[str, Format] = {
    module.ENTRY.name: module.ENTRY
    for module in (
        preference,
        implicit_prompt,
        hh_rlhf,
        responses,
        single_responses,
        signed_strength,
        winner,
        votes,
        pick_a_pic,
        hpd,
    )
}
SIGNED_NAMES = ("preference_strength", "overall_preference", "signed_strength")
"""Columns with a strength: their numbers do not say which response won."""


@dataclass(frozen=True)
class Meaning:
    """The detected meaning of a column of winners or strengths.

    Attributes:
        columns: our field -> the column.
        ends: the numbers that name the first and the second response.
        note: a sentence about it.
    """

    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    ends: tuple[float, float] | None = None
    note: str | None = None


def settle(
    rows: Sequence[Row], candidates: Mapping[str, Sequence[str]], given: Mapping[str, str], format_name: str
) -> Meaning:
    """Finds what says which of two responses is better: a name, a number for one, or a signed strength.

    A number is read as a winner if the response columns are numbered the same way, or the caller says so. It is read as
    signed (negative if the first is better) if both signs occur, or negative ones in a column named a strength.

    Args:
        rows: the first rows, at most some thousands.
        candidates: our field -> columns, of `resolve_names`.
        given: the caller's own names of columns.
        format_name: "auto", or the format that the caller named.

    Raises:
        DataError: the numbers could mean several things.
    """
    if not {"response_a", "response_b"} <= candidates.keys() or format_name not in ("auto", "winner"):
        return Meaning()
    for name, ends in (("prefers_first", (1.0, 0.0)), ("prefers_second", (0.0, 1.0))):
        if name in candidates:
            note = f"the column '{candidates[name][0]}' is read as the probability that the {name[8:]} is better"
            return Meaning({"winner": candidates[name][0]}, ends, note)
    name = "winner" if "winner" in candidates else "preference"
    if len(candidates.get(name, ())) != 1 or (name == "winner" and "preference" in candidates):
        return Meaning()  # none, or detection will ask which
    column = candidates[name][0]
    values = [value for row in rows if (value := row.get(column)) is not None]
    numbers = [number for value in values if (number := number_of(value)) is not None and math.isfinite(number)]
    if not values or len(numbers) < len(values) / 2:
        return Meaning({"winner": column}) if values else Meaning()
    said = name == "winner" and ("winner" in given or format_name == "winner")
    pair = [candidates[side][0] for side in ("response_a", "response_b")]
    boolean = any(isinstance(value, bool) or str(value).strip().lower() in ("true", "false") for value in values)
    if normal_name(column) not in SIGNED_NAMES or said or format_name == "winner":
        ends = None if boolean else _ends(numbers, pair, said=said or format_name == "winner")
        if ends is not None:
            note = f"{ends[0]:g} in the column '{column}' names {pair[0]} as the better one, {ends[1]:g} {pair[1]}"
            return Meaning({"winner": column}, ends, note)
    strength = normal_name(column) in SIGNED_NAMES
    if name == "preference" and min(numbers) < 0 and (max(numbers) > 0 or strength):
        return Meaning({}, None, f"the column '{column}' is read as signed: negative if {pair[0]} is better")
    raise DataError(_question(column, numbers, pair, boolean=boolean))


def _ends(numbers: Sequence[float], pair: Sequence[str], *, said: bool) -> tuple[float, float] | None:
    """The numbers for the first and the second response, if the column names number them or the caller says so."""
    counted = tuple(name[-1] for name in map(normal_name, pair))
    low, high = min(numbers), max(numbers)
    both = low < (math.floor(low) + 0.5) < high <= math.floor(low) + 1
    if low >= 0 and high <= 1:  # only such columns show whether 1 is the second response or means yes to the first
        return (0.0, 1.0) if counted == ("0", "1") and (said or both) else None
    if not 1 <= low <= high <= 2:
        return None
    clear = (counted == ("1", "2") and both) or set(numbers) == {1.0, 2.0}
    return (1.0, 2.0) if clear or said else None


def _question(column: str, numbers: Sequence[float], pair: Sequence[str], *, boolean: bool) -> str:
    low, high = min(numbers), max(numbers)
    held = "true and false" if boolean else f"numbers from {low:g} to {high:g}" if low < high else f"only {low:g}"
    remedies = [f"--format signed_strength, if they are strengths, negative if {pair[0]} is better"]
    if low >= 0 and high <= 1:
        remedies = [
            f"--column prefers_first={column}, if 1 says that {pair[0]} is better",
            f"--column prefers_second={column}, if 1 says that {pair[1]} is better",
        ] + ([] if boolean else remedies)
        if all(normal_name(name).endswith(digit) for name, digit in zip(pair, "01", strict=True)):
            remedies.insert(0, f"--column winner={column}, if 0 is {pair[0]} and 1 is {pair[1]}")
        elif low == high == 1 and not boolean:
            remedies.append("or, if 1 means the first of two, write a and b")
    elif low >= 1 and high <= 2:
        remedies.insert(0, f"--column winner={column}, if 1 is {pair[0]} and 2 is {pair[1]}")
    else:
        remedies.append("or convert them (for a scale with a midpoint, subtract the midpoint)")
    return (
        f"the column '{column}' holds {held}, which do not say which response is better. Remedy: say what they mean: "
        f"{'; '.join(remedies)}."
    )


def _fits(
    entry: Format, rows: Sequence[Mapping[str, Any]], reader: Reader, candidates: Mapping[str, list[str]]
) -> bool:
    return (
        all(name in candidates for name in entry.required)
        and not any(name in candidates for name in entry.absent)
        and (entry.fits is None or entry.fits(rows, reader))
    )


def detect_format(
    rows: Sequence[Mapping[str, Any]],
    found: Sequence[str],
    candidates: Mapping[str, list[str]],
    nested: Mapping[str, str] | None = None,
    *,
    unlabelled: bool = False,
) -> Format:
    """The one format that the columns and the first rows fit.

    Args:
        rows: the first rows.
        found: their columns.
        candidates: our field -> columns, of `resolve_names`.
        nested: the fields of each response that the caller named.
        unlabelled: also layouts of responses without labels.

    Raises:
        DataError: none or several fit, or a column could change what the rows mean; names the columns found and what
            each format expects.
    """
    reader = Reader({name: columns[0] for name, columns in candidates.items()}, nested=nested or {})
    if unlabelled:
        entry = next((entry for entry in UNLABELLED if _fits(entry, rows, reader, candidates)), None)
        if entry is not None and MARK in found:
            raise DataError(f"the data have a column '{MARK}', which popmargin adds to data without labels. Rename it.")
        if entry is not None:
            return entry
    fitting = [entry for entry in FORMATS.values() if _fits(entry, rows, reader, candidates)]
    if len(fitting) > 1 and set(COLUMNS) <= set(found):  # as `Preferences.save` writes them, with other columns
        fitting = [entry for entry in fitting if entry.name == "preference"] or fitting
    if len(fitting) == 1:
        entry = fitting[0]
        question = None
        if entry.doubt is not None:
            names = names_for(entry, found, candidates)
            question = entry.doubt(rows, reader, unused_columns(found, names))
        if question is not None:
            raise DataError(question)
        return entry
    columns = f"Columns found: {', '.join(found) or 'none'}."
    if fitting:
        names = " and ".join(f"'{entry.name}'" for entry in fitting)
        raise DataError(f"The columns fit the formats {names}. {columns} Remedy: name one with format= (--format).")
    expectations = "\n".join(f"  {entry.expects}" for entry in FORMATS.values())
    raise DataError(f"No known format fits. {columns} Expected one of:\n{expectations}\n{_hint(candidates)}")


def _hint(candidates: Mapping[str, Sequence[str]]) -> str:
    """The remedy if nothing fits, given the columns."""
    has = candidates.keys()
    if {"label_0", "label_1"} <= has and not {"image_0", "image_1"} <= has:
        return "Remedy: there are labels but no images; add these as jpg_0 and jpg_1 (addresses are not images)."
    if {"response_a", "response_b"} <= has:
        return (
            "Remedy: name the column that says which response is better, e.g. --column winner=… or preference=…. If "
            "nobody has said it yet, let people: popmargin label import DATA"
        )
    if "responses" in has or {"chosen", "rejected"} <= has:
        return "Remedy: name the prompt, e.g. columns={'prompt': 'question'} (--column prompt=question)."
    if {"prompt", "response"} <= has:
        return (
            f"Remedy: '{candidates['response'][0]}' has one response per row but nothing says how good it is; name "
            "the column that does (--column label=…), let people rate them (popmargin label import DATA), or give "
            "preferences: two responses to a prompt."
        )
    if "prompt" in has and "chosen" not in has:
        return (
            f"Remedy: '{candidates['prompt'][0]}' alone is not a preference; name the two responses, e.g. "
            "--column chosen=… --column rejected=…"
        )
    return "Remedy: rename columns, e.g. columns={'prompt': 'question'} (--column prompt=question)."
