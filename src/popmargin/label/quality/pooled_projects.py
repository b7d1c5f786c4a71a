"""Pooled labels of several projects on the same preferences."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute

from popmargin.errors import ConfigError, DataError, did_you_mean
from popmargin.label.export.mean_ratings import strengths_of
from popmargin.label.labellers.labelling import store_strengths
from popmargin.label.quality.label_quality import together
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project

pc: Any = pyarrow.compute
_TEXTS = ("prompt", "chosen", "rejected")
_Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Pool:
    """The result of `pool`.

    Attributes:
        labels: one table, see `together`.
        strengths: by id of the preference, nan or missing if unknown: gaps of the mean ratings over the people of
            all projects; if nothing is rated, the imported strengths.
        rated_by_people: which of the two they are.
        shared: a sentence on how many preferences the projects share; empty if all.
        counting: the labels that count in full, if some do not; None if all do.
        left_out: the annotators whose labels do not count, or count less, which the name then says.
    """

    labels: Any
    strengths: Mapping[str, float]
    rated_by_people: bool
    shared: str
    counting: Any = None
    left_out: tuple[str, ...] = ()


def pool(projects: Sequence[tuple[LabelStore, Project]], *, without: Collection[str] = ()) -> Pool:
    """Pool the labels of projects; their order does not matter.

    Args:
        projects: each with its store.
        without: names of annotators whose labels do not count, besides those of discarded ones.

    Raises:
        ConfigError: a project is listed twice.
        DataError: projects have no preference in common, or one with different texts or strengths, or their ratings
            are on different scales; none of the projects has an annotator of a name in `without`.
    """
    names = [f"{store.name}#{project.name}" for store, project in projects]
    places = [(Path(store.name).resolve(), project.id) for store, project in projects]
    twice = [name for name, place in zip(names, places, strict=True) if places.count(place) > 1]
    if twice:
        raise ConfigError(f"Project {twice[0]} is listed twice, so its labels would count twice. List it once.")
    scales = {name: project.scale for name, (_, project) in zip(names, projects, strict=True) if project.scale}
    if len(set(scales.values())) > 1:
        listed = ", ".join(f"{name} from 1 to {scale}" for name, scale in scales.items())
        raise DataError(f"Ratings on different scales cannot be averaged: {listed}. Report the projects separately.")
    columns = {name: store.preference_columns(at.id) for name, (store, at) in zip(names, projects, strict=True)}
    shared = _shared({name: set(each["id"]) for name, each in columns.items()})
    every = _every_preference(columns)
    labels = together([store.labels(project.id, discarded=True) for store, project in projects])
    counting, left_out = _counting(projects, labels, without)
    rated = strengths_of(labels, every)
    return Pool(
        labels, rated or _imported(dict(zip(names, projects, strict=True))), bool(rated), shared, counting, left_out
    )


def _counting(
    projects: Sequence[tuple[LabelStore, Project]], labels: Any, without: Collection[str]
) -> tuple[Any, tuple[str, ...]]:
    """The labels that count in full, and the annotators of the others; None and nobody if all do."""
    people = [(who, project) for store, project in projects for who in store.annotators(project.id)]
    known = {who.name for who, _ in people}
    for name in without:
        if name not in known:
            raise DataError(f"There is no annotator '{name}'. {did_you_mean(name, known)}")
    lighter = {who.name: who.weight for who, _ in people if who.weight != 1}
    names = {*without, *lighter, *(who.name for who, _ in people if who.discarded)}
    theirs = pc.is_in(labels["annotator"], value_set=pa.array(sorted(names), pa.string()))
    if not names or not pc.any(theirs).as_py():
        return None, ()
    out = {who.name for who, _ in people if who.discarded} | set(without)
    said = [name if name in out else f"{name} (weight {lighter[name]:g})" for name in sorted(names)]
    return labels.filter(pc.invert(theirs)), tuple(said)


def _shared(ids: Mapping[str, set[str]]) -> str:
    (first, reached), *apart = ids.items()
    while near := next((part for part in apart if not part[1].isdisjoint(reached)), None):
        apart.remove(near)
        reached = reached | near[1]
    if apart:
        raise DataError(
            f"Projects {first} and {apart[0][0]} have no preference in common. Report them separately, or import the "
            "same preferences (with the same ids) into both."
        )
    found = Counter(key for keys in ids.values() for key in keys)
    common = {name: sum(found[key] > 1 for key in keys) for name, keys in ids.items()}
    if len(ids) == 1 or all(common[name] == len(keys) for name, keys in ids.items()):
        return ""
    parts = ", ".join(f"{common[name]} of {len(keys)} of {name}" for name, keys in ids.items())
    return f"Preferences shared with another project: {parts}."


def _every_preference(columns: Mapping[str, _Columns]) -> dict[str, list[Any]]:
    """The preferences of all projects, each once."""
    known: dict[str, list[Any]] = {}
    for project, each in columns.items():
        for key, *texts in zip(each["id"], *(each[name] for name in _TEXTS), strict=True):
            if known.setdefault(key, texts) != texts:
                raise DataError(
                    f"Preference '{key}' has different texts in project {project} and in another. Report the "
                    "projects separately, or import the same preferences into both."
                )
    rows = [[key, *texts] for key, texts in known.items()]
    return {name: [row[place] for row in rows] for place, name in enumerate(("id", *_TEXTS))}


def _imported(projects: Mapping[str, tuple[LabelStore, Project]]) -> dict[str, float]:
    known: dict[str, float] = {}
    for name, (store, project) in projects.items():
        for key, strength in store_strengths(store, project.id).items():
            if math.isfinite(strength) and known.setdefault(key, strength) != strength:
                raise DataError(
                    f"Preference '{key}' has a strength of {strength:g} in project {name} but {known[key]:g} in "
                    "another. Report the projects separately, or import the same ratings into both."
                )
    return known
