"""Two transcripts with 'Human:' and 'Assistant:' turns, as in HH-RLHF."""

from collections.abc import Sequence

from popmargin.data.formats.base import COMMON, Format, Reader, Row
from popmargin.data.messages import parse_transcript, split_messages
from popmargin.data.validate import Draft, RowError


def _read(row: Row, reader: Reader) -> list[Draft | RowError]:
    sides: list[str] = []
    for name in ("chosen", "rejected"):
        text = reader.text(row, name)
        if not isinstance(text, str):
            raise RowError("type", f"the {name} is not a transcript.", "use another format.", column=name)
        if "prompt" in reader.names:  # the prompt is separate and ends with "Assistant:"
            prompt = reader.text(row, "prompt")
            if isinstance(prompt, str) and not text.startswith(prompt):
                text = prompt + text
        sides.append(text)
    turns = [parse_transcript(side) for side in sides]
    prompt, chosen, rejected = split_messages(*turns)
    if not prompt:
        message = "the two transcripts share no first turn."
        raise RowError("no_prompt", message, "remove the row.", column="chosen")
    reader.notes[
        "the marks of turns ('Human:', 'Assistant:', the empty line before and one space after) became roles; all "
        "other white space is kept"
    ] += 1
    return [reader.draft(row, prompt, chosen, rejected)]


def is_transcript(rows: Sequence[Row], reader: Reader) -> bool:
    """Whether the rows' first text begins with a transcript turn."""
    name = "prompt" if "prompt" in reader.names else "chosen"
    first = next((value for value in (reader.value(row, name) for row in rows) if value is not None), None)
    return isinstance(first, str) and first.lstrip("\n").startswith(("Human:", "Assistant:"))


ENTRY = Format(
    "hh_rlhf",
    "two transcripts with 'Human:' and 'Assistant:' turns",
    ("chosen", "rejected"),
    _read,
    optional=("prompt", *(name for name in COMMON if name != "prompt_input")),
    fits=is_transcript,
)
