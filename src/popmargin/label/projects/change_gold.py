"""Changing which items of a project have a known answer, while people label."""

from collections.abc import Mapping

import numpy as np

from popmargin.data.questions import SIDES, Verdict
from popmargin.errors import ConfigError, counted
from popmargin.label.projects.known_answers import Gold, known_answers, response_keys
from popmargin.label.projects.known_criteria import known_ratings_on, known_sides_on
from popmargin.label.projects.same_project import item_kinds
from popmargin.label.store.known import Known
from popmargin.label.store.label_store import LabelStore
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
        How many are "new", "changed" and "removed", as of `LabelStore.set_gold`, and "added": pairs of preferences that
        the project did not ask about.

    Raises:
        ConfigError: edges for preferences or the other way round.
        DataError: gold that is not in the project, or without an answer.
    """
    (kind, *_) = item_kinds(store, project) or ["pop"]
    if kind == "rank":
        raise ConfigError(f"Project '{project.name}' asks for rankings, which have no gold items.")
    if isinstance(gold, PopEdges) != (kind == "pop"):
        wanted = (
            "PoP edges" if kind == "pop" else "preferences with known ratings" if kind == "rating" else "preferences"
        )
        raise ConfigError(f"Project '{project.name}' has items of kind '{kind}', whose gold is {wanted}.")
    items = [row for batch in store.items(project.id) for row in batch.to_pylist()]
    pairs: dict[frozenset[str], tuple[tuple[str, str], bool]] = {}
    found: dict[int, Known | None] = {}
    if isinstance(gold, PopEdges):
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
    return {**counts, "added": _add_pairs(store, project, pairs, who)}


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
