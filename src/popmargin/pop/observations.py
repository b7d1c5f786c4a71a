"""From PoP edges to the observations that a strength scale is fitted to."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import ArrayLike

from popmargin.errors import DataError, counted
from popmargin.pop.edges import PopEdges, unique_ids
from popmargin.pop.likelihood import Observations
from popmargin.pop.plackett_luce import RankedRows, pairs_of
from popmargin.pop.rankings import rankings_of

Ties = Literal["davidson", "half", "drop"]
UseOfConfidence = Literal["weight", "probability", "ignore"]
pc: Any = pyarrow.compute  # its functions are made at import time, so a type checker cannot see them


def observations_of(
    edges: PopEdges, ids: Sequence[str], ties: Ties, confidence: UseOfConfidence
) -> tuple[Observations, list[str], dict[str, Any]]:
    """Observations, the names of their annotators, and the counts.

    A label that is right with probability c becomes an observation of weight c and the opposite one of weight 1 − c; a
    tie counted as half a win each becomes two observations of half weight. The edges of a ranking become the rows of
    all its pairs, together one observation of its order (`plackett_luce.py`), after the comparisons of two.

    Raises:
        DataError: an edge names an unknown preference, no edge contains a comparison, or a ranking is damaged or has a
            probability of being right.
    """
    table = edges.table
    whole = table.filter(pc.is_valid(table["weaker"]))
    if ties == "drop":
        whole = whole.filter(pc.invert(whole["tie"]))
    if not len(whole):
        raise DataError(
            f"No PoP edge (of {len(edges)}) compares two preferences, so there is no scale to fit. Label some "
            "with popmargin pop sample, or let people label those from popmargin pop ask."
        )
    rankings = [ranking for ranking in rankings_of(whole) if len(ranking.order) > 2]
    known = unique_ids(ids)
    compared = np.stack([_rows_of(whole[name], known, name) for name in ("stronger", "weaker")])
    tie = whole["tie"].to_numpy()
    values = pc.fill_null(whole["confidence"], 1.0).to_numpy()
    given = values if confidence == "weight" else np.ones(len(whole))
    right = np.where(tie, 1.0, values) if confidence == "probability" else np.ones(len(whole))
    if ties == "half":
        right = np.where(tie, 0.5, right)
        tie = np.zeros_like(tie)
    in_ranking = np.zeros(len(whole), dtype=bool)
    in_ranking[[row for ranking in rankings for row in ranking.rows]] = True
    if (right[in_ranking] < 1.0).any():
        raise DataError(
            "PoP edges: a ranking has a confidence below 1, which as a probability has no meaning for an order of "
            "several. Remedy: confidence='weight' or 'ignore' (--confidence)."
        )
    alone, split = np.flatnonzero(~in_ranking), np.flatnonzero(right < 1.0)
    names = pc.coalesce(whole["annotator"], whole["source"]).combine_chunks().dictionary_encode()
    annotator = names.indices.to_numpy().astype(np.int64)
    seen = Observations(
        first=np.concatenate([compared[0, alone], compared[1, split]]),
        second=np.concatenate([compared[1, alone], compared[0, split]]),
        weight=np.concatenate([(given * right)[alone], given[split] * (1 - right[split])]),
        tie=np.concatenate([tie[alone], tie[split]]),
        annotator=np.concatenate([annotator[alone], annotator[split]]),
        count=len(ids),
    )
    rows = [ranking.rows for ranking in rankings]
    orders = [[*compared[0, list(one)].tolist(), int(compared[1, one[-1]])] for one in rows]
    begin = [one[0] for one in rows]
    seen = with_rankings(seen, orders, given[begin], annotator[begin])
    facts: dict[str, Any] = {
        "edges": len(edges),
        "without_weaker_side": int(table["weaker"].null_count),
        "ties_seen": int(pc.sum(table["tie"]).as_py() or 0),
        "comparisons": len(whole),
        "compared": compared,
    }
    facts |= {"rankings": len(rankings)} if rankings else {}
    return seen, names.dictionary.to_pylist(), facts


def with_rankings(
    seen: Observations, orders: Sequence[Sequence[int]], weight: ArrayLike = 1.0, annotator: ArrayLike = 0
) -> Observations:
    """The observations with the pairs of rankings after them, in blocks of one size.

    Args:
        seen: comparisons of two.
        orders: row numbers of the preferences of each ranking, the strongest first.
        weight: of each ranking.
        annotator: number of the annotator of each.
    """
    weights, who = (np.broadcast_to(np.asarray(one), len(orders)) for one in (weight, annotator))
    sizes = np.array([len(order) for order in orders])
    for size in sorted(set(sizes.tolist())):
        own = np.flatnonzero(sizes == size)
        first, second = pairs_of(np.array([orders[number] for number in own.tolist()]))
        each = size * (size - 1) // 2
        seen = Observations(
            first=np.concatenate([seen.first, first]),
            second=np.concatenate([seen.second, second]),
            weight=np.concatenate([seen.weight, np.repeat(weights[own], each)]),
            tie=np.concatenate([seen.tie, np.zeros(len(first), dtype=bool)]),
            annotator=np.concatenate([seen.annotator, np.repeat(who[own], each)]),
            count=seen.count,
            ranked=(*seen.ranked, RankedRows(len(seen.first), len(own), size)),
        )
    return seen


def _rows_of(column: Any, known: Any, name: str) -> Any:
    rows = pc.index_in(column, value_set=known)
    if rows.null_count:
        missing = pc.unique(column.filter(pc.is_null(rows))).to_pylist()
        raise DataError(
            f"PoP edges name {counted(len(missing), 'preference')} in column '{name}' that the data lacks, such "
            f"as {', '.join(map(repr, missing[:3]))}. Use the data that the edges were made from, with its id column."
        )
    return (rows.combine_chunks() if isinstance(rows, pa.ChunkedArray) else rows).to_numpy().astype(np.int64)
