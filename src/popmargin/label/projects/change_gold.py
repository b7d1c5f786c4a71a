"""Changing which items of a project have a known answer, while people label."""

from collections.abc import Mapping, Sequence

import numpy as np

from popmargin.data.questions import SIDES, Kind, Verdict
from popmargin.data.schema import Preferences
from popmargin.errors import ConfigError, counted
from popmargin.label.projects.known_answers import Gold, known_answers, response_keys
from popmargin.label.projects.known_criteria import known_ratings_on, known_sides_on
from popmargin.label.projects.known_orders import KnownOrders, order_in
from popmargin.label.projects.same_project import item_kinds
from popmargin.label.store.known import Known
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.ranked_items import load_others
from popmargin.label.store.records import Project
from popmargin.pop.edges import PopEdges


def set_known_answers(
    store: LabelStore, project: Project, gold: Gold, *, remove: bool = False, who: str = ""
) -> dict[str, int]:
    """Give a project's items the answers in `gold`, while people label; the labels stay.

    Args:
        store: where the project is.
        project: which one.
        gold: known answers.
        remove: take the answers of these items away instead.
        who: changes them, for the log.

    Returns:
        How many are "new", "changed" and "removed", as of `LabelStore.set_gold`, and "added": pairs of preferences, or
        rankings, that the project did not ask about.

    Raises:
        ConfigError: gold of another kind, such as edges for preferences.
        DataError: gold that is not in the project, or without an answer.
    """
    (kind, *_) = item_kinds(store, project) or ["pop"]
    _refuse_other(gold, kind, project)
    items = [row for batch in store.items(project.id) for row in batch.to_pylist()]
    pairs: dict[frozenset[str], tuple[tuple[str, str], bool]] = {}
    fresh: list[tuple[str, ...]] = []
    found: dict[int, Known | None] = {}
    names = store.preference_columns(project.id)["id"] if isinstance(gold, KnownOrders) else []
    if isinstance(gold, KnownOrders):
        known_orders = gold.among(set(names), f"project '{project.name}'")
        asked = {row["item"]: [row["first"], *load_others(row["others"])] for row in items if row["kind"] == kind}
        for number, ids in asked.items():
            if frozenset(ids) in known_orders:
                found[number] = order_in(ids, known_orders[frozenset(ids)])
        sets = {frozenset(ids) for ids in asked.values()}
        fresh = [order for one, order in known_orders.items() if one not in sets]
    elif isinstance(gold, PopEdges):
        pairs = known_answers(gold)
        for row in items:
            known = pairs.pop(frozenset((row["first"], row["second"])), None)
            if known is not None:
                (stronger, _), tie = known
                found[row["item"]] = "tie" if tie else "first" if row["first"] == stronger else "second"
    else:
        columns = store.preference_columns(project.id)
        if kind == "rating":
            keys = response_keys(columns)
            asked = columns["id"], project.name, project.scale or 0, gold, keys
            ratings = known_ratings_on(*asked, project.criteria)
            place = {key: row for row, key in enumerate(columns["id"])}
            for row in items:
                known = ratings.get(keys[2 * place[row["first"]] + SIDES.index(row["response"])])
                found |= {} if known is None else {row["item"]: known}
        else:
            sides = known_sides_on(columns, project.name, gold, project.criteria)
            found = {row["item"]: sides[row["first"]] for row in items if row["first"] in sides}
    if remove:
        return store.set_gold(project.id, dict.fromkeys(found), who=who)
    counts = store.set_gold(project.id, found, who=who)
    added = _add_pairs(store, project, pairs, who) + _add_rankings(store, project, fresh, names, who)
    return {**counts, "added": added}


def _refuse_other(gold: Gold, kind: Kind, project: Project) -> None:
    """Refuse gold of another kind than the items."""
    wanted: dict[Kind, tuple[type, str]] = {
        "pop": (PopEdges, "PoP edges"),
        "rank": (KnownOrders, "known orders: a file with a column 'order'"),
        "rating": (Preferences, "preferences with known ratings"),
        "preference": (Preferences, "preferences"),
    }
    right, words = wanted[kind]
    if not isinstance(gold, right):
        raise ConfigError(f"Project '{project.name}' has items of kind '{kind}', whose gold is {words}.")


def _add_rankings(
    store: LabelStore, project: Project, orders: Sequence[tuple[str, ...]], names: Sequence[str], who: str
) -> int:
    """Ask about rankings whose order is known, their preferences in the order of the data, which tells nothing."""
    place = {key: row for row, key in enumerate(names)}
    ids = [sorted(order, key=place.__getitem__) for order in orders]
    if orders:
        answers = [order_in(own, order) for own, order in zip(ids, orders, strict=True)]
        first, others = [own[0] for own in ids], [own[1:] for own in ids]
        store.add_items(project.id, "rank", first, gold=answers, others=others, chained=True)
        store.log_change(project.id, who, "gold", counted(project.gold_items, "item"), f"{len(orders)} added")
    return len(orders)


def _add_pairs(
    store: LabelStore, project: Project, pairs: Mapping[frozenset[str], tuple[tuple[str, str], bool]], who: str
) -> int:
    """Ask about pairs of preferences with a known answer, the stronger one first or second at random."""
    coins = np.random.default_rng([project.seed, project.items]).random(len(pairs)) < 0.5
    first: list[str] = []
    second: list[str] = []
    answers: list[Verdict | None] = []
    for ((stronger, weaker), tie), coin in zip(pairs.values(), coins, strict=True):
        first.append(stronger if coin else weaker)
        second.append(weaker if coin else stronger)
        answers.append("tie" if tie else "first" if coin else "second")
    if pairs:
        store.add_items(project.id, "pop", first, second, gold=answers)
        store.log_change(project.id, who, "gold", counted(project.gold_items, "item"), f"{len(pairs)} added")
    return len(pairs)
