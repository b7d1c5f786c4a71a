"""Preferences between the responses to a prompt, made as from a file of rated responses."""

from collections.abc import Sequence
from typing import Any, Protocol

from popmargin.data.collect import Collector
from popmargin.data.formats import Reader
from popmargin.data.pairs import Pairing
from popmargin.data.schema import BATCH_ROWS, Preferences
from popmargin.data.sources import RawBatch, Source
from popmargin.data.validate import describe_problems
from popmargin.errors import DataError

_OWN = ("id", "cluster", "weight", "annotator")
"""Prompt columns that are fields of preferences."""


class Rows(Protocol):
    """One row per prompt: `prompt`, columns, and `responses` with their `text`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


_REMEDIES = {
    "tie": "use a score that tells the responses apart; the implicit reward of an untrained policy does not.",
    "too_few": "score more responses to each prompt; two are needed.",
    "below_min_gap": "lower the least gap.",
    "unfinished": "raise the token limit of the sampling, or keep unfinished responses.",
}
"""What helps when no pair is left, by the most frequent reason."""


def pairs_of(
    rows: Rows,
    fields: Sequence[str],
    columns: Sequence[str],
    pairs: Pairing,
    *,
    by: str,
    min_gap: float,
    seed: int,
    unfinished: str,
) -> Preferences:
    """See `Responses.pairs`.

    Args:
        rows: the responses.
        fields: of each response, which become columns of its side.
        columns: of the prompts.
        pairs, by, min_gap, seed, unfinished: as there.
    """
    names = {"prompt": "prompt", "responses": "responses"}
    own = {name: name for name in _OWN if name in columns}
    nested = {"text": "text", "rating": by}
    how: Any = {"pairs": pairs, "min_gap": min_gap, "seed": seed, "unfinished": unfinished}
    reader = Reader(names | own, nested=nested, fields=tuple(fields), **how)
    source = Source(f"the responses, by '{by}'", "memory", False, False, lambda: iter(()))
    collector = Collector(source, "responses", reader, nested | names | own)
    for start in range(0, len(rows), BATCH_ROWS):
        numbers = list(range(start, min(start + BATCH_ROWS, len(rows))))
        collector.add(RawBatch([rows[number] for number in numbers], numbers))
    preferences, report = collector.finish()
    if preferences is None:
        raise DataError(
            f"No preference is left of {report.rows_in} pairs.\n{describe_problems(report.problems)}\n"
            f"Remedy: {_REMEDIES.get(next(iter(report.problem_counts), ''), 'sample more different responses.')}"
        )
    return preferences
