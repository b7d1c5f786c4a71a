"""Which preferences most of those who judged them call wrong."""

from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute

from popmargin.errors import ConfigError

pc: Any = pyarrow.compute
DECIDED = ("first", "second", "tie")
"""Answers that compare, unlike "unsure" and "wrong"."""
OnWrong = Literal["swap", "drop", "keep"]
"""What becomes of preferences that most call wrong: chosen and rejected change places, left out, or as they were."""


def wrong_counts(labels: Any) -> dict[str, int]:
    """How many labels call each preference wrong, for those that any label does."""
    counts: dict[str, int] = {}
    for row in labels.filter(pc.equal(labels["verdict"], "wrong")).select(["first", "second", "wrong"]).to_pylist():
        for side in ("first", "second"):
            if row["wrong"] in (side, "both"):
                counts[row[side]] = counts.get(row[side], 0) + 1
    return counts


def wrong_preferences(labels: Any) -> dict[str, tuple[int, int]]:
    """Preferences that more annotators call wrong than right: id -> (how many, how many).

    Wrong is an answer "wrong" that names the preference, or that its rejected response is better. Right is that its
    chosen one is better, and any other answer of a person who compared it with another preference; models are not asked
    whether what they compare is right. Each annotator counts once, and who calls it wrong anywhere calls it wrong.
    Unsure, ties of its two responses and repeated items say nothing.
    """
    labels = labels.filter(pc.is_null(labels["repeat_of"]))
    single, verdict = pc.equal(labels["kind"], "preference"), labels["verdict"]
    against = pc.or_(pc.equal(verdict, "wrong"), pc.and_(single, pc.equal(verdict, "second")))
    accusers: dict[str, set[str]] = {}
    for row in labels.filter(against).to_pylist():
        for side in ("first", "second"):
            if row["wrong"] in (side, "both") or (row["kind"] == "preference" and side == "first"):
                accusers.setdefault(row[side], set()).add(row["annotator"])
    compared = pc.and_(pc.is_in(verdict, value_set=pa.array(DECIDED)), pc.equal(labels["annotator_kind"], "person"))
    found = labels.filter(pc.if_else(single, pc.equal(verdict, "first"), compared))
    defenders: dict[str, set[str]] = {}
    for side in ("first", "second"):
        of_these = found.filter(pc.is_in(found[side], value_set=pa.array(list(accusers), pa.string())))
        for key, who in zip(of_these[side].to_pylist(), of_these["annotator"].to_pylist(), strict=True):
            defenders.setdefault(key, set()).add(who)
    counts = {key: (len(who), len(defenders.get(key, set()) - who)) for key, who in accusers.items()}
    return {key: (many, others) for key, (many, others) in counts.items() if many > others}


def check_wrong(wrong: str) -> None:
    """Raise a ConfigError unless it is a word of `OnWrong`."""
    if wrong not in get_args(OnWrong):
        raise ConfigError(f"wrong is {wrong!r}; choose {', '.join(get_args(OnWrong))}.")
