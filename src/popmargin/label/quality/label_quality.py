"""How good labels are, from a table of them: annotators and agreement, cycles, PoP labels against ratings, time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from popmargin.data.questions import KINDS
from popmargin.label.quality.adjudications import Adjudications, adjudications_of, not_adjudicated
from popmargin.label.quality.annotators import AnnotatorQuality, KindAgreement, annotator_quality
from popmargin.label.quality.carry_over import CarryOver, carry_over
from popmargin.label.quality.criteria_quality import CriterionAgreement, criteria_agreement, with_known
from popmargin.label.quality.drift import Drift, drift_of
from popmargin.label.quality.good_enough import TARGET, order_of
from popmargin.label.quality.habits import Habits, habits_of
from popmargin.label.quality.judge_calibration import JudgeCalibration, judge_calibrations
from popmargin.label.quality.ranking_quality import RankingQuality, ranking_quality
from popmargin.label.quality.rating_quality import RatingQuality, rating_quality
from popmargin.label.quality.time_costs import Paces, paces
from popmargin.label.quality.versions import VersionQuality, by_version
from popmargin.pop.precision import ScalePrecision
from popmargin.statistics.buckets import rank_buckets
from popmargin.statistics.intervals import UNDEFINED, Interval, binomial_interval
from popmargin.statistics.jackknife import share_of_sums

pc: Any = pyarrow.compute
THIRDS = ("small", "medium", "large")


@dataclass(frozen=True)
class Cycles:
    """Transitivity of comparisons, such as people's PoP labels, each compared pair counted by its majority.

    Attributes:
        pairs: compared pairs with a majority.
        contradicted: pairs with labels in both directions.
        triads: triples with all three pairs compared.
        cyclic: share of intransitive triads; random labels give a quarter.
        on_cycles: share of pairs on a cycle of any length.
    """

    pairs: int
    contradicted: int
    triads: int
    cyclic: Interval
    on_cycles: float


@dataclass(frozen=True)
class RatingMatch:
    """PoP labels against ratings.

    Attributes:
        labels: decided labels of pairs whose strengths are known and unequal.
        agreement: share that picks the preference with the larger strength.
        thirds: the same by the size of the difference in strength: small, medium, large.
    """

    name: str
    labels: int
    agreement: Interval
    thirds: list[Interval]


@dataclass(frozen=True)
class Quality:
    """Everything in the label report.

    Attributes:
        items: labelled items by kind.
        raters: labels that are ratings of single responses; None without any.
        rankings: labels that order several preferences; None without any.
        pace: how long people take.
        habits: of each person who compared anything.
        drift: changes over time; None with few labels.
        order: how well people's comparisons order the preferences; None without one.
        ratings: people together, then each model; empty without ratings.
        rated_by_people: the ratings are from these labels, not from the data.
        without: the same of the labels that count, if some do not; None if all do.
        left_out: the annotators whose labels do not count.
        adjudications: decisions of adjudicators, which no other figure holds; None without one.
        versions: people's labels by version of the guidelines; empty if there is one.
        criteria: agreement on each criterion of a project with several, of which the other figures are about the first.
        stayed: the order effect of tasks that keep a preference of the task before; None without such tasks.
        calibration: models on the items that people have decided, too.
    """

    labels: int
    items: dict[str, int]
    annotators: list[AnnotatorQuality]
    agreement: list[KindAgreement]
    cycles: Cycles | None
    ratings: list[RatingMatch]
    raters: RatingQuality | None = None
    rankings: RankingQuality | None = None
    pace: Paces = field(default_factory=Paces)
    habits: Mapping[str, Habits] = field(default_factory=dict[str, Habits])
    drift: Drift | None = None
    order: ScalePrecision | None = None
    without: "Quality | None" = None
    left_out: tuple[str, ...] = ()
    rated_by_people: bool = False
    versions: list[VersionQuality] = field(default_factory=list[VersionQuality])
    adjudications: Adjudications | None = None
    stayed: CarryOver | None = None
    criteria: list[CriterionAgreement] = field(default_factory=list[CriterionAgreement])
    calibration: list[JudgeCalibration] = field(default_factory=list[JudgeCalibration])

    @property
    def both_bad(self) -> bool:
        """Whether anybody has said that both responses are bad."""
        return any(row.both_bad for row in self.annotators)


def label_quality(
    labels: Any,
    strengths: Mapping[str, float] | None = None,
    *,
    rated_by_people: bool = False,
    target: float = TARGET,
    criteria: Sequence[str] = (),
) -> Quality:
    """Statistics of a table of labels.

    Args:
        labels: as of `LabelStore.labels`.
        strengths: strength of preferences by id, to compare PoP labels with; nan or missing if unknown.
        rated_by_people: the strengths are gaps of ratings among these labels.
        criteria: names of the criteria of the project, in their order.
        target: of the rank correlation of the scale with the true strengths.

    Returns:
        The statistics; what cannot be computed is nan or empty.
    """
    decided, labels = adjudications_of(labels), not_adjudicated(labels)
    rows: list[dict[str, Any]] = labels.to_pylist()
    first_time = [row for row in rows if row["repeat_of"] is None]
    annotators, agreement = annotator_quality(labels)
    raters = rating_quality(labels)
    if raters is not None:
        raters = replace(raters, raters=with_known(raters.raters, labels, criteria))
    return Quality(
        labels=len(rows),
        items={kind: len({row["item"] for row in rows if row["kind"] == kind}) for kind in KINDS},
        annotators=with_known(annotators, labels, criteria),
        agreement=agreement,
        cycles=cycles_of([row for row in first_time if row["kind"] == "pop" and row["annotator_kind"] == "person"]),
        ratings=_rating_matches(first_time, strengths or {}),
        raters=raters,
        rankings=ranking_quality(labels),
        pace=paces(first_time),
        habits=habits_of(labels),
        drift=drift_of(labels),
        order=order_of(labels, target),
        rated_by_people=rated_by_people,
        versions=by_version(labels),
        adjudications=decided,
        stayed=carry_over(first_time),
        criteria=criteria_agreement(labels, criteria),
        calibration=judge_calibrations(first_time),
    )


def together(tables: Sequence[Any]) -> Any:
    """Labels of several projects as one table: same-named annotators are merged, items are not."""
    moved: list[Any] = []
    above = 0
    for table in tables:
        names = ("assignment", "item", "repeat_of")
        for name in names:
            table = table.set_column(table.column_names.index(name), name, pc.add(table[name], above))
        above = max((pc.max(table[name]).as_py() or 0 for name in names), default=0) + 1
        moved.append(table)
    return pa.concat_tables(moved)


def cycles_of(rows: Sequence[Mapping[str, Any]]) -> Cycles | None:
    """Transitivity of comparisons, each compared pair counted by its majority; None without a decided one.

    Args:
        rows: `first` and `second` name what was compared, `verdict` says which won; other verdicts do not count.

    Example:
        >>> wins = [{"first": a, "second": b, "verdict": "first"} for a, b in ("ab", "bc", "ca")]
        >>> cycles = cycles_of(wins)
        >>> cycles.triads, cycles.cyclic.estimate
        (1, 1.0)
    """
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
