"""Whether an existing project matches the request: different settings, preferences or items are refused."""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from popmargin.data.questions import Kind
from popmargin.data.schema import COLUMNS, TEXT_COLUMNS, Preferences
from popmargin.errors import ConfigError, DataError, counted
from popmargin.label.projects.draft import Draft
from popmargin.label.store.answers import clean
from popmargin.label.store.items import item_order
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project


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
            "other guidelines" if name == "guidelines" else f"{name} {getattr(found, name)}, not {given[name]}"
            for name in other
        ]
        change = " Change guidelines with: popmargin label guidelines --set FILE." if "guidelines" in other else ""
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
    its own.

    Raises:
        DataError: ids or texts differ; it says how many and names one.
    """
    remedy = "Put the new data in a separate project with --project NAME, or omit the data to continue this one."
    source, stored = data.report.source, store.preference_columns(found.id)
    rows = {key: row for row, key in enumerate(stored["id"])}
    strange = rows.keys() ^ data.ids
    if strange:
        raise DataError(
            f"{store.name}: project '{found.name}' was made from different preferences than {source}: "
            f"{counted(len(strange), 'id is', 'ids are')} in only one of the two, such as '{min(strange)}'. {remedy}"
        )
    texts, others = list[tuple[str, str]](), set[str]()
    for batch in data.batches():
        for name in COLUMNS:
            had = stored[name]
            differ = [
                key
                for key, value in zip(batch["id"], batch[name], strict=True)
                if value != had[rows[key]] and value == value  # nan is not a value
            ]
            if name in TEXT_COLUMNS:
                texts += [(key, name) for key in differ]
            else:
                others.update(differ)
    if texts:
        key, name = min(texts)
        raise DataError(
            f"{store.name}: project '{found.name}' was made from different preferences than {source}: "
            f"{counted(len(texts), 'text differs', 'texts differ')}, such as '{name}' of '{key}'. {remedy}"
        )
    if others:
        say(
            f"the ratings, strengths, soft labels, annotators or clusters of {counted(len(others), 'preference')} "
            f"differ in {source}, such as '{min(others)}': project '{found.name}' keeps its own"
        )


def refuse_other_items(store: LabelStore, found: Project, draft: Draft) -> None:
    """Compare a draft's items with the first ones of the project; `label ask` may have added more.

    Raises:
        ConfigError: they differ.
    """
    count = len(draft.first)
    none = [None] * count
    rows = list(zip(draft.first, draft.second or none, draft.gold or none, draft.response or none, strict=True))
    stored = (
        tuple(row[name] for name in ("first", "second", "gold", "response"))
        for batch in store.items(found.id)
        for row in batch.to_pylist()
    )
    order = range(count) if draft.chained else item_order(found.seed, 0, count)
    if list(islice(stored, count)) != [rows[row] for row in order]:
        raise ConfigError(
            f"Project '{found.name}' has different items than these pairs, k, edges and gold would give. Use the "
            f"original values, omit them to continue the project, or start another one with --project NAME."
        )
