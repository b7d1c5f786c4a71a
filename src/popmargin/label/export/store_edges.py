"""PoP edges straight from a label store, for a training run."""

import logging
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute

from popmargin.errors import DataError
from popmargin.label.store.address import is_store, open_store
from popmargin.pop.edges import PopEdges

pc: Any = pyarrow.compute
_LOG = logging.getLogger(__name__)


def read_edges(source: str, ids: Sequence[str]) -> PopEdges:
    """PoP edges between some preferences, from a file or a label store.

    Of labels, those between other preferences, held out for testing, are left out and counted, in a file that was
    exported as in the store itself. Any other file is taken whole: it was made for these preferences.

    Args:
        source: a file of edges; or a store, where `#NAME` at its end names the project, if there are several.
        ids: the preferences that are trained on.

    Raises:
        DataError: no such file, store or project, several projects and no name, or no label is left.
    """
    if is_store(source):
        return store_edges(source, ids)
    edges = PopEdges.load(source)
    if "labelled" not in edges.parameters:
        return edges
    return _between(edges, ids, source, "Export newer ones, or train on the data that was imported.")


def store_edges(source: str, ids: Sequence[str]) -> PopEdges:
    """The PoP labels of a store between some preferences, one edge for each label; what is left out is logged.

    Args:
        source: the store; `#NAME` at its end names the project, where there are several.
        ids: the preferences that are trained on. Labels of others, held out for testing, make no edges.

    Raises:
        DataError: no such store or project, several projects and no name, or no label is left.
    """
    url, _, name = source.partition("#")
    with open_store(url) as store:
        from popmargin.label.export.pop_edges import pop_edges

        project = store.project(name or None)
        edges, account = pop_edges(store, project)
    _LOG.warning("%s, project '%s': %s", url, project.name, account)
    other = [kind for kind in ("single preferences", "ratings") if account.left_out[kind]]
    remedy = (
        f"Its labels are {' and '.join(other)}: train on what `popmargin label export --as preferences` writes, or "
        "collect comparisons in a project of kind 'pop'."
        if other
        else f"Label some with: popmargin annotate --db {url}, or train on the data that was imported."
    )
    return _between(edges, ids, f"{url}, project '{project.name}'", remedy)


def _between(edges: PopEdges, ids: Sequence[str], where: str, remedy: str) -> PopEdges:
    """The edges whose two preferences are both among some; how many are not is logged."""
    known = pa.array(ids, pa.string())
    inside = pc.and_(pc.is_in(edges.table["stronger"], value_set=known), pc.is_in(edges.table["weaker"], known))
    kept = PopEdges(edges.table.filter(inside), {**edges.parameters, "comparisons": len(edges)})
    if len(kept) < len(edges):
        _LOG.warning(
            "%d of %d labels compare preferences that are not all trained on; they make no edges.",
            len(edges) - len(kept),
            len(edges),
        )
    ties = int(pc.sum(pc.cast(kept.table["tie"], pa.int64())).as_py() or 0)
    if ties:
        _LOG.warning("%d of the %d edges are ties: a scale uses them, training on edges does not.", ties, len(kept))
    if not len(kept):
        raise DataError(
            f"{where}: none of its {edges.parameters['labels']} labels compares two of the {len(ids)} training "
            f"preferences. {remedy}"
        )
    return kept
