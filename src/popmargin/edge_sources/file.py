"""PoP edges from a file: Parquet, JSONL or CSV."""

from collections.abc import Sequence

from popmargin.pop.edge_sources import edge_source
from popmargin.pop.edges import PopEdges
from popmargin.pop.labelled import labels_between


@edge_source("file", claims=lambda _: True)
def file_edges(named: str, ids: Sequence[str]) -> PopEdges:
    """All edges in a file; of exported labels, only those between these preferences."""
    edges = PopEdges.load(named)
    if "labelled" not in edges.parameters:
        return edges
    return labels_between(edges, ids, named, "Export them again, or train on the imported data.")
