"""PoP edges directly from a label store, for a training run."""

import logging
from collections.abc import Collection, Mapping, Sequence

from popmargin.label.export.pooled_votes import Pooling
from popmargin.label.store.address import in_words, open_store
from popmargin.pop.edges import PopEdges
from popmargin.pop.labelled import labels_between

_LOG = logging.getLogger(__name__)


def store_edges(
    source: str,
    ids: Sequence[str],
    *,
    without: Collection[str] = (),
    weights: Mapping[str, float] | None = None,
    pool: Pooling | None = None,
) -> PopEdges:
    """The PoP labels of a store between some preferences, one edge per label, or per pair; what is left out is logged.

    Args:
        source: the store; `#NAME` at its end names the project, if there are several.
        ids: the training preferences. Labels of others, held out for testing, give no edges.
        without: names of annotators whose labels are left out.
        weights, pool: as of `pop_edges`.

    Raises:
        DataError: no such store or project, several projects and no name, or no label is left.
    """
    url, _, name = source.partition("#")
    with open_store(url) as store:
        from popmargin.label.export.pop_edges import pop_edges

        project = store.project(name or None)
        edges, account = pop_edges(store, project, without=without, weights=weights or {}, pool=pool)
    _LOG.warning("%s, project '%s': %s", url, project.name, account)
    other = [kind for kind in ("single preferences", "ratings") if account.left_out[kind]]
    remedy = (
        f"Its labels are {' and '.join(other)}: train on the output of `popmargin label export --as preferences`, or "
        "collect comparisons in a project of kind 'pop'."
        if other
        else f"Label some with: popmargin annotate --db {in_words(url)}, or train on the data that was imported."
    )
    return labels_between(edges, ids, f"{url}, project '{project.name}'", remedy)
