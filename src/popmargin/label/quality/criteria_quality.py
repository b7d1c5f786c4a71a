"""Labels of a project with several criteria: the same table once for each criterion, and agreement on each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute

from popmargin.label.quality.adjudications import not_adjudicated
from popmargin.label.quality.annotators import annotator_quality
from popmargin.label.quality.rating_quality import rating_quality
from popmargin.label.store.criteria import of_criterion
from popmargin.statistics.intervals import Interval

pc: Any = pyarrow.compute


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
