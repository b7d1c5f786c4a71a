"""Which preferences are flipped, according to the annotators."""

from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute

from popmargin.errors import ConfigError

pc: Any = pyarrow.compute
DECIDED = ("first", "second", "tie")
"""Answers that are a comparison, unlike "unsure" and "wrong"."""
OnWrong = Literal["swap", "drop", "keep"]
"""What to do with preferences that most annotators mark wrong: swap chosen and rejected, drop them, or keep them."""
Votes = Literal["probability", "whole", "grades"]
"""The weight of a vote on which response is better: the annotator's confidence, 1, or what its grade is worth."""


def wrong_counts(labels: Any) -> dict[str, int]:
    """How many labels mark each preference wrong, for those that have any."""
    counts: dict[str, int] = {}
    for row in labels.filter(pc.equal(labels["verdict"], "wrong")).select(["first", "second", "wrong"]).to_pylist():
        for side in ("first", "second"):
            if row["wrong"] in (side, "both"):
                counts[row[side]] = counts.get(row[side], 0) + 1
    return counts


def wrong_preferences(labels: Any, votes: Votes = "probability") -> dict[str, tuple[int, int]]:
    """Preferences marked wrong more than right by those who judged them: id -> (how many mark it wrong, how many do
    not).

    Wrong is an answer "wrong" that names the preference, or that its rejected response is better. Right is that its
    chosen one is better, or any other answer of a person who compared it with another preference; models are not asked
    whether the preferences they compare are right. Each annotator counts once, and one "wrong" suffices. Unsure, ties
    between its two responses and repeated items do not count.

    Args:
        labels: as `LabelStore.labels` gives them, with their confidence.
        votes: the weight of an answer about which response is better: "probability", its confidence (1 if it has none),
            with the rest for the other side; "whole", always 1.
    """
    labels = labels.filter(pc.is_null(labels["repeat_of"]))
    single, verdict = pc.equal(labels["kind"], "preference"), labels["verdict"]
    against = pc.or_(pc.equal(verdict, "wrong"), pc.and_(single, pc.equal(verdict, "second")))
    accusers: dict[str, dict[str, float]] = {}
    for row in labels.filter(against).to_pylist():
        for side in ("first", "second"):
            if row["wrong"] in (side, "both") or (row["kind"] == "preference" and side == "first"):
                sure = probability(row["confidence"], votes) if row["verdict"] == "second" else 1.0
                said = accusers.setdefault(row[side], {})
                said[row["annotator"]] = max(sure, said.get(row["annotator"], 0.0))
    compared = pc.and_(pc.is_in(verdict, value_set=pa.array(DECIDED)), pc.equal(labels["annotator_kind"], "person"))
    found = labels.filter(pc.if_else(single, pc.equal(verdict, "first"), compared))
    defenders: dict[str, dict[str, float]] = {}
    for side in ("first", "second"):
        of_these = found.filter(pc.is_in(found[side], value_set=pa.array(list(accusers), pa.string())))
        for row in of_these.select([side, "annotator", "kind", "confidence"]).to_pylist():
            if row["annotator"] not in accusers[row[side]]:
                sure = probability(row["confidence"], votes) if row["kind"] == "preference" else 1.0
                defenders.setdefault(row[side], {})[row["annotator"]] = sure
    wrong: dict[str, tuple[int, int]] = {}
    for key, said in accusers.items():
        others = defenders.get(key, {})
        if 2 * (sum(said.values()) + sum(1.0 - sure for sure in others.values())) > len(said) + len(others):
            wrong[key] = (len(said), len(others))
    return wrong


def probability(confidence: float | None, votes: Votes) -> float:
    """The probability that an answer gives to its side; 1 without a confidence."""
    return 1.0 if confidence is None or votes == "whole" else confidence


def check_wrong(wrong: str) -> None:
    """Raise a ConfigError unless it is a value of `OnWrong`."""
    if wrong not in get_args(OnWrong):
        raise ConfigError(f"wrong is {wrong!r}; choose {', '.join(get_args(OnWrong))}.")
