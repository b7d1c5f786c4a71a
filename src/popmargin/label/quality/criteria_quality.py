"""Labels of a project with several criteria: the same table once for each criterion, and agreement on each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pyarrow.compute

from popmargin.label.quality.adjudications import not_adjudicated
from popmargin.label.quality.annotators import AnnotatorQuality, annotator_quality, untold_gold
from popmargin.label.quality.rating_quality import RaterQuality, rating_quality
from popmargin.label.store.criteria import of_criterion
from popmargin.statistics.intervals import Interval, binomial_interval

pc: Any = pyarrow.compute
_Row = TypeVar("_Row", AnnotatorQuality, RaterQuality)
COLUMNS = ("criteria", "gold_criteria")
"""Columns of a table of labels that `of_criterion` reads beside others."""


@dataclass(frozen=True)
class CriterionAgreement:
    """Agreement of people on one criterion.

    Attributes:
        items: labelled items.
        shared: of these, with verdicts of at least two people.
        alpha: Krippendorff's α: of verdicts as names, of ratings as numbers.
        ordinal: the same with a tie between first and second, or ratings as ranks.
        unsure: share of people's answers that cannot tell.
        both_bad: share of people's answers that call both bad.
    """

    name: str
    items: int
    shared: int
    alpha: Interval
    ordinal: Interval
    unsure: float
    both_bad: float


def criteria_agreement(labels: Any, names: Sequence[str]) -> list[CriterionAgreement]:
    """Agreement on each criterion; empty for a project without criteria, or without labels."""
    found: list[CriterionAgreement] = []
    for name in names if labels.num_rows else ():
        table = of_criterion(labels, names, name)
        people = not_adjudicated(table)
        people = people.filter(pc.equal(people["annotator_kind"], "person"))
        verdicts = people["verdict"].to_pylist()
        rated, (_, kinds) = rating_quality(table), annotator_quality(table)
        if not verdicts:
            continue
        each, alpha = (kinds[0], kinds[0].alpha) if rated is None else (rated, rated.interval)
        found.append(
            CriterionAgreement(
                name=name,
                items=each.items,
                shared=each.shared,
                alpha=alpha,
                ordinal=each.ordinal,
                unsure=verdicts.count("unsure") / len(verdicts),
                both_bad=verdicts.count("both_bad") / len(verdicts),
            )
        )
    return found


def with_known(rows: Sequence[_Row], labels: Any, names: Sequence[str]) -> list[_Row]:
    """The rows with how often each annotator gave the known answer, over all criteria on which it is known.

    Args:
        rows: as of `annotator_quality` or `rating_quality`.
        labels: they are about these.
        names: of the project's criteria; none for a single question, whose rows stay.
    """
    counts = {row.name: [0, 0] for row in rows}
    for name in names:
        table = not_adjudicated(of_criterion(labels, names, name))
        read = table["annotator"], table["verdict"], untold_gold(table), table["repeat_of"]
        for who, verdict, known, before in zip(*(column.to_pylist() for column in read), strict=True):
            if known is not None and before is None and verdict != "unsure":
                counts[who][0] += verdict == known
                counts[who][1] += 1
    return [replace(row, gold=binomial_interval(*counts[row.name])) if names else row for row in rows]
