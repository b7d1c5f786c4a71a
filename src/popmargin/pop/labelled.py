"""PoP edges from labels: those between the preferences of a run."""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from popmargin.errors import DataError, did_you_mean
from popmargin.pop.edges import PopEdges
from popmargin.pop.rankings import edges_without

pc: Any = pyarrow.compute
_LOG = logging.getLogger(__name__)


def without_annotators(edges: PopEdges, names: Collection[str], where: str) -> PopEdges:
    """The edges that are not from these annotators.

    Raises:
        DataError: the edges do not name one of them, or none are left.
    """
    who = edges.table["annotator"]
    known = [name for name in who.unique().to_pylist() if name is not None]
    for name in names:
        if name not in known:
            raise DataError(f"{where}: no edge is of an annotator '{name}'. {did_you_mean(name, known)}")
    theirs = pc.fill_null(pc.is_in(who, value_set=pa.array(list(names), pa.string())), False)
    kept = PopEdges(edges.table.filter(pc.invert(theirs)), edges.parameters)
    if not len(kept):
        raise DataError(f"{where}: without {', '.join(names)} there are no edges. Leave out fewer annotators.")
    _LOG.warning("%d of %d edges are of annotators who are left out: %s.", len(edges) - len(kept), len(edges),
                 ", ".join(names))  # fmt: skip
    return kept


def weighted_annotators(edges: PopEdges, weights: Mapping[str, float], where: str) -> PopEdges:
    """The edges with the confidence of these annotators' multiplied by a weight, an empty one being 1.

    A weight takes the place of one that the edges have already (`parameters["weights"]`, from a label store).

    Raises:
        DataError: the edges do not name one of them.
    """
    who = edges.table["annotator"].to_pylist()
    for name in weights:
        if name not in who:
            known = sorted({one for one in who if one is not None})
            raise DataError(f"{where}: no edge is of an annotator '{name}'. {did_you_mean(name, known)}")
    before: dict[str, float] = edges.parameters.get("weights", {})
    factors = {name: weight / before.get(name, 1.0) for name, weight in weights.items()}
    confidence = [
        sure if name not in factors else min(1.0, factors[name] * (1.0 if sure is None else sure))
        for name, sure in zip(who, edges.table["confidence"].to_pylist(), strict=True)
    ]
    place = edges.table.column_names.index("confidence")
    table = edges.table.set_column(place, "confidence", pa.array(confidence, pa.float64()))
    return PopEdges(table, {**edges.parameters, "weights": {**before, **weights}})


def edge_weights(edges: PopEdges) -> np.ndarray | None:
    """The weight of the annotator of each edge that is not a tie (E,); None where all count 1."""
    weights: dict[str, float] = edges.parameters.get("weights", {})
    if not weights:
        return None
    who = edges.table.filter(pc.invert(edges.table["tie"]))["annotator"].to_pylist()
    return np.array([weights.get(name, 1.0) for name in who], dtype=np.float32)


def labels_between(edges: PopEdges, ids: Sequence[str], where: str, remedy: str) -> PopEdges:
    """The edges between the given preferences; the number of other edges is logged.

    Args:
        edges: labels.
        ids: the preferences.
        where: where they come from, for messages.
        remedy: what to do if none are left.

    Raises:
        DataError: none are left.
    """
    known = pa.array(ids, pa.string())
    inside = pc.and_(pc.is_in(edges.table["stronger"], value_set=known), pc.is_in(edges.table["weaker"], known))
    outside = {name for side in ("stronger", "weaker") for name in edges.table[side].to_pylist()}.difference(ids)
    closed = edges_without(edges, inside, outside)
    kept = PopEdges(closed.table, {**edges.parameters, "comparisons": len(edges)})
    if len(kept) < len(edges):
        _LOG.warning(
            "%d of %d labels involve preferences that are not trained on; they give no edges.",
            len(edges) - len(kept),
            len(edges),
        )
    ties = int(pc.sum(pc.cast(kept.table["tie"], pa.int64())).as_py() or 0)
    if ties:
        _LOG.warning("%d of the %d edges are ties: a scale uses them, training on edges does not.", ties, len(kept))
    if not len(kept):
        raise DataError(
            f"{where}: no label (of {edges.parameters['labels']}) compares two of the training preferences (of "
            f"{len(ids)}). {remedy}"
        )
    return kept
