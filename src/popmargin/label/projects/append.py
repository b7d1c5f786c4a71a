"""Rows that are added to a running project: what is new is asked about, what changed is refused."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from popmargin.account import Step
from popmargin.data.questions import SIDES, Kind, Side
from popmargin.data.schema import TEXT_COLUMNS, Preferences
from popmargin.errors import ConfigError, DataError, counted
from popmargin.label.projects.draft import (
    MISSING,
    Draft,
    draw_rankings,
    refuse_lone,
    refuse_unlabelled,
    response_keys,
)
from popmargin.label.projects.same_project import (
    differing,
    item_kinds,
    refuse_other_kind,
    refuse_other_settings,
    tell_kept,
)
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.ranked_items import load_others
from popmargin.label.store.records import Project

_SHOWN = 5
SAMPLINGS = ("chain", "random")


def append_rows(
    store: LabelStore,
    project: Project,
    data: Preferences,
    *,
    drop_changed: bool = False,
    kind: Kind | None = None,
    sampling: str | None = None,
    k: int | None = None,
    say: Callable[[str], None] = print,
    **settings: Any,
) -> Project:
    """Add the rows that a project does not have, and ask about them as about its others.

    Rows are matched by id (rows without one are named by their content). New preferences are asked about; new responses
    are rated; in a project that compares preferences, a path leads from an old one through all new ones. All is stored
    in one transaction, while people label.

    Args:
        store: the store.
        project: it has items.
        data: rows of the same data, or further ones.
        drop_changed: leave out rows whose texts differ from those under their id, and say which, instead of refusing
            all.
        kind: as of `open_project`; None for what the project asks.
        sampling: "chain", the path, or "random": each new preference with others, old and new.
        k: paths, or pairs of each new preference; 1.
        say: called with lines about what was done.
        settings: given ones must be the project's.

    Raises:
        DataError: changed rows, a project without items, or data that the project's kind cannot ask about.
        ConfigError: settings that differ from the project's.
    """
    kinds = item_kinds(store, project)
    if not kinds:
        raise DataError(f"Project '{project.name}' has no items yet. Import its first rows without --append.")
    refuse_other_kind(project, kinds, kind)
    refuse_other_settings(project, settings)
    asked = kind or kinds[0]
    if asked != "rating":
        refuse_lone(data)
    stored = store.preference_columns(project.id)
    known = {key: row for row, key in enumerate(stored["id"])}
    changed, others = differing(data, stored, known)
    if changed and not drop_changed:
        raise DataError(f"{_told(data.report.source, project, changed)}\nNothing was imported. {_REMEDY}")
    new = [row for row, key in enumerate(data.ids) if key not in known]
    account = Step(
        name=f"rows for project '{project.name}'",
        rows_in=len(data),
        kept={"new": len(new)},
        left_out={"already there": len(data) - len(new) - len(changed), "changed": len(changed)},
        unit="rows",
    )
    say("\n".join(account.lines()))
    if changed:
        say(f"{_told(data.report.source, project, changed)}\nThe project keeps its own. {_REMEDY}")
    tell_kept(project, data, others - changed.keys(), say)
    if new:
        rows = data.select(new)
        if asked == "rank":
            draft = _rankings(store, rows, stored["id"], sampling, 1 if k is None else k, project)
        else:
            draft = _draft(rows, stored, asked, sampling, k, project)
        asks = (draft.kind, draft.first, draft.second)
        store.append(project.id, rows, *asks, response=draft.response, chained=draft.chained, others=draft.others)
        say(f"{counted(len(draft.first), 'item')} of kind '{asked}' added: {_how(draft, len(new))}")
    return store.project(project.name)


_REMEDY = "Give a changed row a new id to have it labelled as a row of its own; labels of the old one stay."


def _told(source: str, project: Project, changed: Mapping[str, Sequence[str]]) -> str:
    shown = [
        f"  id '{key}', column '{names[0]}': the project has another text." for key, names in sorted(changed.items())
    ][:_SHOWN]
    more = [f"  … and {len(changed) - _SHOWN} more"] if len(changed) > _SHOWN else []
    head = f"{source}: {counted(len(changed), 'row differs', 'rows differ')} from project '{project.name}':"
    return "\n".join([head, *shown, *more])


def _how(draft: Draft, count: int) -> str:
    named = {"preference": "one a new pair", "rating": "one a new response",
             "rank": "rankings of new preferences with each other and with old ones"}  # fmt: skip
    return named.get(draft.kind, f"pairs of {counted(count, 'new preference')} with each other and with the old ones")


def _draft(
    data: Preferences,
    stored: Mapping[str, list[Any]],
    kind: Kind,
    sampling: str | None,
    k: int | None,
    project: Project,
) -> Draft:
    drawn = [name for name, value in {"--pairs-of-pairs": sampling, "--k": k}.items() if value is not None]
    if drawn and kind != "pop":
        raise ConfigError(f"{' and '.join(drawn)} draws pairs of preferences, but '{kind}' asks about none. Remove it.")
    if kind == "preference":
        return Draft(kind=kind, first=data.ids)
    if kind == "rating":
        old = set(response_keys({name: stored[name] for name in TEXT_COLUMNS}))
        places = dict[tuple[str, str], tuple[str, Side]]()
        for rows in data.batches("id", *TEXT_COLUMNS):
            sides: list[tuple[str, Side]] = [(key, side) for key in rows["id"] for side in SIDES]
            for place, key in zip(sides, response_keys(rows), strict=True):
                if key not in old and key[1] != MISSING:
                    places.setdefault(key, place)
        return Draft(
            kind=kind, first=[key for key, _ in places.values()], response=[side for _, side in places.values()]
        )
    refuse_unlabelled(data)
    ids = [*stored["id"], *data.ids]
    first, second = extend_pairs(
        len(stored["id"]), len(data), sampling=sampling or "chain", k=1 if k is None else k, seed=project.seed
    )
    pairs = ([ids[row] for row in rows] for rows in (first, second))
    return Draft(kind=kind, first=next(pairs), second=next(pairs), chained=sampling in (None, "chain"))


def _rankings(
    store: LabelStore, data: Preferences, old: Sequence[str], sampling: str | None, k: int, project: Project
) -> Draft:
    """Rankings of the new preferences and at least one old one, more where they do not fill a screen: all connected."""
    if sampling is not None:
        raise ConfigError("--pairs-of-pairs draws pairs of preferences, but 'rank' asks about several. Remove it.")
    refuse_unlabelled(data)
    rows = [row for batch in store.items(project.id) for row in batch.select(["others", "gold"]).to_pylist()]
    usual = next((row for row in rows if row["gold"] is None), rows[0])  # known orders may be longer or shorter
    size = len(load_others(usual["others"])) + 1
    rng = np.random.default_rng([project.seed % 2**63, len(old)])
    some = rng.choice(len(old), max(1, size - len(data)), replace=False).tolist()
    ids = [*(old[row] for row in some), *data.ids]
    groups = [[ids[row] for row in group] for group in draw_rankings(len(ids), size, k=k, seed=project.seed).tolist()]
    return Draft(kind="rank", first=[one[0] for one in groups], others=[one[1:] for one in groups], chained=True)


def extend_pairs(
    old: int, new: int, *, sampling: str = "chain", k: int = 1, seed: int = 0
) -> tuple[list[int], list[int]]:
    """Row numbers of distinct pairs, each with a new preference; old ones are numbered before new ones.

    chain: k paths, each from one of the old preferences through all the new ones in random order, so that neighbours
    share one. random: every new preference with k others, old and new alike.

    Args:
        old: how many preferences there are.
        new: how many come.
        sampling: "chain" or "random".
        k: pairs of each new preference, about.
        seed: of the draws, with `old`, so that a later draw is another one.

    Raises:
        ConfigError: another sampling, or k below 1.

    Example:
        >>> first, second = extend_pairs(3, 4)
        >>> first[0] < 3, first[1:] == second[:-1], sorted(second)
        (True, True, [3, 4, 5, 6])
    """
    if sampling not in SAMPLINGS or k < 1:
        raise ConfigError(
            f"--pairs-of-pairs {sampling}, k {k}: rows are appended with chain or random, and k of at least 1."
        )
    rng = np.random.default_rng([seed % 2**63, old])
    pairs = dict[frozenset[int], tuple[int, int]]()
    for _ in range(k):
        order = (old + rng.permutation(new)).tolist()
        if sampling == "chain":
            path = [int(rng.integers(old)), *order]
            drawn = itertools.pairwise(path)
        else:
            drawn = ((row, _other(row, int(rng.integers(old + new - 1)))) for row in order)
        for pair in drawn:
            pairs.setdefault(frozenset(pair), pair)
    return [pair[0] for pair in pairs.values()], [pair[1] for pair in pairs.values()]


def _other(row: int, drawn: int) -> int:
    """A uniform number below count − 1 as one of all rows but this one."""
    return drawn + (drawn >= row)
