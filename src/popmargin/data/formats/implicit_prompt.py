"""Two conversations or texts that begin with the prompt."""

from collections.abc import Mapping, Sequence
from typing import cast

from popmargin.data.formats.base import COMMON, Format, Reader, Row
from popmargin.data.formats.hh_rlhf import is_transcript
from popmargin.data.messages import as_values, split_implicit
from popmargin.data.validate import Draft, RowError


def _read(row: Row, reader: Reader) -> list[Draft | RowError]:
    if "chosen" in reader.image_fields:
        message = "there is no prompt column, and images hold no prompt."
        raise RowError("no_prompt", message, "name it: --column prompt=…", column="chosen")
    chosen, rejected = reader.text(row, "chosen"), reader.text(row, "rejected")
    if isinstance(chosen, str) and reader.value(row, "system"):
        message = "there is a system text but no prompt column, so its place is unknown."
        raise RowError("system", message, "give a prompt column.", column="system")
    return [reader.draft(row, *split_implicit(chosen, rejected, reader.notes))]


def _doubt(rows: Sequence[Row], reader: Reader, unused: Sequence[str]) -> str | None:
    """An unread text column may be the prompt, unless the conversations contain one."""
    if _hold_a_prompt(rows, reader):
        return None
    texts = [column for column in unused if _holds_text([row.get(column) for row in rows])]
    if not texts:
        return None
    named = " and ".join(f"'{column}'" for column in texts)
    return (
        f"there is no prompt column, and the text of {named} would be ignored. Remedy: name the prompt, --column "
        f"prompt={texts[0]} (columns={{'prompt': '{texts[0]}'}}); or, if chosen and rejected both begin with the "
        "prompt, --format implicit_prompt (format='implicit_prompt')."
    )


def _hold_a_prompt(rows: Sequence[Row], reader: Reader) -> bool:
    """Whether chosen is a conversation that does not begin with the answer."""
    chosen = next((value for row in rows if (value := as_values(reader.value(row, "chosen"))) is not None), None)
    if not isinstance(chosen, Sequence) or isinstance(chosen, str) or not chosen:
        return False
    first = cast(Sequence[object], chosen)[0]
    return isinstance(first, Mapping) and not {"assistant", "gpt"} & set(map(str, cast(Row, first).values()))


def _holds_text(values: Sequence[object]) -> bool:
    """Whether a column holds texts or messages that vary between rows."""
    known = [as_values(value) for value in values if value is not None]
    texts = {str(value) for value in known if _is_text(value)}
    return bool(texts) and (len(texts) > 1 or len(known) == 1)


def _is_text(value: object) -> bool:
    if isinstance(value, str):
        return any(character.isalpha() for character in value)
    return isinstance(value, list) and any(isinstance(item, Mapping) for item in cast(list[object], value))


ENTRY = Format(
    "implicit_prompt",
    "two conversations or texts that begin with the prompt",
    ("chosen", "rejected"),
    _read,
    optional=tuple(name for name in COMMON if name != "prompt_input"),
    absent=("prompt",),
    fits=lambda rows, reader: not is_transcript(rows, reader),
    doubt=_doubt,
)
