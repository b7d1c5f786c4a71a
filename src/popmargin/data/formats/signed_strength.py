"""Two responses and a number: negative if the first is better."""

from popmargin.data.formats.base import Format, Reader, Row
from popmargin.data.validate import Draft, RowError


def _read(row: Row, reader: Reader) -> list[Draft | RowError]:
    signed = reader.required_number(row, "preference")
    prompt, first, second = reader.compared(row)
    if signed == 0:
        return [reader.tie(row, prompt, first, second, "preference")]
    chosen, rejected = (first, second) if signed < 0 else (second, first)
    return [reader.draft(row, prompt, chosen, rejected, strength=abs(signed))]


ENTRY = Format(
    "signed_strength",
    "two responses and a number: negative if the first is better, 0 for a tie",
    ("prompt", "response_a", "response_b", "preference"),
    _read,
    optional=("id", "annotator", "cluster", "weight", "soft_label", "system", "prompt_input", "tools"),
)
