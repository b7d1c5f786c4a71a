"""The items of a new project: which preferences, pairs of them or responses people are asked about."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from popmargin.account import Step
from popmargin.data.formats.unlabelled import MARK
from popmargin.data.questions import RANKED, SIDES, Kind, Side, Verdict
from popmargin.data.schema import Preferences
from popmargin.errors import ConfigError, DataError, counted
from popmargin.label.projects.known_answers import (
    Gold,
    columns_of,
    known_answers,
    response_keys,
)
from popmargin.label.projects.known_criteria import known_ratings_on, known_sides_on
from popmargin.label.projects.known_orders import KnownOrders, order_in
from popmargin.label.store.items import check_settings, storable_columns
from popmargin.label.store.known import Known
from popmargin.label.store.records import Criterion
from popmargin.label.store.shown_columns import check_shown
from popmargin.pop.chains import chain_pairs
from popmargin.pop.edges import PopEdges

SAMPLINGS = ("chain", "random", "iterative")
SCALE = 5
RANK = 4
"""Preferences in a ranking, unless somebody says how many."""
MISSING = json.dumps(None)
"""What a lone response's partner is in `response_keys`."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """The items of a new project, checked: columns as of `LabelStore.add_items`; and the account of choosing them.

    Attributes:
        chained: they are asked in this order, in which pairs share a preference with the one before.
    """

    kind: Kind
    first: list[str]
    second: list[str] | None = None
    gold: Sequence[Known | None] | None = None
    response: list[Side] | None = None
    steps: tuple[Step, ...] = ()
    chained: bool = False
    others: list[list[str]] | None = None


def draft_items(
    data: Preferences,
    *,
    kind: Kind | None = None,
    sampling: str | None = None,
    k: int | None = None,
    edges: PopEdges | None = None,
    gold: Gold | None = None,
    scale: int | None = None,
    rank: int | None = None,
    seed: int | None = None,
    **settings: Any,
) -> Draft:
    """The items `open_project` would create, without a store, so that errors show before one is made.

    Args:
        data, kind, sampling, k, edges, gold, scale, rank, seed, settings: as of `open_project`.

    Raises:
        DataError: pairs or gold that are not in the data, gold without an answer, or fewer than two preferences to
            compare.
        ConfigError: settings out of range or incompatible.
    """
    check_settings(**settings, seed=seed, scale=scale)
    check_shown(settings.get("shown") or (), ["annotator", *storable_columns(data)], data.report.source)
    kind = _kind_of(data, kind, rank)
    if kind != "rating":
        refuse_lone(data)
    if kind == "rank":
        return _rankings(data, rank or RANK, 1 if k is None else k, seed or 0, sampling, edges, gold, scale)
    if kind != "pop" and edges is not None:
        raise ConfigError(f"edges compare two preferences: use them with kind 'pop', not '{kind}'.")
    drawn = [name for name, value in {"--pairs-of-pairs": sampling, "--k": k}.items() if value is not None]
    if drawn and (kind != "pop" or edges is not None):
        given = "edges name the pairs" if edges is not None else f"items of kind '{kind}' are not pairs"
        raise ConfigError(f"{' and '.join(drawn)} draws pairs of preferences, but {given}. Remove it.")
    if kind == "rating":
        if gold is not None and not isinstance(gold, Preferences):
            raise ConfigError("for ratings, gold must be preferences with known ratings, not comparisons.")
        return _responses(data, scale or SCALE, gold, settings.get("criteria") or ())
    if scale is not None:
        raise ConfigError(f"A scale is only for kind 'rating', not '{kind}'.")
    if kind == "preference":
        if gold is not None and not isinstance(gold, Preferences):
            raise ConfigError("for single preferences, gold must be preferences with known labels, not comparisons.")
        criteria = settings.get("criteria") or ()
        known = {} if gold is None else known_sides_on(columns_of(data), data.report.source, gold, criteria)
        return Draft(kind=kind, first=data.ids, gold=[known.get(key) for key in data.ids] if known else None)
    refuse_unlabelled(data)
    if gold is not None and not isinstance(gold, PopEdges):
        raise ConfigError("for comparisons, gold must be PoP edges.")
    first, second, golds, steps = _pairs(data, sampling or "chain", 1 if k is None else k, edges, gold, seed or 0)
    unknown = {*first, *second} - set(data.ids)
    if unknown:
        raise DataError(
            f"{counted(len(unknown), 'compared preference is', 'compared preferences are')} not in "
            f"{data.report.source}, such as {min(unknown)!r}. Draw the pairs from the same data; preferences are "
            "matched by id."
        )
    alone = len(data) - len({*first, *second})
    compared = {"in some pair": len(data) - alone}
    step = Step(name="preferences to compare", rows_in=len(data), kept=compared, left_out={"in no pair": alone})
    chained = (sampling or "chain") == "chain" if edges is None else edges.parameters.get("sampling") == "chain"
    return Draft(kind=kind, first=first, second=second, gold=golds, steps=(*steps, step), chained=chained)


def _kind_of(data: Preferences, kind: Kind | None, rank: int | None) -> Kind:
    if rank is None:
        return kind or usual_kind(data)
    if kind not in (None, "rank"):
        raise ConfigError(
            f"--rank asks for the order of several preferences, not for kind '{kind}'. Omit one of the two."
        )
    if rank not in RANKED:
        raise ConfigError(f"rank={rank}: give a number of preferences from {RANKED[0]} to {RANKED[-1]}.")
    return "rank"


def _rankings(
    data: Preferences,
    size: int,
    k: int,
    seed: int,
    sampling: str | None,
    edges: PopEdges | None,
    gold: Gold | None,
    scale: int | None,
) -> Draft:
    """Rankings; those of which the order is known, and that are not among the drawn ones, come first."""
    refuse_unlabelled(data)
    refused = {"--pairs-of-pairs": sampling, "--edges": edges, "--scale": scale}
    given = [name for name, value in refused.items() if value is not None]
    if given:
        raise ConfigError(f"{' and '.join(given)} cannot be used with rankings of several preferences. Omit it.")
    if len(data) < size:
        raise DataError(f"{counted(len(data), 'preference')}: a ranking on one screen needs {size}. Lower --rank.")
    if gold is not None and not isinstance(gold, KnownOrders):
        raise ConfigError("for rankings, gold must be known orders: a file with a column 'order'.")
    known = {} if gold is None else gold.among(set(data.ids), data.report.source)
    drawn = [[data.ids[row] for row in group] for group in draw_rankings(len(data), size, k=k, seed=seed).tolist()]
    place = {key: row for row, key in enumerate(data.ids)}
    others = known.keys() - {frozenset(group) for group in drawn}
    # In the order of the data, which tells nothing.
    ids = [*(sorted(order, key=place.__getitem__) for one, order in known.items() if one in others), *drawn]
    golds: list[Verdict | None] = [
        order_in(group, known[frozenset(group)]) if frozenset(group) in known else None for group in ids
    ]
    step = Step(name="preferences to rank", rows_in=len(data), kept={"in some ranking": len(data)}, left_out={})
    return Draft(
        kind="rank",
        first=[group[0] for group in ids],
        others=[group[1:] for group in ids],
        gold=golds if known else None,
        steps=(step,),
        chained=True,
    )


def draw_rankings(count: int, size: int, *, k: int = 1, seed: int = 0) -> np.ndarray:
    """Row numbers of the preferences of each ranking, one ranking a row: k rings through all preferences, cut into
    pieces that share a preference with the next (ours).

    They hold about as many comparisons of neighbours, k·N, as `draw_pairs` with the same k, in 1/(size − 1) as many
    questions.

    Example:
        >>> draw_rankings(7, 4).shape
        (3, 4)
    """
    order, _ = chain_pairs(count, k, np.random.default_rng(seed))
    starts = np.arange(0, count, size - 1)
    return np.concatenate([ring[(starts[:, None] + np.arange(size)) % count] for ring in order.reshape(k, count)])


def draw_pairs(count: int, *, sampling: str = "chain", k: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of distinct pairs of preferences to compare, about k·N of them.

    chain (ours): k rings through all preferences, in the order in which they are asked (`chains.chain_pairs`). random:
    k·N of all pairs, uniformly. iterative: every preference is the first of k pairs, and the second of k, so each is
    compared 2k times; before labels are known this is what iterative sampling can ask for.

    Raises:
        ConfigError: an unknown sampling, k below 1, or more pairs than a chain or iterative sampling can make.
        DataError: fewer than two preferences.

    Example:
        >>> first, second = draw_pairs(5, sampling="iterative", k=2)
        >>> [int(number) for number in np.bincount(first)], [int(number) for number in np.bincount(second)]
        ([2, 2, 2, 2, 2], [2, 2, 2, 2, 2])
    """
    if sampling not in SAMPLINGS or k < 1:
        raise ConfigError(f"sampling={sampling!r}, k={k}: choose chain, random or iterative, and k ≥ 1.")
    if count < 2:
        raise DataError(f"{counted(count, 'preference')}: PoP compares two preferences, so at least 2 are needed.")
    rng = np.random.default_rng(seed)
    if sampling == "chain":
        return chain_pairs(count, k, rng)
    pairs = count * (count - 1) // 2
    if sampling == "random":
        # Pair number p is {j, j + d} on a ring, with j = p mod N and d = p div N + 1.
        number = rng.choice(pairs, size=min(k * count, pairs), replace=False)
        first = number % count
        second = (first + number // count + 1) % count
        swap = rng.random(len(first)) < 0.5
        return np.where(swap, second, first), np.where(swap, first, second)
    if count > 2 and k > (count - 1) // 2:
        raise ConfigError(f"iterative: {counted(count, 'preference')} allow k up to {(count - 1) // 2}. Lower k.")
    ring = rng.permutation(count)
    steps = 1 + rng.choice(max((count - 1) // 2, 1), size=k, replace=False)
    if count == 2:
        return ring[:1], ring[1:]
    return np.tile(ring, k), np.concatenate([np.roll(ring, -step) for step in steps])


def usual_kind(data: Preferences) -> Kind:
    """What is asked about data unless somebody says so: "pop", of unlabelled pairs "preference", of lone responses
    "rating"."""
    if MARK not in data.extra_columns:
        return "pop"
    return (
        "preference"
        if any(side is not None for rows in data.batches("rejected") for side in rows["rejected"])
        else "rating"
    )


def refuse_unlabelled(data: Preferences) -> None:
    """Raise a ConfigError if nobody has said which responses are better: then no preferences can be compared."""
    if MARK in data.extra_columns:
        raise ConfigError(
            f"{data.report.source}: nobody has said which response is better, so there are no preferences to compare. "
            "Ask that first with --kind preference, export the answers (popmargin label export --as preferences), and "
            "compare those."
        )


def refuse_lone(data: Preferences) -> None:
    """Raise a DataError if a prompt has a single response: there is nothing to compare."""
    if MARK not in data.extra_columns:
        return
    lone = [
        key for rows in data.batches("id", "rejected") for key, side in zip(rows["id"], rows["rejected"], strict=True)
        if side is None
    ]  # fmt: skip
    if lone:
        raise DataError(
            f"{data.report.source}: {counted(len(lone), 'prompt has', 'prompts have')} a single response, such as that "
            f"of '{lone[0]}', so there is nothing to compare. Ask how good it is with --kind rating, or remove the "
            "rows."
        )


def _responses(data: Preferences, scale: int, gold: Preferences | None, criteria: Sequence[Criterion]) -> Draft:
    keys = [key for rows in data.batches("prompt", "chosen", "rejected") for key in response_keys(rows)]
    asked = [(key, place) for place, key in enumerate(keys) if key[1] != MISSING]
    places = list(dict(reversed(asked)).values())[::-1]
    golds = {} if gold is None else known_ratings_on(data.ids, data.report.source, scale, gold, keys, criteria)
    repeated = {"the same response as another": len(asked) - len(places)}
    step = Step(
        name="responses to rate", rows_in=len(asked), kept={"items": len(places)}, left_out=repeated, unit="responses"
    )
    if gold is not None:
        step = replace(
            step, notes=(f"with a known rating: {len(golds)}, of {counted(2 * len(gold), 'gold response')}",)
        )
    return Draft(
        steps=(step,),
        kind="rating",
        first=[data.ids[place // 2] for place in places],
        response=[SIDES[place % 2] for place in places],
        gold=[golds.get(keys[place]) for place in places],
    )


def _pairs(
    data: Preferences, sampling: str, k: int, edges: PopEdges | None, gold: PopEdges | None, seed: int
) -> tuple[list[str], list[str], list[Verdict | None], list[Step]]:
    ids, steps = data.ids, list[Step]()
    if edges is None:
        rows_first, rows_second = draw_pairs(len(ids), sampling=sampling, k=k, seed=seed)
        first, second = [ids[row] for row in rows_first], [ids[row] for row in rows_second]
    else:
        first, second, _ = _sides(edges, seed)
        lone, several = int(edges.table["weaker"].null_count), len(first)
        first, second = _once(first, second)
        steps.append(_edge_step("pairs of the edges", len(edges), len(first), lone, several - len(first)))
    golds: list[Verdict | None] = [None for _ in first]
    if gold is not None:
        known = known_answers(gold)
        lone = int(gold.table["weaker"].null_count)
        steps.append(
            _edge_step("pairs with a known answer", len(gold), len(known), lone, len(gold) - lone - len(known))
        )
        ordinary = [(a, b) for a, b in zip(first, second, strict=True) if frozenset((a, b)) not in known]
        coins = np.random.default_rng(seed + 1).random(len(known)) < 0.5
        turned = [pair if coin else (pair[1], pair[0]) for (pair, _), coin in zip(known.values(), coins, strict=True)]
        answers: list[Verdict | None] = [
            "tie" if tie else "first" if coin else "second"
            for (_, tie), coin in zip(known.values(), coins, strict=True)
        ]
        asked = {"asked": len(ordinary)}
        left_out = {"among those with a known answer": len(first) - len(ordinary)}
        steps.append(Step(name="other pairs", rows_in=len(first), kept=asked, left_out=left_out, unit="pairs"))
        first, second = ([pair[side] for pair in (*turned, *ordinary)] for side in (0, 1))
        golds = [*answers, *(None for _ in ordinary)]
    return first, second, golds, steps


def _edge_step(name: str, count: int, kept: int, lone: int, repeated: int) -> Step:
    left_out = {"without a weaker side": lone, "the same pair as another edge": repeated}
    return Step(name=name, rows_in=count, kept={"pairs": kept}, left_out=left_out, unit="edges")


def _once(first: list[str], second: list[str]) -> tuple[list[str], list[str]]:
    """Every pair once, regardless of its labels and order."""
    pairs = {frozenset(pair): pair for pair in reversed(list(zip(first, second, strict=True)))}
    kept = list(reversed(pairs.values()))
    return [pair[0] for pair in kept], [pair[1] for pair in kept]


def _sides(edges: PopEdges, seed: int) -> tuple[list[str], list[str], list[Verdict]]:
    """First and second of each edge in random order, and which of them the edge says is stronger."""
    rows = [row for row in edges.table.to_pylist() if row["weaker"] is not None]
    swapped = np.random.default_rng(seed).random(len(rows)) < 0.5
    first = [row["weaker" if swap else "stronger"] for row, swap in zip(rows, swapped, strict=True)]
    second = [row["stronger" if swap else "weaker"] for row, swap in zip(rows, swapped, strict=True)]
    answers: list[Verdict] = [
        "tie" if row["tie"] else "second" if swap else "first" for row, swap in zip(rows, swapped, strict=True)
    ]
    return first, second, answers
