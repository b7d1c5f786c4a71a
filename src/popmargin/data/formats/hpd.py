"""A prompt, a list of images, and which one people prefer or how they rank them, as in HPD."""

from collections.abc import Sequence
from typing import Any, cast

from popmargin.data.formats.base import Format, Reader, Row, as_number, finite
from popmargin.data.formats.responses import RANK_NOTE, from_rank, paired
from popmargin.data.validate import Draft, RowError
from popmargin.errors import counted


def _read(row: Row, reader: Reader) -> list[Draft | RowError]:
    images = _list(row, reader, "image")
    if len(images) < 2:
        message = f"the row has {counted(len(images), 'image')}; a pair needs two."
        raise RowError("too_few", message, "add images, or remove the row.", column="image")
    ratings = _ratings(row, reader, len(images))
    prompt = reader.prompt(row)
    names = [reader.images.read(image, "image", what=f"image {number}") for number, image in enumerate(images)]
    return paired(row, reader, prompt, names, ratings)


def _list(row: Row, reader: Reader, name: str) -> Sequence[Any]:
    value = reader.values(row, name)
    return cast(list[Any], value) if isinstance(value, list) else []


def _ratings(row: Row, reader: Reader, count: int) -> list[float]:
    """Votes as they are, or ranks with a minus sign."""
    for name in ("human_preference", "ranks"):
        values = _list(row, reader, name)
        if len(values) == count:
            numbers = [finite(as_number(value, name), f"{name} of image {at}", name) for at, value in enumerate(values)]
            if name == "ranks":
                reader.notes[RANK_NOTE] += 1
                return [from_rank(number, name) for number in numbers]
            return numbers
    message = f"{counted(count, 'image')}, but neither as many preferences nor as many ranks."
    raise RowError("type", message, "write one number per image: votes, or ranks with 1 the best.", column="image")


def _fits(rows: Sequence[Row], reader: Reader) -> bool:
    listed = all(isinstance(reader.values(row, "image"), list) for row in rows)
    return listed and bool({"human_preference", "ranks"} & reader.names.keys())


ENTRY = Format(
    "hpd",
    "a prompt, a list of images, and a list of votes (human_preference) or ranks (1 is best)",
    ("prompt", "image"),
    _read,
    optional=("human_preference", "ranks", "id", "annotator", "cluster", "weight"),
    absent=("chosen", "rejected", "responses", "response_a", "response_b"),
    fits=_fits,
)
