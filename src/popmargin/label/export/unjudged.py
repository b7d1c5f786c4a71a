"""Preferences without a direction: neither the data nor a person or model says which response is better."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project

OnUnjudged = Literal["drop", "keep"]
"""What to do with preferences whose direction nobody gave: leave them out, or keep them in the imported order."""
REMEDY = "label it (popmargin annotate), or keep it in the imported order with --unjudged keep."


def without_direction(
    store: LabelStore, project: Project, columns: Mapping[str, Sequence[Any]], judged: Collection[int]
) -> dict[int, tuple[str, str, str]]:
    """Rows whose imported order is no label, with kind, message and remedy of each.

    That is so for a preference that the project asks about and nobody has decided, and for one that the data call a tie
    (a soft label of ½). Pairs without labels are imported in an arbitrary order, and a project does not know which are.

    Args:
        store: the store.
        project: whose preferences.
        columns: the imported preferences: id and soft_label.
        judged: rows that a label decides: a vote, a mark "wrong", or ratings of both responses.
    """
    asked: set[str] = set()
    for batch in store.items(project.id):
        rows = zip(batch["kind"].to_pylist(), batch["first"].to_pylist(), strict=True)
        asked.update(first for kind, first in rows if kind == "preference")
    found: dict[int, tuple[str, str, str]] = {}
    for row, (key, label) in enumerate(zip(columns["id"], columns["soft_label"], strict=True)):
        if row in judged:
            continue
        if key in asked:
            found[row] = ("unjudged", "nobody has said which response is better.", REMEDY)
        elif label == 0.5:
            found[row] = ("tie", "the data say that neither response is better, and nobody has judged it.", REMEDY)
    return found
