"""Which column of a source is which of our fields."""

import re
from collections.abc import Mapping, Sequence

from popmargin.data.formats.base import Format
from popmargin.errors import DataError, did_you_mean

ALIASES: dict[str, tuple[str, ...]] = {
    "id": ("id", "pair_id", "uid"),
    "system": ("system", "system_prompt"),
    "prompt": ("prompt", "instruction", "question", "query", "context", "input", "conversations"),
    "prompt_input": (),
    "tools": ("tools", "functions"),
    "chosen": ("chosen", "chosen_response", "response_chosen", "preferred_output", "response_j"),
    "rejected": ("rejected", "rejected_response", "response_rejected", "non_preferred_output", "response_k"),
    "chosen_rating": ("chosen_rating", "rating_chosen", "chosen_score", "score_chosen"),
    "rejected_rating": ("rejected_rating", "rating_rejected", "rejected_score", "score_rejected"),
    "strength": ("strength",),
    "soft_label": ("soft_label",),
    "annotator": ("annotator", "annotator_id"),
    "cluster": ("cluster",),
    "weight": ("weight",),
    "margin": ("margin",),
    "responses": ("responses", "completions", "generations", "answers"),
    "ratings": ("ratings", "scores", "rating", "score"),
    "ranks": ("ranks", "rank", "rankings", "ranking"),
    "response": ("response", "completion", "output", "answer"),
    "label": ("label", "thumbs", "thumb", "thumbs_up", "feedback", "rating", "score", "rank", "ranking"),
    "response_a": (
        "response_a", "response_0", "response_1", "response1", "output_1", "output_a", "completion_a", "answer_a",
        "conversation_a",
    ),
    "response_b": (
        "response_b", "response_1", "response_2", "response2", "output_2", "output_b", "completion_b", "answer_b",
        "conversation_b",
    ),
    "model_a": ("model_a", "generator_1", "model_1"),
    "model_b": ("model_b", "generator_2", "model_2"),
    "preference": ("preference", "preference_strength", "overall_preference", "signed_strength"),
    "winner": ("winner", "preferred", "choice", "better_response_id"),
    "prefers_first": ("prefers_first",),
    "prefers_second": ("prefers_second",),
    "votes_a": ("votes_a", "winner_model_a"),
    "votes_b": ("votes_b", "winner_model_b"),
    "votes_equal": ("votes_equal", "votes_tie", "winner_tie"),
    "caption": ("caption", "prompt"),
    "image_0": ("image_0", "jpg_0"),
    "image_1": ("image_1", "jpg_1"),
    "label_0": ("label_0",),
    "label_1": ("label_1",),
    "has_label": ("has_label",),
    "image": ("image", "images", "image_path", "file_path"),
    "human_preference": ("human_preference",),
}  # fmt: skip
"""Our field -> its column names, in any case, with spaces or hyphens for underscores; our own name comes first."""

NESTED_FIELDS = ("text", "rating")
"""Fields of each rated response that can be named like columns."""


def normal_name(column: str) -> str:
    """A column's name, ignoring case, spaces and hyphens.

    Example:
        >>> normal_name(" Chosen-Rating")
        'chosen_rating'
    """
    return re.sub(r"[\s\-]+", "_", column.strip().strip("\ufeff").lower())


def ranks_by_name(column: str) -> bool:
    """Whether a column's name says that its numbers are ranks, with 1 the best."""
    return bool({"rank", "ranks", "ranking", "rankings"} & set(normal_name(column).split("_")))


def resolve_names(
    found: Sequence[str], columns: Mapping[str, str] | None
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Candidate columns for each of our fields, and renamed fields of nested responses.

    Raises:
        DataError: `columns` names an unknown field, a missing column, or ranks as ratings.
    """
    given, nested = _given(found, columns or {})
    candidates: dict[str, list[str]] = {}
    for name, aliases in ALIASES.items():
        hits = [column for alias in aliases for column in _called(alias, found)]
        own = _called(name, found)
        candidates[name] = [given[name]] if name in given else own or hits
    zero, one = _called("response_0", found), _called("response_1", found)
    for name, first in (("response_a", True), ("response_b", False)):  # counted from 0, response_1 is the second
        if name not in given and name not in found:
            others = [hit for hit in candidates[name] if hit not in (*zero, *one)]
            candidates[name] = (zero or one if first else one if zero else []) + others
    taken = set(given.values())
    for name, hits in candidates.items():  # a column assigned to one field belongs to no other
        if name not in given:
            candidates[name] = [hit for hit in hits if hit not in taken]
    _part_instruction(candidates, found, given)
    if not candidates["strength"]:  # a margin is a strength, too
        candidates["strength"] = candidates["margin"]
    return {name: hits for name, hits in candidates.items() if hits}, nested


def _given(found: Sequence[str], columns: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    given: dict[str, str] = {}
    nested: dict[str, str] = {}
    for name, column in columns.items():
        if name in ("ratings", "rating", "label") and ranks_by_name(column):
            raise DataError(
                f"columns: '{column}' given as the {name}: for ranks 1 is the best, for ratings the highest number. "
                f"Remedy: set columns={{'ranks': '{column}'}} (--column ranks={column}), or rename the column if "
                "higher is better."
            )
        if name in NESTED_FIELDS:
            nested[name] = column
            continue
        if name not in ALIASES:
            raise DataError(f"columns: '{name}' is not a field. {did_you_mean(name, [*ALIASES, *NESTED_FIELDS])}")
        called = _called(column, found)
        if len(called) != 1:
            raise DataError(f"columns: there is no column '{column}' for {name}. {did_you_mean(column, found)}")
        given[name] = called[0]
    return given, nested


def _called(name: str, found: Sequence[str]) -> list[str]:
    """The columns of that name: an exact match, otherwise all that match loosely."""
    return [name] if name in found else [column for column in found if normal_name(column) == normal_name(name)]


def _part_instruction(candidates: dict[str, list[str]], found: Sequence[str], given: Mapping[str, str]) -> None:
    """Alpaca's two columns: `input` belongs to `instruction`, and is not a prompt by itself."""
    hits = candidates["prompt"]
    inputs = [column for column in _called("input", found) if column not in given.values()]
    if inputs and "prompt_input" not in given and hits and normal_name(hits[0]) == "instruction":
        others = [hit for hit in hits[1:] if hit not in inputs]
        candidates["prompt"], candidates["prompt_input"] = [hits[0], *others], inputs


def names_for(entry: Format, found: Sequence[str], candidates: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """One column for each field that the format reads.

    Raises:
        DataError: a required column is missing, or two columns could be the same field.
    """
    missing = [name for name in entry.required if name not in candidates]
    if missing:
        raise DataError(
            f"format {entry.expects}; missing: {', '.join(missing)}. Columns found: {', '.join(found) or 'none'}. "
            f"Remedy: name the column, e.g. columns={{'{missing[0]}': …}} (--column {missing[0]}=…)."
        )
    wanted = [name for name in (*entry.required, *entry.optional) if name in candidates]
    for name in wanted:
        if len(candidates[name]) > 1:
            raise DataError(
                f"the columns {' and '.join(candidates[name])} could each be the {name}. "
                f"Remedy: name one, e.g. columns={{'{name}': '{candidates[name][0]}'}} "
                f"(--column {name}={candidates[name][0]})."
            )
    return {name: candidates[name][0] for name in wanted}


def unused_columns(found: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """Columns of the source that the format does not read."""
    return tuple(column for column in found if column not in names.values())
