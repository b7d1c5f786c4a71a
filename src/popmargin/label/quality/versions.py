"""People's labels by the version of the guidelines they were given under."""

from dataclasses import dataclass
from typing import Any

import pyarrow.compute

from popmargin.label.quality.annotators import KindAgreement, annotator_quality
from popmargin.label.quality.rating_quality import rating_quality
from popmargin.statistics.intervals import Interval

pc: Any = pyarrow.compute


@dataclass(frozen=True)
class VersionQuality:
    """People's labels under one version of the guidelines; only labels of the same version are compared.

    Attributes:
        version: None for labels of people who had not acknowledged any.
        labels: without repeated items.
        people: who gave them.
        agreement: for each kind of comparison.
        ratings: interval Krippendorff's α of ratings; None without ratings.
    """

    version: int | None
    labels: int
    people: int
    agreement: list[KindAgreement]
    ratings: Interval | None


def by_version(labels: Any) -> list[VersionQuality]:
    """A row for each version, oldest first; empty if all labels of people are of the same.

    Args:
        labels: as of `LabelStore.labels`, with at least `annotators.COLUMNS` and `guidelines_version`.
    """
    mine = labels.filter(pc.equal(labels["annotator_kind"], "person"))
    versions = sorted(mine["guidelines_version"].unique().to_pylist(), key=lambda version: version or 0)
    if len(versions) < 2:
        return []
    return [_version(mine.filter(_is(mine["guidelines_version"], version)), version) for version in versions]


def _is(column: Any, version: int | None) -> Any:
    return pc.is_null(column) if version is None else pc.fill_null(pc.equal(column, version), False)


def _version(labels: Any, version: int | None) -> VersionQuality:
    first_time = labels.filter(pc.is_null(labels["repeat_of"]))
    ratings = rating_quality(labels)
    return VersionQuality(
        version=version,
        labels=first_time.num_rows,
        people=len(labels["annotator"].unique()),
        agreement=annotator_quality(labels)[1],
        ratings=None if ratings is None else ratings.interval,
    )
