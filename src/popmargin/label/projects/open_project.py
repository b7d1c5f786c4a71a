"""Creating a project from preferences, or continuing an existing one."""

from collections.abc import Callable
from typing import Any

from popmargin.data.images import COLUMNS as IMAGE_COLUMNS
from popmargin.data.questions import Kind
from popmargin.data.schema import Preferences, holds_images
from popmargin.errors import ConfigError, DataError, counted
from popmargin.label.projects.draft import SCALE, draft_items, usual_kind
from popmargin.label.projects.known_answers import Gold
from popmargin.label.projects.same_project import (
    item_kinds,
    refuse_other_items,
    refuse_other_kind,
    refuse_other_preferences,
    refuse_other_settings,
)
from popmargin.label.store.items import STORED, storable_columns
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project
from popmargin.label.web.guidelines import guidelines_of
from popmargin.pop.edges import PopEdges


def open_project(
    store: LabelStore,
    data: Preferences | None,
    name: str = "default",
    *,
    kind: Kind | None = None,
    sampling: str | None = None,
    k: int | None = None,
    edges: PopEdges | None = None,
    gold: Gold | None = None,
    scale: int | None = None,
    rank: int | None = None,
    seed: int | None = None,
    say: Callable[[str], None] = print,
    **settings: Any,
) -> Project:
    """The project of this name: unchanged if the store has it with items, else created from these preferences.

    None means not given: a new project gets the default, and an existing one is not compared with it.

    Args:
        store: where it is, or will be.
        data: the preferences of a new project; needed for one.
        name: of the project.
        kind: "pop" asks about pairs of preferences, "preference" about every single one, "rating" about every
            distinct response to a prompt, once, "rank" about several preferences at a time; None for the usual one (see
            `usual_kind`).
        sampling, k: how pairs are drawn (see `draw_pairs`); "chain" and 1.
        edges: ask about these pairs instead; their labels are not shown.
        gold: pairs with a known answer, shown to everybody; for ratings, preferences with known ratings; for rankings,
            known orders.
        scale: ratings go from 1 to this; 5.
        rank: ask for the order of so many preferences at a time (kind "rank"; 4).
        seed: of the pairs, and of the project; 0.
        say: called with lines about what was done.
        settings: of `LabelStore.create_project`: overlap, lease_seconds, repeat_share, wording, shown, both_bad,
            criteria, language, grades (by default of kind "preference"), and guidelines (by default those of the kind).

    Raises:
        DataError: no such project and no data, pairs or gold that are not in the data, gold without an answer, or
            the project was made from different data.
        ConfigError: settings out of range, or different from the project's.
    """
    settings = {setting: value for setting, value in settings.items() if value is not None}
    asked = {"sampling": sampling, "k": k, "edges": edges, "gold": gold, "rank": rank}
    found = next((project for project in store.projects() if project.name == name), None)
    if found is not None:
        kinds = _go_on(store, found, data, kind, {"scale": scale, "seed": seed, **settings}, asked, say)
        if found.items:
            return found
        usual = None if data is None else usual_kind(data)
        kind, scale, seed = kind or (usual if usual in kinds else kinds[0]), found.scale, found.seed
    if data is None:
        raise DataError(f"{store.name}: no project '{name}'. Give preferences to create it from.")
    # Refused settings must not leave an empty project behind, so everything is checked before storing.
    draft = draft_items(data, kind=kind, scale=scale, seed=seed, **asked, **settings)
    if draft.kind == "rating":
        settings["scale"] = scale or SCALE
    if settings.get("grades") and draft.kind != "preference":
        raise ConfigError(f"grades are for kind 'preference', not '{draft.kind}', which asks something else.")
    if settings.get("both_bad") and draft.kind != "preference":
        raise ConfigError(f"both_bad is an answer about two responses, for kind 'preference', not '{draft.kind}'.")
    if "wording" in settings and draft.kind == "rating":
        raise ConfigError("a wording is for comparisons; write what a rating is about into the guidelines.")
    criteria = settings.get("criteria") or ()
    if criteria and draft.kind in ("pop", "rank"):
        raise ConfigError(
            f"criteria are questions about responses: use them with kind preference or rating, not '{draft.kind}'."
        )
    if criteria and (settings.get("grades") or "wording" in settings):
        raise ConfigError(
            "criteria have questions of their own, without a wording or grades. Omit --wording and --grades."
        )
    settings.setdefault("grades", draft.kind == "preference" and not criteria)
    words = {name: settings[name] for name in ("wording", "language") if name in settings}
    settings.setdefault("guidelines", guidelines_of(draft.kind, images=holds_images(data), criteria=criteria, **words))
    # Several transactions: a project without preferences or items comes from an interrupted run, and is completed.
    project = found or store.create_project(name, seed=seed or 0, **settings)
    if not project.preferences:
        store.import_preferences(project.id, data)
        images = IMAGE_COLUMNS if holds_images(data) else ()
        left = [name for name in data.columns if name not in (*STORED, *storable_columns(data), *images)]
        if left:
            say(f"columns of bytes are not stored: {', '.join(left)}")
    asks = draft.first, draft.second
    store.add_items(project.id, draft.kind, *asks, gold=draft.gold, response=draft.response, chained=draft.chained,
                    others=draft.others)  # fmt: skip
    for step in draft.steps:
        say("\n".join(step.lines()))
    known = sum(answer is not None for answer in draft.gold or ())
    items = f"{counted(len(draft.first), 'item')} of kind '{draft.kind}'"
    say(f"project '{name}': {counted(len(data), 'preference')}, {items}, {known} of them gold")
    return store.project(name)


def _go_on(
    store: LabelStore,
    found: Project,
    data: Preferences | None,
    kind: Kind | None,
    settings: dict[str, Any],
    asked: dict[str, Any],
    say: Callable[[str], None],
) -> list[Kind]:
    """Refuse settings that differ from the project's; returns the kinds it asks for."""
    # An interrupted project without items may ask for either of two kinds.
    kinds = item_kinds(store, found) or (["pop", "preference"] if found.scale is None else ["rating"])
    refuse_other_kind(found, kinds, kind)
    refuse_other_settings(found, settings)
    if data is not None and found.preferences:
        refuse_other_preferences(store, found, data, say)
    if not found.items:
        return kinds
    given = [name for name, value in asked.items() if value is not None]
    if given and data is None:
        raise ConfigError(
            f"Project '{found.name}' already has its items. {', '.join(given)} would choose items from data, but no "
            "data was given: omit it to continue the project."
        )
    if given and data is not None:
        rows = {key: row for row, key in enumerate(data.ids)}
        ordered = data.select([rows[key] for key in store.preference_columns(found.id)["id"] if key in rows])
        _refuse_other_draft(store, found, ordered, kind or kinds[0], asked)
    held = "' and '".join(kinds)
    say(
        f"project '{found.name}' already exists and is unchanged: {counted(found.items, 'item')} of kind '{held}' from "
        f"{counted(found.preferences, 'preference')}, overlap {found.overlap}"
    )
    return kinds


def _refuse_other_draft(
    store: LabelStore, found: Project, data: Preferences, kind: Kind, asked: dict[str, Any]
) -> None:
    """Compare what would be asked with the project's items; pairs of no named sampling may be random, as they once
    were."""
    settings: dict[str, Any] = {
        "kind": kind, "scale": found.scale, "seed": found.seed, "criteria": found.criteria,
    }  # fmt: skip
    if kind == "pop" and asked["sampling"] is None and asked["edges"] is None:
        try:
            return refuse_other_items(store, found, draft_items(data, **settings, **asked))
        except ConfigError:
            asked = {**asked, "sampling": "random"}
    refuse_other_items(store, found, draft_items(data, **settings, **asked))
    return None
