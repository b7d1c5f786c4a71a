"""The label report's numbers for one or several projects, with and without labels that do not count."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

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
    criteria = [one.name for one in projects[0][1].criteria] if len(projects) == 1 else []
    settings: dict[str, Any] = {"rated_by_people": pooled.rated_by_people, "target": target, "criteria": criteria}
    quality = label_quality(pooled.labels, pooled.strengths, **settings)
    if len(projects) > 1:  # a version of one project's guidelines is none of another's
        quality = replace(quality, versions=[])
    if pooled.left_out:
        counting = label_quality(pooled.counting, pooled.strengths, **settings)
        quality = replace(quality, without=counting, left_out=pooled.left_out)
    return quality, pooled.shared
