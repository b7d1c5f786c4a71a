"""A table with one label a row (CSV, JSONL, Parquet), such as `label export --as labels` writes."""

from collections.abc import Iterator, Mapping
from typing import Any

from popmargin.label.export.csv_files import unguarded
from popmargin.label.outside.outside_label import LeftOut, OutsideLabel, Rows, ids_of, texts_of

NAMES: dict[str, tuple[str, ...]] = {
    "id": ("id", "pair_id", "item_id", "preference_id", "first"),
    "second": ("second",),
    "side": ("response", "side"),
    "annotator": ("annotator", "annotator_id", "user", "user_id", "worker", "worker_id", "rater"),
    "label": ("verdict", "label", "winner", "choice", "preferred", "rating", "score", "answer"),
    "time": ("created_at", "time", "timestamp", "date", "submitted_at", "updated_at"),
    "seconds": ("seconds", "duration", "lead_time"),
    "confidence": ("confidence",),
    "note": ("note", "comment"),
    "wrong": ("wrong",),
}
"""Our field -> its column names; the first that is there counts."""
_SIDES = ("chosen", "rejected")
_ORDER = ("swap_pairs", "swap_first", "swap_second")


def read(rows: Rows, question: str | None, columns: Mapping[str, str]) -> Iterator[OutsideLabel | LeftOut]:
    """See `Parser`; the question is the column of the label."""
    named = dict(columns) if question is None else {**columns, "label": question}
    for place, row in rows:
        cells = {name: unguarded(value) if isinstance(value, str) else value for name, value in row.items()}
        found = {field: _cell(cells, field, named) for field in NAMES}
        texts = texts_of(cells, named)
        side = str(found["side"]) if found["side"] in _SIDES else None
        if side is not None:
            texts = {name: text for name, text in texts.items() if name != "response"}
        if cells.get("repeat_of") is not None:
            yield LeftOut(
                place=place,
                reason="repeated item",
                message="it is the answer to a repeated item.",
                remedy="nothing: the first answer counts.",
            )
        elif cells.get("annotator_kind") not in (None, "person"):
            yield LeftOut(
                place=place,
                reason="label of a model",
                message=f"it was given by a model (kind '{cells['annotator_kind']}'), not by a person.",
                remedy="ask the model here: popmargin label judge.",
            )
        elif found["label"] is None or found["label"] == "":
            yield LeftOut(place=place, reason="no answer", message="it has no label.", remedy="nothing.")
        else:
            yield OutsideLabel(
                place=place,
                annotator=None if found["annotator"] is None else str(found["annotator"]),
                values=(found["label"],),
                ids=ids_of(found["id"]),
                second_ids=ids_of(found["second"]),
                texts=texts,
                side=side,
                at=found["time"],
                seconds=found["seconds"],
                confidence=found["confidence"],
                note=str(found["note"] or ""),
                wrong=found["wrong"],
                order=_order(cells),
                cells=cells,
            )


def _cell(cells: Mapping[str, Any], field: str, named: Mapping[str, str]) -> Any:
    names = (named[field],) if field in named else NAMES[field]
    return next((cells[name] for name in names if name in cells and cells[name] is not None), None)


def _order(cells: Mapping[str, Any]) -> tuple[bool, bool, bool] | None:
    known: dict[Any, bool] = {True: True, False: False, "true": True, "false": False, "True": True, "False": False}
    swaps = [known.get(cells.get(name)) for name in _ORDER]
    first, second, third = swaps
    return None if first is None or second is None or third is None else (first, second, third)
