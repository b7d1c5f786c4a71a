"""Which preferences a set of PoP edges trains on, and where its labels contradict the strengths or each other."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from popmargin.errors import DataError, counted
from popmargin.pop.edges import PopEdges
from popmargin.statistics.buckets import STRENGTHS, strength_thirds


@dataclass(frozen=True)
class Degree:
    """How often preferences are on one side of an edge."""

    mean: float
    median: float
    maximum: int
    never: int
    histogram: dict[int, int]


@dataclass(frozen=True)
class EdgeStatistics:
    """Facts about a set of PoP edges.

    Attributes:
        preferences: preferences in the data.
        edges: rows of the table; = training_rows + ties.
        training_rows: rows trained on (all but ties), including unmatched ones.
        ties: rows in which the two preferences were called equal.
        unmatched: rows without a weaker side (margin 0).
        comparisons: labels requested; None if the edges do not say.
        as_stronger, as_weaker: degrees over all preferences, in training rows.
        training_share: share of training rows whose stronger side is a weak, medium or strong preference of the data.
        data_share: share of these preferences in the data itself (ties in strength make it differ from a third).
        agreement: share of labels that agree with the strengths, over rows with two unequal known strengths; else nan.
        contradicting_pairs: pairs of preferences labelled in both directions.
        repeated_edges: rows that repeat an earlier row.
        edges_on_cycles: rows whose two sides are on a directed cycle (including contradictions).
        components: groups of preferences that edges (ties included) connect; preferences without edges not counted.
        largest_component: preferences in the largest of them.
        isolated: preferences that no two-sided edge touches.
        only_weaker: preferences that are the weaker side of training rows, and never the stronger one.
        only_tied: preferences in ties, and in no training row.
        in_no_edge: preferences in none of the rows.
    """

    preferences: int
    edges: int
    training_rows: int
    ties: int
    unmatched: int
    comparisons: int | None
    as_stronger: Degree
    as_weaker: Degree
    training_share: dict[str, float]
    data_share: dict[str, float]
    agreement: float
    contradicting_pairs: int
    repeated_edges: int
    edges_on_cycles: int
    components: int
    largest_component: int
    isolated: int
    only_weaker: int
    only_tied: int
    in_no_edge: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None for undefined numbers."""
        return cast("dict[str, Any]", _plain(asdict(self)))


def edge_statistics(edges: PopEdges, ids: Sequence[str], strength: ArrayLike) -> EdgeStatistics:
    """Statistics of PoP edges over the data they belong to.

    Args:
        edges: the edges.
        ids: ids of the preferences (N,).
        strength: their strengths (N,), nan where unknown.

    Returns:
        The statistics.

    Raises:
        DataError: an edge names an unknown preference, or strengths and ids differ in number.

    Example:
        >>> edges = PopEdges.from_columns(["b", "c", "a"], ["a", "b", None])
        >>> facts = edge_statistics(edges, ["a", "b", "c"], [1.0, 2.0, 3.0])
        >>> facts.agreement, facts.unmatched, facts.components
        (1.0, 1, 1)
    """
    strength_N = np.asarray(strength, dtype=np.float64)
    count = len(ids)
    if strength_N.shape != (count,):
        raise DataError(
            f"{counted(count, 'id')} but strengths of shape {strength_N.shape}; give one per id (nan if unknown)."
        )
    stronger, weaker = edges.resolve(ids)
    two = weaker >= 0
    first, second = stronger[two], weaker[two]
    right = np.sign(strength_N[first] - strength_N[second])  # nan where unknown, 0 where equal
    judged = np.isin(right, (-1.0, 1.0))
    tie_first, tie_second = _ties(edges).resolve(ids)
    directed = np.unique(first * count + second)
    backward = np.unique(second * count + first)
    cycle = _components(first, second, count, "strong")
    linked = _components(np.concatenate([first, tie_first]), np.concatenate([second, tie_second]), count, "weak")
    touched = np.zeros(count, dtype=bool)
    touched[np.concatenate([first, second, tie_first, tie_second])] = True
    sizes = np.bincount(linked[touched])
    trained, above = (np.isin(np.arange(count), rows) for rows in (np.concatenate([stronger, second]), stronger))
    tied = np.isin(np.arange(count), np.concatenate([tie_first, tie_second]))
    bucket = strength_thirds(strength_N)
    comparisons = edges.parameters.get("comparisons")
    return EdgeStatistics(
        preferences=count,
        edges=len(edges),
        training_rows=len(stronger),
        ties=len(edges) - len(stronger),
        unmatched=int((~two).sum()),
        comparisons=None if comparisons is None else int(comparisons),
        as_stronger=_degree(stronger, count),
        as_weaker=_degree(second, count),
        training_share=_shares(bucket[stronger]),
        data_share=_shares(bucket),
        agreement=float((right[judged] > 0).mean()) if judged.any() else math.nan,
        contradicting_pairs=len(np.intersect1d(directed, backward, assume_unique=True)) // 2,
        repeated_edges=len(first) - len(directed),
        edges_on_cycles=int((cycle[first] == cycle[second]).sum()),
        components=int((sizes > 0).sum()),
        largest_component=int(sizes.max(initial=0)),
        isolated=int((~touched).sum()),
        only_weaker=int((trained & ~above).sum()),
        only_tied=int((tied & ~trained).sum()),
        in_no_edge=int((~tied & ~trained).sum()),
    )


def _ties(edges: PopEdges) -> PopEdges:
    """Only the ties, as if they were labels, so that their ids can be resolved."""
    table = edges.table.filter(edges.table["tie"])
    return PopEdges(table.drop_columns(["tie"]))


def _components(first: Any, second: Any, count: int, connection: str) -> Any:
    graph = coo_matrix((np.ones(len(first), dtype=np.int64), (first, second)), shape=(count, count))
    return connected_components(graph.tocsr(), directed=True, connection=connection)[1]


def _degree(rows: Any, count: int) -> Degree:
    degree = np.bincount(rows, minlength=count)
    if not count:
        return Degree(math.nan, math.nan, 0, 0, {})
    values, counts = np.unique(degree, return_counts=True)
    histogram = {int(value): int(number) for value, number in zip(values, counts, strict=True)}
    return Degree(float(degree.mean()), float(np.median(degree)), int(degree.max()), histogram.get(0, 0), histogram)


def _shares(bucket: Any) -> dict[str, float]:
    known = bucket[bucket >= 0]
    return {name: float((known == b).mean()) if len(known) else math.nan for b, name in enumerate(STRENGTHS)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in cast("dict[Any, Any]", value).items()}
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
