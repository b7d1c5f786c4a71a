"""PoP edges from labels: those between the preferences of a run."""

import logging
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute

from popmargin.errors import DataError
from popmargin.pop.edges import PopEdges

pc: Any = pyarrow.compute
_LOG = logging.getLogger(__name__)


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
    kept = PopEdges(edges.table.filter(inside), {**edges.parameters, "comparisons": len(edges)})
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
