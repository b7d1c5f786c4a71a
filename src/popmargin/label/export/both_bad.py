"""Preferences of which people say that both responses are bad: counted, and trained on only if somebody asks for it."""

from collections.abc import Mapping
from typing import Any, Literal

import pyarrow.compute

from popmargin.errors import counted
from popmargin.label.export.judged_wrong import DECIDED

pc: Any = pyarrow.compute
OnBothBad = Literal["drop", "keep"]
"""What to do with preferences that most who judged them call both bad: leave them out, or keep what the others say."""
REMEDY = "keep what the others say with --both-bad keep."


def both_bad_shares(labels: Any, weights: Mapping[str, float] | None = None) -> dict[str, float]:
    """Preference id -> the share of its votes that say both bad, for those with any such vote.

    Votes are the answers to items of kind "preference", the first time they were asked; who cannot tell has none.

    Args:
        labels: as of `LabelStore.labels`, with kind, first, verdict, annotator and repeat_of.
        weights: how much the labels of annotators count, by name; 1 for others.
    """
    weights = weights or {}
    single = labels.filter(pc.and_(pc.equal(labels["kind"], "preference"), pc.is_null(labels["repeat_of"])))
    bad, votes = dict[str, float](), dict[str, float]()
    for key, verdict, who in zip(
        *(single[name].to_pylist() for name in ("first", "verdict", "annotator")), strict=True
    ):
        weight = weights.get(who, 1.0)
        if verdict == "both_bad":
            bad[key] = bad.get(key, 0.0) + weight
        if verdict == "both_bad" or verdict in DECIDED:
            votes[key] = votes.get(key, 0.0) + weight
    return {key: count / votes[key] for key, count in bad.items() if votes[key] > 0}


def put_both_bad(
    columns: dict[str, list[Any]], shares: Mapping[str, float], choice: OnBothBad, out: dict[int, Any], notes: list[str]
) -> dict[int, float]:
    """Add the column `both_bad`, if anybody said so, and a note of what was done.

    Args:
        columns: of the preferences; the column is added.
        shares: as of `both_bad_shares`.
        choice: what to do.
        out: rows that are left out for other reasons; those that are left out for this one are taken away.
        notes: the note is added.

    Returns:
        Row -> share, of those to leave out.
    """
    if not shares:
        return {}
    rows = {row: shares[key] for row, key in enumerate(columns["id"]) if key in shares}
    columns["both_bad"] = [rows.get(row) for row in range(len(columns["id"]))]
    most = {row: share for row, share in rows.items() if share > 0.5}
    some = f"{counted(len(rows), 'preference')} called both bad by somebody, {len(most)} by most who judged them"
    if choice == "keep":
        notes.append(f"{some}: kept as the others say (column both_bad)")
        return {}
    notes.append(f"{some}: these are left out (column both_bad; --both-bad keep keeps them as the others say)")
    for row in most:
        out.pop(row, None)
    return most


def reason(share: float) -> tuple[str, str, str]:
    """Kind, message and remedy of a preference that is left out."""
    return "both_bad", f"{share:.0%} of the votes say that both responses are bad.", REMEDY
