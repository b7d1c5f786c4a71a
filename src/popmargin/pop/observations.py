"""From PoP edges to the observations that a strength scale is fitted to."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute

from popmargin.errors import DataError, counted
from popmargin.pop.edges import PopEdges, unique_ids
from popmargin.pop.likelihood import Observations

Ties = Literal["davidson", "half", "drop"]
UseOfConfidence = Literal["weight", "probability", "ignore"]
pc: Any = pyarrow.compute  # its functions are made at import time, so a type checker cannot see them


def observations_of(
    edges: PopEdges, ids: Sequence[str], ties: Ties, confidence: UseOfConfidence
) -> tuple[Observations, list[str], dict[str, Any]]:
    """Observations, the names of their annotators, and the counts.

    A label that is right with probability c becomes an observation of weight c and the opposite one of weight 1 − c; a
    tie counted as half a win each becomes two observations of half weight.

    Raises:
        DataError: an edge names an unknown preference, or no edge contains a comparison.
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
    known = unique_ids(ids)
    compared = np.stack([_rows_of(whole[name], known, name) for name in ("stronger", "weaker")])
    tie = whole["tie"].to_numpy()
    values = pc.fill_null(whole["confidence"], 1.0).to_numpy()
    given = values if confidence == "weight" else np.ones(len(whole))
    right = np.where(tie, 1.0, values) if confidence == "probability" else np.ones(len(whole))
    if ties == "half":
        right = np.where(tie, 0.5, right)
        tie = np.zeros_like(tie)
    split = np.flatnonzero(right < 1.0)
    names = pc.coalesce(whole["annotator"], whole["source"]).combine_chunks().dictionary_encode()
    annotator = names.indices.to_numpy().astype(np.int64)
    seen = Observations(
        first=np.concatenate([compared[0], compared[1, split]]),
        second=np.concatenate([compared[1], compared[0, split]]),
        weight=np.concatenate([given * right, given[split] * (1 - right[split])]),
        tie=np.concatenate([tie, tie[split]]),
        annotator=np.concatenate([annotator, annotator[split]]),
        count=len(ids),
    )
    facts: dict[str, Any] = {
        "edges": len(edges),
        "without_weaker_side": int(table["weaker"].null_count),
        "ties_seen": int(pc.sum(table["tie"]).as_py() or 0),
        "comparisons": len(whole),
        "compared": compared,
    }
    return seen, names.dictionary.to_pylist(), facts


def _rows_of(column: Any, known: Any, name: str) -> Any:
    rows = pc.index_in(column, value_set=known)
    if rows.null_count:
        missing = pc.unique(column.filter(pc.is_null(rows))).to_pylist()
        raise DataError(
            f"PoP edges name {counted(len(missing), 'preference')} in column '{name}' that the data lacks, such "
            f"as {', '.join(map(repr, missing[:3]))}. Use the data that the edges were made from, with its id column."
        )
    return (rows.combine_chunks() if isinstance(rows, pa.ChunkedArray) else rows).to_numpy().astype(np.int64)
