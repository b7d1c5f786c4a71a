"""Preferences without a direction: neither the data nor a person or model says which response is better."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from popmargin.data.formats.unlabelled import MARK
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project

OnUnjudged = Literal["drop", "keep"]
"""What to do with preferences whose direction nobody gave: leave them out, or keep them in the imported order."""
REMEDY = "label it (popmargin annotate), or keep it in the imported order with --unjudged keep."


def without_direction(
    store: LabelStore, project: Project, columns: Mapping[str, Sequence[Any]], judged: Collection[int]
) -> dict[int, tuple[str, str, str]]:
    """Rows whose imported order is no label, with kind, message and remedy of each.

    That is so for a preference that the project asks about and nobody has decided, for one that the data call a tie (a
    soft label of ½), and for one that came without a label (`MARK`), whose order is arbitrary. A lone response is not a
    preference at all.

    Args:
        store: the store.
        project: whose preferences.
        columns: the imported preferences: id, rejected, soft_label and, if there is one, `MARK`.
        judged: rows that a label decides: a vote, a mark "wrong", or ratings of both responses.
    """
    asked: set[str] = set()
    for batch in store.items(project.id):
        rows = zip(batch["kind"].to_pylist(), batch["first"].to_pylist(), strict=True)
        asked.update(first for kind, first in rows if kind == "preference")
    found: dict[int, tuple[str, str, str]] = {}
    marks = columns.get(MARK, [None] * len(columns["id"]))
    read = zip(columns["id"], columns["rejected"], columns["soft_label"], marks, strict=True)
    for row, (key, rejected, label, mark) in enumerate(read):
        if rejected is None:
            found[row] = ("alone", "a single response to its prompt.", "export its ratings with --as ratings.")
        elif row in judged:
            continue
        elif key in asked or mark:
            found[row] = ("unjudged", "nobody has said which response is better.", REMEDY)
        elif label == 0.5:
            found[row] = ("tie", "the data say that neither response is better, and nobody has judged it.", REMEDY)
    return found
