"""Label Studio: tasks with annotations (JSON), or one annotation a row (JSON-MIN, CSV)."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from popmargin.label.outside.outside_label import LeftOut, OutsideLabel, Rows, ids_of, texts_of

_OWN = ("id", "annotation_id", "annotator", "created_at", "updated_at", "lead_time", "agreement", "source")
_ID_NAMES = ("id", "pair_id", "item_id", "preference_id")
_CHOSEN = ("choices", "selected", "rating", "number")


def read(rows: Rows, question: str | None, columns: Mapping[str, str]) -> Iterator[OutsideLabel | LeftOut]:
    """See `Parser`.

    An answer is what a `Choices`, `Pairwise`, `Rating` or `Number` control has: `from_name` is its question.
    """
    for place, row in rows:
        if isinstance(row.get("annotations"), list):
            yield from _task(place, row, question, columns)
        else:
            yield _flat(place, row, question, columns)


def _task(
    place: str, row: Mapping[str, Any], question: str | None, columns: Mapping[str, str]
) -> Iterator[OutsideLabel | LeftOut]:
    data: Mapping[str, Any] = row.get("data") or {}
    ids = ids_of(*(data.get(name) for name in ([columns["id"]] if "id" in columns else _ID_NAMES)))
    annotations = cast(list[Mapping[str, Any]], row["annotations"])
    if not annotations:
        yield LeftOut(
            place=place, reason="no answer", message="the task has no annotation.", remedy="nothing, if nobody did it."
        )
    for number, annotation in enumerate(annotations, 1):
        where = f"{place}, annotation {number}"
        results = [one for one in annotation.get("result") or [] if _value(one) is not None]
        names = list(dict.fromkeys(one.get("from_name") for one in results))
        asked = [one for one in results if question is None or one.get("from_name") == question]
        if annotation.get("was_cancelled"):
            yield LeftOut(place=where, reason="skipped", message="the task was skipped.", remedy="nothing.")
        elif not asked:
            yield LeftOut(
                place=where,
                reason="no answer",
                message="it has no choice, rating or number" + (f" of '{question}'." if question else "."),
                remedy=f"name another question with --question: {', '.join(map(str, names))}." if names else "nothing.",
            )
        elif question is None and len(names) > 1:
            yield LeftOut(
                place=where,
                reason="several questions",
                message=f"it answers {', '.join(map(str, names))}.",
                remedy=f"name the one to import: --question {names[0]}.",
            )
        else:
            who: Any = annotation.get("completed_by")
            if isinstance(who, Mapping):
                person = cast(Mapping[str, Any], who)
                who = person.get("email") or person.get("username") or person.get("id")
            notes = [str(text) for one in annotation.get("result") or [] for text in _notes(one)]
            yield OutsideLabel(
                place=where,
                annotator=_named(who),
                values=(_value(asked[0]),),
                ids=ids,
                texts=texts_of(data, columns),
                at=annotation.get("updated_at") or annotation.get("created_at"),
                seconds=annotation.get("lead_time"),
                note="\n".join(notes),
            )


def _flat(
    place: str, row: Mapping[str, Any], question: str | None, columns: Mapping[str, str]
) -> OutsideLabel | LeftOut:
    texts = texts_of(row, columns)
    used = {*_OWN, *_ID_NAMES, *columns.values()}
    others = [name for name, value in row.items() if name not in used and value not in texts.values()]
    name = question or columns.get("label") or ("choice" if "choice" in row else None)
    if name is None and len(others) != 1:
        return LeftOut(
            place=place,
            reason="several questions",
            message="it is not clear which column is the answer.",
            remedy=f"name it with --question: {', '.join(others)}.",
        )
    value = row.get(name or others[0])
    if value is None or value == "":
        return LeftOut(place=place, reason="no answer", message="it has no answer.", remedy="nothing.")
    own_ids = [row.get(key) for key in ([columns["id"]] if "id" in columns else _ID_NAMES)]
    return OutsideLabel(
        place=place,
        annotator=_named(row.get("annotator")),
        values=(_of_cell(value),),
        ids=ids_of(*own_ids),
        texts=texts,
        at=row.get("updated_at") or row.get("created_at"),
        seconds=row.get("lead_time"),
    )


def _of_cell(value: Any) -> Any:
    """A choice in a cell: a word, or what a control holds, as an object or its JSON."""
    if isinstance(value, str) and value[:1] in "[{":
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if isinstance(value, list):
        held = cast(list[Any], value)
        value = held[0] if len(held) == 1 else value
    if isinstance(value, Mapping):
        return _value({"value": value})
    return value


def _value(result: Mapping[str, Any]) -> Any:
    value: Mapping[str, Any] = result.get("value") or {}
    held = next((value[name] for name in _CHOSEN if name in value), None)
    if isinstance(held, list):
        choices = cast(list[Any], held)
        return choices[0] if len(choices) == 1 else None
    return held


def _notes(result: Mapping[str, Any]) -> list[Any]:
    text = (result.get("value") or {}).get("text")
    return cast(list[Any], text) if isinstance(text, list) else [text] if text else []


def _named(who: Any) -> str | None:
    """A person's name; Label Studio's numbers say that they are its."""
    if who is None or who == "":
        return None
    return f"label-studio-{who}" if str(who).isdigit() else str(who)
