"""Whether an existing project matches the request: different settings, preferences or items are refused."""

import json
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from typing import Any

from popmargin.data.questions import Kind
from popmargin.data.schema import COLUMNS, TEXT_COLUMNS, Preferences
from popmargin.errors import ConfigError, DataError, counted
from popmargin.label.projects.draft import Draft
from popmargin.label.store.answers import clean
from popmargin.label.store.change_settings import CHANGEABLE
from popmargin.label.store.criteria import names_in
from popmargin.label.store.items import item_order
from popmargin.label.store.known import changed_known, known_of
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project

_LONG = {"guidelines": "guidelines", "language": "texts of its pages"}
"""Settings that are too long to be quoted."""


def item_kinds(store: LabelStore, found: Project) -> list[Kind]:
    """What a project asks for; empty if it has no items."""
    first = next(iter(store.items(found.id)), None)
    return [] if first is None else first["kind"].unique().to_pylist()


def refuse_other_settings(found: Project, settings: Mapping[str, Any]) -> None:
    """Compare the given settings, i.e. those that are not None.

    Raises:
        ConfigError: it names each one that differs from the project's.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if "guidelines" in given:
        given["guidelines"] = clean(given["guidelines"])
    other = [name for name, value in given.items() if value != getattr(found, name)]
    if other:
        told = [
            f"other {_LONG[name]}" if name in _LONG else f"{name} {getattr(found, name)}, not {given[name]}"
            for name in other
        ]
        change = " Change guidelines with: popmargin label guidelines --set FILE." if "guidelines" in other else ""
        if set(other) & set(CHANGEABLE):
            change += " Change settings with: popmargin label set."
        raise ConfigError(
            f"Project '{found.name}' has {'; '.join(told)}. A project keeps its original settings: omit them to "
            f"continue it, or start another project with --project NAME.{change}"
        )


def refuse_other_kind(found: Project, kinds: list[Kind], kind: Kind | None) -> None:
    """Compare the given kind with those of the project's items.

    Raises:
        ConfigError: the project does not ask for it.
    """
    if kind not in (None, *kinds):
        held = "' and '".join(kinds)
        raise ConfigError(
            f"Project '{found.name}' has items of kind '{held}'; put items of kind '{kind}' in a separate project with "
            "--project NAME."
        )


def refuse_other_preferences(
    store: LabelStore, found: Project, data: Preferences, say: Callable[[str], None]
) -> None:  # fmt: skip
    """Compare ids and texts with the project's, in any order; different numbers are reported, and the project keeps
    its own. A project may have more rows than the data: some may have been appended.

    Raises:
        DataError: ids that the project does not have, or texts that differ; it says how many and names one.
    """
    source, stored = data.report.source, store.preference_columns(found.id)
    rows = {key: row for row, key in enumerate(stored["id"])}
    new = set(data.ids) - rows.keys() if found.items else set(data.ids) ^ rows.keys()  # an interrupted import is whole
    if new:
        raise DataError(
            f"{store.name}: project '{found.name}' was made from different preferences than {source}: "
            f"{counted(len(new), 'id is', 'ids are')} in only one of the two, such as '{min(new)}'. Add rows with "
            "popmargin label import --append, put the new data in a separate project with --project NAME, or omit the "
            "data to continue this one."
        )
    changed, others = differing(data, stored, rows)
    if changed:
        key = min(changed)
        count = sum(map(len, changed.values()))
        raise DataError(
            f"{store.name}: project '{found.name}' was made from different preferences than {source}: "
            f"{counted(count, 'text differs', 'texts differ')}, such as '{min(changed[key])}' of '{key}'. Put the new "
            "data in a separate project with --project NAME, or omit the data to continue this one."
        )
    tell_kept(found, data, others, say)
    if len(data) < len(rows):
        say(f"project '{found.name}' has {counted(len(rows) - len(data), 'more preference')} than {source}")


def differing(
    data: Preferences, stored: Mapping[str, list[Any]], rows: Mapping[str, int]
) -> tuple[dict[str, list[str]], set[str]]:
    """Rows of the data that the project has otherwise: id -> the texts that differ, and ids with other numbers.

    Args:
        data: ids that the project does not have are passed over.
        stored: the project's columns.
        rows: id -> its row in them.
    """
    texts, others = dict[str, list[str]](), set[str]()
    for batch in data.batches():
        for name in COLUMNS:
            had = stored[name]
            differ = [
                key
                for key, value in zip(batch["id"], batch[name], strict=True)
                if key in rows and value != had[rows[key]] and value == value  # nan is not a value
            ]
            if name in TEXT_COLUMNS:
                for key in differ:
                    texts.setdefault(key, []).append(name)
            else:
                others.update(differ)
    return texts, others


def tell_kept(found: Project, data: Preferences, others: Collection[str], say: Callable[[str], None]) -> None:
    """Say of which rows a project keeps its own numbers."""
    if others:
        say(
            f"the ratings, strengths, soft labels, annotators or clusters of {counted(len(others), 'preference')} "
            f"differ in {data.report.source}, such as '{min(others)}': project '{found.name}' keeps its own"
        )


def refuse_other_items(store: LabelStore, found: Project, draft: Draft) -> None:
    """Compare a draft's items with the first ones of the project; `label ask` may have added more.

    Raises:
        ConfigError: they differ.
    """
    count = len(draft.first)
    none = [None] * count
    others = [json.dumps(rest, ensure_ascii=False) for rest in draft.others] if draft.others else none
    names, scale = names_in(found.criteria), found.scale
    sizes = [1 + len(rest) for rest in draft.others] if draft.others else [1] * count
    golds = [
        changed_known({}, one, names, draft.kind, scale, f"row {row}", size=size)
        for row, (one, size) in enumerate(zip(draft.gold or none, sizes, strict=True))
    ]
    asked = (draft.first, draft.second or none, golds, draft.response or none, others)
    rows = list(zip(*asked, strict=True))
    stored = (
        (
            row["first"],
            row["second"],
            known_of(row["gold"], row["gold_criteria"], names),
            row["response"],
            row["others"],
        )
        for batch in store.items(found.id)
        for row in batch.to_pylist()
    )
    order = range(count) if draft.chained else item_order(found.seed, 0, count)
    if list(islice(stored, count)) != [rows[row] for row in order]:
        raise ConfigError(
            f"Project '{found.name}' has different items than these pairs, k, edges and gold would give. Use the "
            f"original values, omit them to continue the project, or start another one with --project NAME."
        )
