"""Numbers of the admin page, from the table of current labels."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from popmargin.label.records import Annotator

_DECIDED = ("first", "second", "tie")


@dataclass(frozen=True, kw_only=True)
class AnnotatorRow:
    """One annotator's row of the admin page; shares are None where nothing was compared.

    Attributes:
        left: share of the decisions (no ties) that named what stood on the left.
        consistency: share of repeated items that got the same answer again.
        gold: share of gold items answered as expected.
        agreement: share of other annotators' answers to the same items that are the same.
    """

    annotator: Annotator
    done: int
    seconds: float | None
    left: float | None
    unsure: float | None
    consistency: float | None
    gold: float | None
    agreement: float | None
    compared: int


def annotator_rows(labels: Any, annotators: Sequence[Annotator]) -> list[AnnotatorRow]:
    """A row for each annotator, in their order; withdrawn answers do not count."""
    rows = [row for row in labels.to_pylist() if row["verdict"] is not None]
    own = defaultdict[str, list[dict[str, Any]]](list)
    by_item = defaultdict[Any, list[tuple[str, str]]](list)
    verdicts = {row["assignment"]: row["verdict"] for row in rows}
    for row in rows:
        own[row["annotator"]].append(row)
        if row["repeat_of"] is None:
            by_item[row["item"]].append((row["annotator"], row["verdict"]))
    return [_row(person, own[person.name], by_item, verdicts) for person in annotators]


def _row(
    person: Annotator,
    rows: list[dict[str, Any]],
    by_item: dict[Any, list[tuple[str, str]]],
    verdicts: dict[int, str],
) -> AnnotatorRow:
    decided = [row for row in rows if row["verdict"] in ("first", "second")]
    repeats = [row["verdict"] == verdicts[row["repeat_of"]] for row in rows if row["repeat_of"] in verdicts]
    others = [
        row["verdict"] == verdict
        for row in rows
        if row["repeat_of"] is None
        for name, verdict in by_item[row["item"]]
        if name != person.name and row["verdict"] in _DECIDED and verdict in _DECIDED
    ]
    seconds = [row["seconds"] for row in rows if row["seconds"] is not None]
    return AnnotatorRow(
        annotator=person,
        done=len(rows),
        seconds=statistics.median(seconds) if seconds else None,
        left=_share([(row["verdict"] == "second") == _swapped(row) for row in decided]),
        unsure=_share([row["verdict"] not in _DECIDED for row in rows]),
        consistency=_share(repeats),
        gold=_share([row["verdict"] == row["gold"] for row in rows if row["gold"] is not None]),
        agreement=_share(others),
        compared=len(others),
    )


def _swapped(row: dict[str, Any]) -> bool:
    return bool(row["swap_pairs"] if row["kind"] == "pop" else row["swap_first"])


def _share(values: list[bool]) -> float | None:
    return sum(values) / len(values) if values else None
