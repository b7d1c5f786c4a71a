"""A prompt and two completions."""

from popmargin.data.formats.base import Format, Reader, Row
from popmargin.data.formats.hh_rlhf import is_transcript
from popmargin.data.validate import Draft, RowError


def _read(row: Row, reader: Reader) -> list[Draft | RowError]:
    return [reader.draft(row, reader.prompt(row), reader.text(row, "chosen"), reader.text(row, "rejected"))]


ENTRY = Format(
    "preference",
    "a prompt and two completions, text or messages",
    ("prompt", "chosen", "rejected"),
    _read,
    fits=lambda rows, reader: not is_transcript(rows, reader),
)
