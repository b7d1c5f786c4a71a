"""Argilla: records with responses, as its client writes them (2.x), as its server has them (1.x, API), or flattened."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from popmargin.label.outside.outside_label import LeftOut, OutsideLabel, Rows, ids_of, texts_of

_FLAT = ".responses"
_OTHER_IDS = ("id", "pair_id", "item_id", "preference_id")


def read(rows: Rows, question: str | None, columns: Mapping[str, str]) -> Iterator[OutsideLabel | LeftOut]:
    """See `Parser`.

    A record has `fields` and `responses`: question -> list of value and user_id; or a list of user_id, status and
    values (question -> value). Flattened, a column `NAME.responses` is beside `NAME.responses.users`. Argilla's client
    writes no times; the server's responses have `inserted_at` and `updated_at`.
    """
    for place, row in rows:
        answers = list(_answers(row, question))
        if not answers:
            yield LeftOut(
                place=place,
                reason="no answer",
                message="the record has no response" + (f" to '{question}'." if question else "."),
                remedy="nothing, if nobody has answered it.",
            )
        metadata: Mapping[str, Any] = row.get("metadata") or {}
        given = [metadata.get(columns.get("id", name)) for name in _OTHER_IDS]
        ids = ids_of(row.get(columns.get("id", "external_id")), row.get("id"), *given)
        texts = texts_of(row.get("fields") or row, columns)
        for number, (user, status, name, value, at) in enumerate(answers, 1):
            where = f"{place}, response {number}"
            if status not in (None, "submitted"):
                yield LeftOut(
                    place=where, reason=status, message=f"the response is {status}, not submitted.", remedy="submit it."
                )
            elif name is None:
                yield LeftOut(
                    place=where,
                    reason="several questions",
                    message=f"the record asks {', '.join(value)}.",
                    remedy=f"name the one to import: --question {value[0]}.",
                )
            elif value is None:
                message = f"the response does not answer '{name}'."
                yield LeftOut(place=where, reason="no answer", message=message, remedy="nothing.")
            else:
                yield OutsideLabel(
                    place=where,
                    annotator=None if user is None else str(user),
                    values=_values(value),
                    ids=ids,
                    texts=texts,
                    at=at,
                )


def _answers(row: Mapping[str, Any], question: str | None) -> Iterator[tuple[Any, Any, str | None, Any, Any]]:
    """User, status, question, value and time of each; without a question, the value is the names of several."""
    responses: Any = row.get("responses")
    if isinstance(responses, Mapping):
        of_all = cast(Mapping[str, list[Mapping[str, Any]]], responses)
        name = _only(of_all, question)
        for answer in of_all.get(name or next(iter(of_all), ""), []) or []:
            user, status = answer.get("user_id"), answer.get("status")
            yield user, status, name, answer.get("value") if name else list(of_all), answer.get("updated_at")
    elif isinstance(responses, Sequence) and not isinstance(responses, str):
        for response in cast(Sequence[Mapping[str, Any]], responses):
            values: Mapping[str, Any] = response.get("values") or {}
            name = _only(values, question)
            at = response.get("updated_at") or response.get("inserted_at")
            held: Any = values.get(name) if name else list(values)
            value: Any = cast(Mapping[str, Any], held).get("value") if isinstance(held, Mapping) else held
            if name is None and question is not None:
                name, value = question, None
            yield response.get("user_id"), response.get("status"), name, value, at
    else:
        asked = [name.removesuffix(_FLAT) for name in row if name.endswith(_FLAT) and row[name]]
        name = _only(dict.fromkeys(asked), question)
        named = name or (asked[0] if asked and question is None else None)
        if named is None:
            return
        values = list(row[f"{named}{_FLAT}"])
        users = list(row.get(f"{named}{_FLAT}.users") or [None] * len(values))
        states = list(row.get(f"{named}{_FLAT}.status") or [None] * len(values))
        for value, user, status in zip(values, users, states, strict=False):
            yield user, status, name, value if name else asked, None


def _only(asked: Mapping[str, Any], question: str | None) -> str | None:
    if question is not None:
        return question if question in asked else None
    return next(iter(asked)) if len(asked) == 1 else None


def _values(value: Any) -> tuple[Any, ...]:
    """The answer; of a ranking the one with the best rank, or "tie"."""
    if isinstance(value, list) and value:
        places = cast(list[Any], value)
        if all(isinstance(place, Mapping) for place in places):
            best = min(place.get("rank") or 0 for place in places)
            first = [place.get("value") for place in places if (place.get("rank") or 0) == best]
            return (first[0] if len(first) == 1 else "tie",)
        return (places[0],)
    return (value,)
