"""Which items of a project a lead gives to a person: by preference, by a column of the data, or a share of them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from popmargin.errors import ConfigError, DataError, counted, did_you_mean, first_few
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project


def choose_items(
    store: LabelStore,
    project: Project,
    *,
    ids: Collection[str] = (),
    where: Mapping[str, str] | None = None,
    share: float | None = None,
) -> list[int]:
    """Items of a project, in its order; gold items, which everybody gets, are never among them.

    Args:
        store: the store.
        project: whose items.
        ids: of preferences: the items that are about one of them; empty for all.
        where: column -> value, as text: the items all of whose preferences have it.
        share: of these items, a part that is drawn among those that nobody was given; runs of a chain stay whole.

    Raises:
        ConfigError: a share that is not above 0 and at most 1.
        DataError: no such preference or column, or no item is left.
    """
    if share is not None and not 0 < share <= 1:
        raise ConfigError(f"--share {share:g}: give a number above 0 and at most 1.")
    columns = store.preference_columns(project.id)
    known = set(columns["id"])
    unknown = [name for name in ids if name not in known]
    if unknown:
        raise DataError(
            f"Project '{project.name}' has no preference {first_few(unknown)}. {did_you_mean(unknown[0], known)}"
        )
    fitting, wanted = _fitting(project, columns, where or {}), set(ids)
    chosen: list[int] = []
    for batch in store.items(project.id):
        for row in batch.to_pylist():
            about = {row["first"]} if row["second"] is None else {row["first"], row["second"]}
            if (
                row["gold"] is None
                and row["gold_criteria"] is None
                and about <= fitting
                and (not wanted or wanted & about)
            ):
                chosen.append(row["item"])
    if not chosen:
        raise DataError(f"No item of project '{project.name}' is like that, so nothing was given to anybody.")
    return chosen if share is None else _part(store, project, chosen, share)


def _fitting(project: Project, columns: Mapping[str, Sequence[Any]], where: Mapping[str, str]) -> set[str]:
    """Ids of the preferences that have these values."""
    for name, value in where.items():
        if name not in columns:
            raise DataError(f"Project '{project.name}' has no column '{name}'. {did_you_mean(name, columns)}")
        found = {str(one) for one in columns[name] if one is not None}
        if value not in found:
            raise DataError(
                f"No preference of project '{project.name}' has {name}={value}. {did_you_mean(value, found)}"
            )
    return {
        key
        for row, key in enumerate(columns["id"])
        if all(str(columns[name][row]) == value for name, value in where.items())
    }


def _part(store: LabelStore, project: Project, chosen: Sequence[int], share: float) -> list[int]:
    """A share of some items, in whole runs of a chain, among those that nobody was given and that want labels."""
    wanted = max(1, round(share * len(chosen)))
    runs = store.free_runs(project.id, chosen)
    drawn = list[int]()
    for run in np.random.default_rng([project.seed % 2**63, len(chosen)]).permutation(len(runs)).tolist():
        drawn += runs[run][: wanted - len(drawn)]
    if not drawn:
        raise DataError(
            f"Of the {counted(len(chosen), 'item')}, none is free: they are given to somebody, or have all their "
            "labels. Take some back with --take-back, or move them with --from."
        )
    return sorted(drawn)
