"""Responses from files and memory: one row per prompt, or one row per response."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from popmargin.data.conversation import Text, prompt_of_key
from popmargin.data.formats import ALIASES, resolve_names
from popmargin.data.formats.columns import ranks_by_name
from popmargin.data.formats.responses import TEXT_FIELDS, items_of
from popmargin.data.locate import open_source
from popmargin.data.messages import as_text, as_values
from popmargin.data.response_parts import Flat, ResponseParts
from popmargin.data.responses_table import is_ours, of_table
from popmargin.data.sources import Source
from popmargin.data.validate import RowError
from popmargin.errors import DataError

Row = Mapping[str, Any]
_OF_RESPONSES = ("finished", "tokens", "source", "round", "token_ids", "token_logps", "generator")
"""What is known of each response, even if it is the same for all those of a prompt."""


def read_responses(
    source: str | Path | list[dict[str, Any]], *, split: str | None = None, columns: Mapping[str, str] | None = None
) -> ResponseParts:
    """See `Responses.load`."""
    opened, rows, places, tables = raw_rows(source, split=split)
    if not columns and tables and all(table is not None and is_ours(table) for table in tables):
        with suppress(pa.ArrowInvalid):  # files that hold different things
            return of_table(pa.concat_tables(tables))
    found = list(dict.fromkeys(column for row in rows for column in row))
    candidates, nested = resolve_names(found, columns)
    prompt = candidates.get("prompt", [])
    several, single = candidates.get("responses", []), candidates.get("response", [])
    if not prompt or not (several or single):
        raise DataError(
            f"{opened.name}: no prompt with responses found. Columns: {', '.join(found) or 'none'}. Remedy: name them, "
            "e.g. columns={'prompt': 'question', 'responses': 'answers'}; 'response' where a row holds one."
        )
    if several:
        return _wide(rows, places, prompt[0], several[0], candidates, nested.get("text"))
    return _flat(rows, places, prompt[0], single[0])


def holds_responses(
    source: str | Path | list[dict[str, Any]], *, split: str | None = None, columns: Mapping[str, str] | None = None
) -> bool:
    """Whether the columns of a source are those of responses to prompts, and not those of preferences.

    Raises:
        DataError: it cannot be read, or has no column of a given name.

    Example:
        >>> holds_responses([{"prompt": "2+2?", "responses": ["4", "5"]}])
        True
        >>> holds_responses([{"prompt": "2+2?", "chosen": "4", "rejected": "5"}])
        False
    """
    for batch in open_source(source, split=split).batches():
        candidates, _ = resolve_names(batch.names(), columns)
        sides = {"chosen", "rejected", "response_a", "response_b"} & candidates.keys()
        return "prompt" in candidates and not sides and bool({"responses", "response"} & candidates.keys())
    return False


def raw_rows(
    source: str | Path | list[dict[str, Any]], *, split: str | None
) -> tuple[Source, list[Row], list[str], list[Any]]:
    """All rows of a source as they are, the place of each for messages, and the table (or None) of each batch.

    Raises:
        DataError: unreadable, or a row that is none.
    """
    opened = open_source(source, split=split)
    rows: list[Row] = []
    places: list[str] = []
    tables: list[Any] = []
    for batch in opened.batches():
        tables.append(batch.table)
        name = (batch.source or opened).name
        if batch.broken:
            position, error = batch.broken[0]
            raise DataError(f"{name}:{position}: {error} Remedy: {error.remedy}")
        read = batch.read()
        rows += _with_numbers(read) if (batch.source or opened).text_cells else read
        by_line = (batch.source or opened).by_line
        places += [f"{name}:{at}" if by_line else f"{name}, row {at} (from 0)" for at in batch.positions]
    return opened, rows, places, tables


def _with_numbers(rows: Sequence[dict[str, Any]]) -> list[Row]:
    """Rows of texts, with all-numeric columns as numbers."""

    def number(text: str | None) -> float | None:
        return None if text is None else float(text)

    columns = {name: [row.get(name) for row in rows] for row in rows[:1] for name in row}
    for name, values in columns.items():
        with suppress(ValueError):
            columns[name] = [number(value) for value in values]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _text(value: Any, name: str, place: str) -> Text:
    try:
        return as_text(value, name, Counter())
    except RowError as error:
        raise DataError(f"{place}, column '{name}': {error} Remedy: {error.remedy}") from error


def _wide(
    rows: Sequence[Row],
    places: Sequence[str],
    prompt: str,
    column: str,
    found: Mapping[str, list[str]],
    text: str | None,
) -> ResponseParts:
    beside = [name for field in ("ratings", "ranks") for name in found.get(field, [])]
    texts: list[list[Text]] = []
    fields: list[Row] = []
    for row, place in zip(rows, places, strict=True):
        try:
            items = items_of(as_values(row.get(column)))
        except RowError as error:
            raise DataError(f"{place}, column '{column}': {error} Remedy: {error.remedy}") from error
        of_prompt: list[Text] = []
        lists: dict[str, Any] = {name: as_values(row.get(name)) for name in beside}
        for number, item in enumerate(items):
            known = dict(cast(Row, item)) if isinstance(item, Mapping) else {"text": item}
            name = text or next((name for name in TEXT_FIELDS if name in known), "text")
            of_prompt.append(_text(known.pop(name, None), f"{name} of response {number}", place))
            known |= {name: values[number] for name, values in lists.items() if _as_many(values, items)}
            fields.append(known)
        texts.append(of_prompt)
    used = {prompt, column, *(name for name in beside if all(_is_list(row.get(name)) for row in rows))}
    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(k for row in rows for k in row)}
    prompts = [_text(row.get(prompt), prompt, place) for row, place in zip(rows, places, strict=True)]
    return _made(prompts, texts, fields, {name: values for name, values in columns.items() if name not in used})


def _is_list(value: Any) -> bool:
    return isinstance(as_values(value), list)


def _as_many(values: Any, items: Sequence[Any]) -> bool:
    return isinstance(values, list) and len(cast(list[Any], values)) == len(items)


def _flat(rows: Sequence[Row], places: Sequence[str], prompt: str, response: str) -> ResponseParts:
    groups: list[list[int]] = []
    last: Any = object()
    for number, row in enumerate(rows):
        key = row.get("prompt_key", row.get(prompt))
        if key != last:
            groups.append([])
        groups[-1].append(number)
        last = key
    names = [
        name for name in dict.fromkeys(k for row in rows for k in row) if name not in (prompt, response, "prompt_key")
    ]
    shared = [
        name
        for name in names
        if name not in _OF_RESPONSES
        and not _is_score(name, [row.get(name) for row in rows])
        and all(rows[number].get(name) == rows[group[0]].get(name) for group in groups for number in group)
    ]
    own = [name for name in names if name not in shared]
    drawn = bool(rows) and "prompt_key" in rows[0]  # a run's generations, as they were written before: texts
    renamed = {"length": "tokens"} if drawn else {}
    renamed |= {} if "source" in names else {"generator": "source"}  # AlpacaEval's outputs
    texts = [
        row[response] if drawn else _text(row.get(response), response, at) for row, at in zip(rows, places, strict=True)
    ]
    return _made(
        [_prompt(rows[group[0]], prompt, places[group[0]]) for group in groups],
        [[texts[number] for number in group] for group in groups],
        [{renamed.get(name, name): row.get(name) for name in own} for row in rows],
        {name: [rows[group[0]].get(name) for group in groups] for name in shared},
    )


def _prompt(row: Row, column: str, place: str) -> Text:
    """The prompt, taken from its key if that has messages that the column shows only as text."""
    key = row.get("prompt_key")
    if key is None:
        return _text(row.get(column), column, place)
    if key == row.get(column):
        return key
    return cast(Text, prompt_of_key(key))


def _is_score(name: str, values: Sequence[Any]) -> bool:
    """Whether values are quantities, not identifiers."""
    if name in (*_OF_RESPONSES, *ALIASES["id"], *ALIASES["annotator"], "cluster"):
        return False
    known = [value for value in values if not _missing(value)]
    return bool(known) and all(
        isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in known
    )


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _made(
    prompts: list[Text], texts: list[list[Text]], fields: Sequence[Row], columns: Mapping[str, list[Any]]
) -> ResponseParts:
    """Numbers per response are scores, except those with a special name."""
    names = list(dict.fromkeys(name for row in fields for name in row))
    scores: dict[str, list[float]] = {}
    others: dict[str, list[Any]] = {}
    for name in names:
        values = [row.get(name) for row in fields]
        if not _is_score(name, values):
            if not all(map(_missing, values)):
                others[name] = Flat(values)
        else:
            score = [math.nan if value is None else float(value) for value in values]
            scores["rating" if ranks_by_name(name) else name] = (
                [-value for value in score] if ranks_by_name(name) else score
            )
    return ResponseParts(prompts, texts, scores, others, columns)
