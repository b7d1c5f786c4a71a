"""How good labels are: annotators, agreement, liking for a place, cycles, ratings and time, from a table of labels.

Axis suffixes: L labels, N items, R annotators.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from popmargin.evaluation.statistics import UNDEFINED, Interval, bootstrap, rank_buckets
from popmargin.label.agreement import (
    alpha_interval,
    binomial_interval,
    kappa_interval,
    leave_one_out,
    pairwise_agreement,
    share_of_sums,
)
from popmargin.label.sources.base import read_orders
from popmargin.label.sources.judge import flipped

KINDS = ("pop", "preference")
THIRDS = ("small", "medium", "large")
_CODES = {"second": -1.0, "tie": 0.0, "first": 1.0, "wrong": 2.0}  # "unsure" is no value


@dataclass(frozen=True)
class AnnotatorQuality:
    """One annotator's labels.

    Attributes:
        labels: current labels, repeats left out.
        seconds: median time of a label; nan where none was taken.
        ties, unsure, wrong: shares of the labels.
        left: share of left (or A) among decided labels; of a judge's single answers where both orders were asked.
        consistency: share of repeated items that got the same verdict again.
        gold: share of decided gold items that got the expected verdict.
        others: how often a label is what most of the other people say (people only).
        flips: share of a judge's questions whose verdict turned with the order.
    """

    name: str
    kind: str
    labels: int
    seconds: float
    ties: float
    unsure: float
    wrong: float
    left: Interval
    consistency: Interval
    gold: Interval
    others: Interval
    flips: Interval


@dataclass(frozen=True)
class JudgeAgreement:
    """A model beside people, on the same items and against the same panels.

    Attributes:
        items: items that it and at least two people decided.
        judge: how often it says what most people of an item, one left out in turn, say.
        people: the same for the person who was left out.
        kappa: Cohen's κ with the people's majority, evenly split items left out.
    """

    name: str
    kind: str
    items: int
    judge: Interval
    people: Interval
    kappa: Interval


@dataclass(frozen=True)
class KindAgreement:
    """Agreement of people on items of one kind.

    Attributes:
        items: labelled items.
        shared: of these, with verdicts of at least two people.
        alpha: Krippendorff's α of the verdicts as names.
        ordinal: α with a tie between first and second; "wrong" left out.
        pairs: share of pairs of people who agree.
        people: how often a person says what most of the others say.
        judges: the models, best first.
    """

    kind: str
    items: int
    shared: int
    alpha: Interval
    ordinal: Interval
    pairs: Interval
    people: Interval
    judges: list[JudgeAgreement]


@dataclass(frozen=True)
class Cycles:
    """Transitivity of people's PoP labels, each compared pair counted by its majority.

    Attributes:
        pairs: compared pairs with a majority.
        contradicted: pairs with labels in both directions.
        triads: preferences of which all three pairs were compared.
        cyclic: share of triads that go in a circle; labels by coin give one quarter.
        on_cycles: share of pairs that lie on a circle of any length.
    """

    pairs: int
    contradicted: int
    triads: int
    cyclic: Interval
    on_cycles: float


@dataclass(frozen=True)
class RatingMatch:
    """PoP labels against the ratings of the data.

    Attributes:
        labels: decided labels of pairs whose strengths are known and unequal.
        agreement: share that names the preference of larger strength.
        thirds: the same by how far apart the strengths are: small, medium, large.
    """

    name: str
    labels: int
    agreement: Interval
    thirds: list[Interval]


@dataclass(frozen=True)
class Quality:
    """Everything that the label report shows.

    Attributes:
        items: labelled items by kind.
        seconds: people's median time of a label by kind.
        timed: labels with a time by kind.
        ratings: people together, then each model; empty without ratings.
    """

    labels: int
    items: dict[str, int]
    annotators: list[AnnotatorQuality]
    agreement: list[KindAgreement]
    cycles: Cycles | None
    ratings: list[RatingMatch]
    seconds: dict[str, Interval] = field(default_factory=dict[str, Interval])
    timed: dict[str, int] = field(default_factory=dict[str, int])


def label_quality(labels: Any, strengths: Mapping[str, float] | None = None) -> Quality:
    """Statistics of a table of labels.

    Args:
        labels: as of `LabelStore.labels`.
        strengths: strength of preferences by id, to hold PoP labels against; nan or missing where unknown.

    Returns:
        The statistics; what cannot be computed is nan or empty.
    """
    rows: list[dict[str, Any]] = labels.to_pylist()
    first_time = [row for row in rows if row["repeat_of"] is None]
    agreement = [found for kind in KINDS if (found := _kind_agreement(kind, first_time))]
    timed = {kind: [r for r in first_time if r["kind"] == kind and _is_timed(r)] for kind in KINDS}
    return Quality(
        labels=len(rows),
        items={kind: len({row["item"] for row in rows if row["kind"] == kind}) for kind in KINDS},
        annotators=_annotators(rows, first_time),
        agreement=agreement,
        cycles=_cycles([row for row in first_time if row["kind"] == "pop" and row["annotator_kind"] == "person"]),
        ratings=_rating_matches(first_time, strengths or {}),
        seconds={kind: _median_interval(found) for kind, found in timed.items() if found},
        timed={kind: len(found) for kind, found in timed.items() if found},
    )


def _annotators(rows: Sequence[dict[str, Any]], first_time: Sequence[dict[str, Any]]) -> list[AnnotatorQuality]:
    by_assignment = {row["assignment"]: row for row in rows}
    names = sorted({(row["annotator_kind"] != "person", row["annotator_kind"], row["annotator"]) for row in rows})
    matrices = {kind: _matrix([r for r in first_time if r["kind"] == kind]) for kind in KINDS}
    found: list[AnnotatorQuality] = []
    for is_model, kind, name in names:
        own = [row for row in first_time if row["annotator"] == name]
        repeats = [row for row in rows if row["annotator"] == name and row["repeat_of"] in by_assignment]
        golds = [row for row in own if row["gold"] is not None and row["verdict"] in _CODES]
        times = [row["seconds"] for row in own if row["seconds"] is not None]
        orders = [parsed for row in own if (parsed := read_orders(row["note"] or "")) is not None]
        decided = [pair for pair in orders if "?" not in (pair[0].place, pair[1].place)]
        left = (
            [order.place == "A" for pair in decided for order in pair if order.place in "AB"]
            if is_model
            else _left(own)
        )
        again = sum(row["verdict"] == by_assignment[row["repeat_of"]]["verdict"] for row in repeats)
        found.append(
            AnnotatorQuality(
                name=name,
                kind=kind,
                labels=len(own),
                seconds=float(np.median(times)) if times else math.nan,
                **{key: _share(own, verdict) for key, verdict in
                   (("ties", "tie"), ("unsure", "unsure"), ("wrong", "wrong"))},
                left=binomial_interval(sum(left), len(left)),
                consistency=binomial_interval(again, len(repeats)),
                gold=binomial_interval(sum(row["verdict"] == row["gold"] for row in golds), len(golds)),
                others=UNDEFINED if is_model else _with_others(name, matrices),
                flips=binomial_interval(sum(map(flipped, decided)), len(decided)),
            )
        )  # fmt: skip
    return found


def _share(rows: Sequence[dict[str, Any]], verdict: str) -> float:
    return sum(row["verdict"] == verdict for row in rows) / len(rows) if rows else math.nan


def _left(rows: Sequence[dict[str, Any]]) -> list[bool]:
    """Whether the named side stood on the left, for decided labels of people."""
    swap = {"pop": "swap_pairs", "preference": "swap_first"}
    return [
        (row["verdict"] == "first") != bool(row[swap[row["kind"]]])
        for row in rows
        if row["verdict"] in ("first", "second")
    ]


@dataclass(frozen=True)
class _Matrix:
    """Verdicts of items by people (N, R), and of each model (N,)."""

    names: list[str]
    people: np.ndarray
    models: dict[tuple[str, str], np.ndarray]


def _matrix(rows: Sequence[dict[str, Any]]) -> _Matrix:
    items = {item: number for number, item in enumerate(sorted({row["item"] for row in rows}))}
    names = sorted({row["annotator"] for row in rows if row["annotator_kind"] == "person"})
    place = {name: number for number, name in enumerate(names)}
    people = np.full((len(items), len(names)), np.nan)
    models: dict[tuple[str, str], np.ndarray] = {}
    for row in rows:
        value, item = _CODES.get(row["verdict"], math.nan), items[row["item"]]
        if row["annotator_kind"] == "person":
            people[item, place[row["annotator"]]] = value
        else:
            key = (row["annotator"], row["annotator_kind"])
            models.setdefault(key, np.full(len(items), np.nan))[item] = value
    return _Matrix(names, people, models)


def _with_others(name: str, matrices: Mapping[str, _Matrix]) -> Interval:
    """One person against the others, over both kinds."""
    sums: list[np.ndarray] = []
    for matrix in matrices.values():
        if name not in matrix.names:
            continue
        own = matrix.people[:, matrix.names.index(name)]
        others = np.delete(matrix.people, matrix.names.index(name), axis=1)
        counts = np.stack([(others == code).sum(axis=1) for code in _CODES.values()], axis=1)
        modes = (counts == counts.max(axis=1, keepdims=True)) & (counts > 0)
        hits = sum(((own == code) & modes[:, place]) for place, code in enumerate(_CODES.values()))
        trials = ~np.isnan(own) & modes.any(axis=1)
        sums.append(np.stack([hits / np.maximum(modes.sum(axis=1), 1), trials], axis=1))
    return share_of_sums(np.concatenate(sums)) if sums else UNDEFINED


def _kind_agreement(kind: str, rows: Sequence[dict[str, Any]]) -> KindAgreement | None:
    own = [row for row in rows if row["kind"] == kind]
    if not own:
        return None
    matrix = _matrix(own)
    people = matrix.people
    shared = (~np.isnan(people)).sum(axis=1) > 1
    judges: list[JudgeAgreement] = []
    for (name, source), verdicts in sorted(matrix.models.items()):
        common = shared & ~np.isnan(verdicts)
        judges.append(
            JudgeAgreement(
                name,
                source,
                int(common.sum()),
                leave_one_out(people[common], verdicts[common]),
                leave_one_out(people[common]),
                kappa_interval(_majority(people[common]), verdicts[common]),
            )
        )
    judges.sort(key=lambda judge: -judge.judge.estimate if judge.items else 1.0)
    return KindAgreement(
        kind,
        len(people),
        int(shared.sum()),
        alpha_interval(people),
        alpha_interval(np.where(people == _CODES["wrong"], np.nan, people), "ordinal"),
        pairwise_agreement(people),
        leave_one_out(people),
        judges,
    )


def _majority(people: np.ndarray) -> np.ndarray:
    """The most frequent verdict of each item; nan where two are equally frequent."""
    codes = np.array(list(_CODES.values()))
    counts = np.stack([(people == code).sum(axis=1) for code in codes], axis=1)
    unique = (counts == counts.max(axis=1, keepdims=True)).sum(axis=1) == 1
    return np.where(unique, codes[counts.argmax(axis=1)], np.nan)


def _cycles(rows: Sequence[dict[str, Any]]) -> Cycles | None:
    decided = [row for row in rows if row["verdict"] in ("first", "second")]
    if not decided:
        return None
    ids = {name: n for n, name in enumerate(sorted({row[side] for row in decided for side in ("first", "second")}))}
    net: dict[tuple[int, int], list[int]] = {}
    for row in decided:
        first, second = ids[row["first"]], ids[row["second"]]
        sign = 1 if (row["verdict"] == "first") == (first < second) else -1
        net.setdefault((min(first, second), max(first, second)), []).append(sign)
    edges = [pair if sum(signs) > 0 else pair[::-1] for pair, signs in net.items() if sum(signs)]
    contradicted = sum(len(set(signs)) == 2 for signs in net.values())
    if not edges:
        return Cycles(0, contradicted, 0, UNDEFINED, math.nan)
    start, end = np.array(edges).T
    graph: Any = coo_matrix((np.ones(len(edges), dtype=np.int64), (start, end)), shape=(len(ids), len(ids))).tocsr()
    both: Any = graph + graph.T
    circles = int((graph @ graph).multiply(graph.T).sum()) // 3
    triads = int((both @ both).multiply(both).sum()) // 6
    component = connected_components(graph, directed=True, connection="strong")[1]
    on_cycles = float((component[start] == component[end]).mean())
    return Cycles(len(edges), contradicted, triads, binomial_interval(circles, triads), on_cycles)


def _rating_matches(rows: Sequence[dict[str, Any]], strengths: Mapping[str, float]) -> list[RatingMatch]:
    decided: list[tuple[dict[str, Any], float]] = []
    for row in rows:
        if row["kind"] == "pop" and row["verdict"] in ("first", "second") and row["annotator_kind"] != "ratings":
            apart = strengths.get(row["first"], math.nan) - strengths.get(row["second"], math.nan)
            if math.isfinite(apart) and apart != 0:
                decided.append((row, apart))
    groups: dict[str, list[tuple[dict[str, Any], float]]] = {}
    for row, apart in decided:
        name = "People" if row["annotator_kind"] == "person" else row["annotator"]
        groups.setdefault(name, []).append((row, apart))
    return [_rating_match(name, groups[name]) for name in sorted(groups, key=lambda name: (name != "People", name))]


def _rating_match(name: str, rows: Sequence[tuple[dict[str, Any], float]]) -> RatingMatch:
    right = np.array([(row["verdict"] == "first") == (apart > 0) for row, apart in rows], dtype=np.float64)
    items = np.array([row["item"] for row, _ in rows])
    third = rank_buckets(np.abs([apart for _, apart in rows]), len(THIRDS))

    def agreement(chosen: np.ndarray) -> Interval:
        _, number = np.unique(items[chosen], return_inverse=True)
        sums = np.stack([np.bincount(number, right[chosen]), np.bincount(number)], axis=1)
        return share_of_sums(sums) if len(number) else UNDEFINED

    whole = agreement(np.arange(len(rows)))
    return RatingMatch(name, len(rows), whole, [agreement(np.flatnonzero(third == t)) for t in range(len(THIRDS))])


def _is_timed(row: dict[str, Any]) -> bool:
    return row["annotator_kind"] == "person" and row["seconds"] is not None


def _median_interval(rows: Sequence[dict[str, Any]]) -> Interval:
    seconds = np.array([row["seconds"] for row in rows])
    return bootstrap(lambda drawn: float(np.median(seconds[drawn])), [row["item"] for row in rows], samples=500)
