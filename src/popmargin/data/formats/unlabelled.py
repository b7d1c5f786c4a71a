"""Responses that nobody has compared or rated yet: to be labelled, never to be trained on.

They are read only where the caller asks for it. Each pair becomes a preference in an arbitrary order, which its column
`MARK` says; a lone response becomes one without a second response.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from popmargin.data.conversation import Text, prompt_key
from popmargin.data.formats.base import Format, Reader, Row
from popmargin.data.formats.image_cells import is_stored
from popmargin.data.formats.responses import RATING_FIELDS, TEXT_FIELDS, items_of
from popmargin.data.pairs import UnratedPairing, unrated_pairs
from popmargin.data.validate import Draft, RowError
from popmargin.errors import counted

MARK = "unlabelled"
"""The column that is true for preferences whose order is no label."""
_VERDICTS = ("winner", "preference", "prefers_first", "prefers_second", "votes_a", "votes_b", "votes_equal", "label")
_MODELS = {"model_a": "chosen_model", "model_b": "rejected_model"}


def _pair(row: Row, reader: Reader) -> list[Draft | RowError]:
    """Two responses, with the models that gave them if the columns say so."""
    prompt, first, second = reader.compared(row)
    models = {_MODELS[name]: reader.value(row, name) for name in _MODELS if name in reader.names}
    reader.asked.update(prompts=1, responses=2, pairs=1)
    return [_draft(reader, row, prompt, first, second, models)]


def _several(row: Row, reader: Reader) -> list[Draft | RowError]:
    """A list of responses: texts, or objects with a text."""
    fields = [
        cast(Mapping[str, Any], item) if isinstance(item, Mapping) and not is_stored(item) else {"text": item}
        for item in items_of(reader.values(row, "responses"))
    ]
    texts: list[Text] = []
    for number, of_one in enumerate(fields):
        name = reader.nested.get("text") or next((name for name in TEXT_FIELDS if name in of_one), None)
        value = of_one.get("image") if name is None else of_one.get(name)
        if value is None:
            message = f"response {number} has no text."
            raise RowError("missing", message, "add it, or remove the response.", column="responses")
        texts.append(reader.response(value, of_one, f"text of response {number}"))
    if not texts:
        raise RowError("too_few", "the row has no response.", "add some, or remove the row.", column="responses")
    return _paired(row, reader, reader.prompt(row), texts)


def _grouped(row: Row, reader: Reader) -> list[Draft | RowError]:
    """The responses to a prompt, of as many rows."""
    drafts = _paired(row, reader, row["prompt"], row["responses"])
    for draft in drafts:
        if not isinstance(draft, RowError):
            ids = [row["ids"][place] for place in draft["pair"]]
            draft["id"] = None if None in ids else "/".join(ids)
    return drafts


def _paired(row: Row, reader: Reader, prompt: Text, texts: Sequence[Text]) -> list[Draft | RowError]:
    places: dict[str, int] = {}
    for place, text in enumerate(texts):
        places.setdefault(str(text), place)
    distinct = list(places.values())
    if len(distinct) < len(texts):
        reader.notes["responses that repeat another one to their prompt are asked about once"] += len(texts) - len(
            distinct
        )
    reader.asked.update(prompts=1, responses=len(distinct))
    if len(distinct) == 1:
        reader.asked["alone"] += 1
        return [_draft(reader, row, prompt, texts[0], None, {}) | {"pair": (distinct[0],)}]
    how = cast(UnratedPairing, reader.unlabelled)
    pairs = unrated_pairs(
        len(distinct), pairs=how, per_prompt=reader.per_prompt, seed=reader.seed, key=prompt_key(prompt)
    )
    reader.asked["pairs"] += len(pairs)
    drafts: list[Draft | RowError] = []
    for one, other in pairs:
        first, second = distinct[one], distinct[other]
        draft = _draft(reader, row, prompt, texts[first], texts[second], {}) | {"pair": (first, second)}
        if draft["id"] is not None and len(pairs) > 1:
            draft["id"] = f"{draft['id']}/{first}-{second}"
        drafts.append(draft)
    return drafts


def _draft(
    reader: Reader, row: Row, prompt: Text, first: Text, second: Text | None, fields: Mapping[str, Any]
) -> Draft:
    if second is None and reader.image_fields:
        message = "the prompt has a single image."
        remedy = "add another image to compare it with; single texts can be rated, single images not yet."
        raise RowError("too_few", message, remedy, column="response")
    draft = reader.draft(row, prompt, first, first if second is None else second)
    if second is None:
        draft["rejected"] = None
    return draft | {"alone": second is None, "fields": {MARK: True, **fields}}


def _single(row: Row, reader: Reader) -> tuple[Text, Text, float]:
    return reader.prompt(row), reader.text(row, "response"), 0.0


def _unrated(rows: Sequence[Row], reader: Reader) -> bool:
    """Whether no response in a list carries a rating."""
    known = (reader.nested["rating"],) if "rating" in reader.nested else RATING_FIELDS
    for row in rows:
        try:
            items = items_of(reader.values(row, "responses"))
        except RowError:
            continue
        if any(isinstance(item, Mapping) and set(known) & item.keys() for item in items):
            return False
    return True


def told(reader: Reader) -> str | None:
    """What was made of the responses; None if they were labelled."""
    asked = reader.asked
    if not asked:
        return None
    ways = {"ring": "in a ring", "all": "all pairs", "random": f"{reader.per_prompt} random a prompt"}
    way = "" if asked["pairs"] + asked["alone"] == asked["prompts"] else f" ({ways[cast(str, reader.unlabelled)]})"
    alone = f", {counted(asked['alone'], 'prompt')} with a single response" if asked["alone"] else ""
    return (
        f"nobody has labelled these: {counted(asked['responses'], 'response')} to "
        f"{counted(asked['prompts'], 'prompt')}, {counted(asked['pairs'], 'pair')}{way}{alone}"
    )


_COMMON = ("id", "annotator", "cluster", "weight", "system", "prompt_input", "tools")
_LABELLED = ("chosen", "rejected", *_VERDICTS)
UNLABELLED: tuple[Format, ...] = (
    Format(
        "unlabelled pairs",
        "a prompt and two responses",
        ("response_a", "response_b"),
        _pair,
        optional=("prompt", *_MODELS, *_COMMON),
        absent=_LABELLED,
    ),
    Format(
        "unlabelled responses",
        "a prompt and several responses",
        ("prompt", "responses"),
        _several,
        optional=_COMMON,
        absent=(*_LABELLED, "ratings", "ranks", "response_a", "response_b"),
        fits=_unrated,
    ),
    Format(
        "unlabelled single responses",
        "a prompt and one response",
        ("prompt", "response"),
        _grouped,
        optional=_COMMON,
        absent=(*_LABELLED, "ratings", "ranks", "responses", "response_a", "response_b"),
        single=_single,
    ),
)
"""Layouts of responses without labels; `MARK` and the models' names become columns."""


def columns_added(entry: Format, candidates: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """The columns that a layout adds: the mark, and whose responses they are; none unless it is one of `UNLABELLED`."""
    if entry not in UNLABELLED:
        return []
    return [MARK, *(column for name, column in _MODELS.items() if name in (candidates or {}))]
