"""Potato: annotated instances of each user (JSONL, CSV, TSV), or a user's state."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from popmargin.label.outside.outside_label import LeftOut, OutsideLabel, Rows, ids_of, texts_of

_STATE = "instance_id_to_label_to_value"
_MARK = ":::"
_TIME = re.compile(r"(?:(\d+)d)?\s*(?:(\d+)h)?\s*(?:(\d+)m)?\s*(\d+(?:\.\d+)?)s")
_NO = (None, False, "", "false", "False")


def read(rows: Rows, question: str | None, columns: Mapping[str, str]) -> Iterator[OutsideLabel | LeftOut]:
    """See `Parser`.

    `label_annotations` has schema -> label -> value, a table columns `SCHEMA:::LABEL`, and a state
    `instance_id_to_label_to_value`. A line without a user is its folder's, which the caller names (`user`).
    """
    for place, row in rows:
        if _STATE in row:
            times: Mapping[str, Any] = row.get("instance_id_to_behavioral_data") or {}
            for key, held in cast(Mapping[str, Any], row[_STATE]).items():
                where = f"{place}, instance {key}"
                yield _label(where, row.get("user_id"), (key,), _of_state(held), times.get(key), {}, question)
            continue
        held: Any = row.get("label_annotations")
        if held is None:
            held = _of_cells(row)
        user = next((row[name] for name in ("user", "user_id", "username") if row.get(name) is not None), None)
        ids = ids_of(row.get(columns.get("id", "instance_id")), row.get("id"))
        texts = texts_of(row, columns)
        yield _label(place, user, ids, held, row.get("behavioral_data"), texts, question)


def _label(
    place: str,
    user: Any,
    ids: tuple[str, ...],
    schemas: Mapping[str, Mapping[str, Any]],
    behaviour: Any,
    texts: Mapping[str, Any],
    question: str | None,
) -> OutsideLabel | LeftOut:
    given = {name: marked for name, values in schemas.items() if (marked := _marked(values))}
    if question is not None:
        given = {name: marked for name, marked in given.items() if name == question}
    if not given:
        asked = f" to '{question}'" if question else ""
        return LeftOut(place=place, reason="no answer", message=f"it has no answer{asked}.", remedy="nothing.")
    if len(given) > 1:
        message, name = f"it answers {', '.join(given)}.", next(iter(given))
        return LeftOut(
            place=place,
            reason="several questions",
            message=message,
            remedy=f"name the one to import: --question {name}.",
        )
    ((name, marked),) = given.items()
    if len(marked) > 1:
        words = ", ".join(str(label) for label, _ in marked)
        return LeftOut(
            place=place,
            reason="several answers",
            message=f"'{name}' has several answers ({words}).",
            remedy="keep one of them.",
        )
    facts = cast(Mapping[str, Any], behaviour) if isinstance(behaviour, Mapping) else {}
    return OutsideLabel(
        place=place,
        annotator=None if user is None else str(user),
        values=marked[0],
        ids=ids,
        texts=texts,
        at=facts.get("timestamp") or facts.get("time"),
        seconds=_seconds(facts),
    )


def _marked(values: Any) -> list[tuple[Any, Any]]:
    """What is marked: a label and its value, such as ("a", "true") or ("quality", "4")."""
    if not isinstance(values, Mapping):
        return [] if values in _NO else [(values, values)]
    return [(label, value) for label, value in cast(Mapping[str, Any], values).items() if value not in _NO]


def _of_cells(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for column, value in row.items():
        schema, mark, label = column.partition(_MARK)
        if mark and schema != "span_annotation":
            found.setdefault(schema, {})[label] = value
    return found


def _of_state(held: Any) -> dict[str, dict[str, Any]]:
    if isinstance(held, Mapping):
        return cast(dict[str, dict[str, Any]], held)
    found: dict[str, dict[str, Any]] = {}
    for label, value in cast(list[tuple[Mapping[str, Any], Any]], held):
        found.setdefault(str(label.get("schema")), {})[str(label.get("name"))] = value
    return found


def _seconds(facts: Mapping[str, Any]) -> float | None:
    """Time spent, such as "Time spent: 0d 0h 1m 5s".

    Example:
        >>> _seconds({"time_string": "Time spent: 0d 0h 1m 5s "}), _seconds({"time_spent": 12.5}), _seconds({})
        (65.0, 12.5, None)
    """
    spent = facts.get("time_spent")
    if isinstance(spent, int | float):
        return float(spent)
    found = _TIME.search(str(facts.get("time_string") or ""))
    if found is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
