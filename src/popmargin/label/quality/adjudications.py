"""Items that adjudicators have decided, counted apart: who decides knows the votes, which is no agreement."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow.compute

from popmargin.statistics.intervals import Interval, binomial_interval

pc: Any = pyarrow.compute


@dataclass(frozen=True)
class Adjudications:
    """What adjudicators have decided.

    Attributes:
        items: decided items.
        majority: of those on which most people agree, the share that was decided as they say.
    """

    items: int
    majority: Interval


def not_adjudicated(labels: Any) -> Any:
    """A table of labels without the decisions of adjudicators."""
    return labels.filter(pc.invert(pc.fill_null(labels["adjudicated"], False)))


def adjudications_of(labels: Any) -> Adjudications | None:
    """Decisions of adjudicators against the votes of people; None without one.

    Args:
        labels: as of `LabelStore.labels`, with at least item, annotator_kind, verdict, repeat_of and adjudicated.
    """
    decisions: dict[int, str] = {}
    votes: dict[int, Counter[str]] = {}
    names = ("item", "annotator_kind", "verdict", "repeat_of", "adjudicated")
    for item, kind, verdict, repeat_of, adjudicated in zip(*(labels[name].to_pylist() for name in names), strict=True):
        if verdict == "unsure" or repeat_of is not None or kind != "person":
            continue
        if adjudicated:
            decisions[item] = verdict
        else:
            votes.setdefault(item, Counter())[verdict] += 1
    if not decisions:
        return None
    as_most: list[bool] = []
    for item, verdict in decisions.items():
        ranked = votes.get(item, Counter[str]()).most_common(2)
        if ranked and (len(ranked) == 1 or ranked[0][1] > ranked[1][1]):
            as_most.append(ranked[0][0] == verdict)
    return Adjudications(len(decisions), binomial_interval(sum(as_most), len(as_most)))
