"""Two responses and the number of votes for each."""

import math

from popmargin.data.formats.base import Format, Reader, Row
from popmargin.data.validate import Draft, RowError


def _read(row: Row, reader: Reader) -> list[Draft | RowError]:
    counts = [reader.required_number(row, name) for name in ("votes_a", "votes_b")]
    counts.append(reader.number(row, "votes_equal") or 0.0)
    if min(counts) < 0 or not all(math.isfinite(count) for count in counts):
        raise RowError("votes", f"the votes are {counts}.", "write counts ≥ 0.", column="votes_a")
    prompt, first, second = reader.compared(row)
    if counts[0] == counts[1]:
        return [reader.tie(row, prompt, first, second, "votes_a", soft_label=0.5)]
    chosen, rejected = (first, second) if counts[0] > counts[1] else (second, first)
    strength = abs(counts[0] - counts[1]) / sum(counts)
    return [reader.draft(row, prompt, chosen, rejected, strength=strength, soft_label=(1 + strength) / 2)]


ENTRY = Format(
    "votes",
    "two responses and the number of votes for each",
    ("prompt", "response_a", "response_b", "votes_a", "votes_b"),
    _read,
    optional=("votes_equal", "id", "annotator", "cluster", "weight", "system", "prompt_input", "tools"),
)
