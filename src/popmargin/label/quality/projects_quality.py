"""The label report's numbers for one or several projects, with and without labels that do not count."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from popmargin.label.quality.good_enough import TARGET
from popmargin.label.quality.label_quality import Quality, label_quality
from popmargin.label.quality.pooled_projects import pool
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project


def projects_quality(
    projects: Sequence[tuple[LabelStore, Project]], *, without: Collection[str] = (), target: float = TARGET
) -> tuple[Quality, str]:
    """The quality of the labels of projects on the same preferences, and a sentence on how many they share.

    Args:
        projects: each with its store.
        without: names of annotators whose labels do not count, besides those of discarded ones.
        target: of the rank correlation of the scale with the true strengths.

    Raises:
        ConfigError, DataError: as of `pool`.
    """
    pooled = pool(projects, without=without)
    quality = label_quality(pooled.labels, pooled.strengths, rated_by_people=pooled.rated_by_people, target=target)
    if len(projects) > 1:  # a version of one project's guidelines is none of another's
        quality = replace(quality, versions=[])
    if pooled.left_out:
        counting = label_quality(
            pooled.counting, pooled.strengths, rated_by_people=pooled.rated_by_people, target=target
        )
        quality = replace(quality, without=counting, left_out=pooled.left_out)
    return quality, pooled.shared
