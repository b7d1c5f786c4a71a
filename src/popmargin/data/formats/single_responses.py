"""One response per row, with a thumb, a rating or a rank; the responses to a prompt become pairs."""

from typing import Any

import numpy as np

from popmargin.data.conversation import Text
from popmargin.data.formats.base import Format, Reader, Row, as_number, finite
from popmargin.data.formats.columns import ranks_by_name
from popmargin.data.formats.responses import RANK_NOTE, from_rank, paired
from popmargin.data.validate import Draft, RowError

UP = ("true", "yes", "up", "thumbs up", "thumb up", "👍", "good", "like", "liked", "positive", "upvote", "desirable")
DOWN = ("false", "no", "down", "thumbs down", "thumb down", "👎", "bad", "dislike", "disliked", "negative", "downvote",
        "undesirable")  # fmt: skip


def _single(row: Row, reader: Reader) -> tuple[Text, Text, float]:
    prompt, response, value = reader.prompt(row), reader.text(row, "response"), reader.value(row, "label")
    if ranks_by_name(reader.names["label"]):
        reader.notes[RANK_NOTE] += 1
        return prompt, response, from_rank(reader.required_number(row, "label"), "label")
    thumb = _thumb(value)
    if thumb is not None:
        reader.notes["thumbs up became the rating 1, thumbs down 0"] += 1
        return prompt, response, thumb
    if isinstance(value, str) and not reader.text_cells:
        message = f"the label is {value[:40]!r}, neither a number nor a thumb."
        raise RowError("type", message, f"write true or false, or one of {', '.join(UP)}.", column="label")
    return prompt, response, finite(as_number(value, "label", text_cells=reader.text_cells), "label", "label")


def _thumb(value: Any) -> float | None:
    if isinstance(value, bool | np.bool_):
        return float(value)
    if not isinstance(value, str):
        return None
    word = " ".join(value.lower().replace("_", " ").replace("-", " ").split())
    return 1.0 if word in UP else 0.0 if word in DOWN else None


def _read(row: Row, reader: Reader) -> list[Draft | RowError]:
    """All responses to one prompt; identical texts get their mean rating."""
    rated: dict[str, tuple[Text, list[float]]] = {}
    numbers: list[int] = []
    for number, (text, rating) in enumerate(zip(row["responses"], row["ratings"], strict=True)):
        numbers += [] if str(text) in rated else [number]
        rated.setdefault(str(text), (text, []))[1].append(rating)
    if len(rated) < 2:
        message = "the prompt has one response; a pair needs two."
        raise RowError("too_few", message, "nothing: it compares nothing.", column="response", fatal=False)
    if len(rated) < len(row["responses"]):
        reader.notes["responses rated several times get their mean rating"] += 1
    texts = [text for text, _ in rated.values()]
    ratings = [sum(ratings) / len(ratings) for _, ratings in rated.values()]
    drafts = paired(row, reader, row["prompt"], texts, ratings)
    for draft in drafts:
        if not isinstance(draft, RowError):
            draft["pair"] = [numbers[place] for place in draft["pair"]]
    return drafts


ENTRY = Format(
    "single_responses",
    "one response per row with a label: a thumb (true or false, up or down), a rating (higher is better) or a rank",
    ("prompt", "response", "label"),
    _read,
    optional=("system", "prompt_input", "tools"),
    absent=("chosen", "rejected", "responses", "response_a", "response_b"),
    single=_single,
)
