"""What an edge source is: it recognises the name of its edges, and reads those between some preferences."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

from popmargin.errors import ConfigError
from popmargin.pop.edges import PopEdges
from popmargin.pop.labelled import weighted_annotators, without_annotators
from popmargin.registry import Registry, decorator

Read = Callable[..., PopEdges]


@dataclass(frozen=True)
class EdgeSource:
    """A registered edge source.

    Attributes:
        name: of the source.
        function: `(named, ids) -> edges` between the preferences with these ids.
        claims: whether a name belongs to this source; `file` takes names that no other source claims.
        grows: whether more edges may appear under the same name later, so a resumed run keeps its own.
        leaves_out: whether the function takes `without`, `weights` and `pool`, and follows them before anything is made
            of the labels; otherwise edges are left out and weighed afterwards, and none are pooled.
    """

    name: str
    function: Read
    _: KW_ONLY
    claims: Callable[[str], bool]
    grows: bool = False
    leaves_out: bool = False


EDGE_SOURCES: Registry[EdgeSource] = Registry("edge source", "popmargin.edge_sources")


edge_source = decorator(EDGE_SOURCES, EdgeSource)


def source_of(named: str) -> EdgeSource:
    """The source of edges with this name."""
    others = (EDGE_SOURCES.get(name) for name in EDGE_SOURCES.names() if name != "file")
    return next((source for source in others if source.claims(named)), EDGE_SOURCES.get("file"))


def read_edges(
    named: str,
    ids: Sequence[str],
    *,
    without: Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
    pool: str | None = None,
) -> PopEdges:
    """PoP edges between some preferences.

    Labels between other preferences, such as held-out ones, are dropped and counted, both in an exported file and in
    the store itself. Any other file is used as it is: it was made for these preferences.

    Args:
        named: a file of edges; or a label store; if it has several projects, `#NAME` at the end chooses one.
        ids: the preferences that are trained on.
        without: names of annotators whose labels are left out.
        weights: how much each label of an annotator counts, by name.
        pool: how all votes on a pair become one edge; None takes an edge a label.

    Raises:
        ConfigError: edges of a file are to be pooled.
        DataError: no such file, store or project, several projects and no name, nobody of a name in `without` or
            `weights`, or no labels are left.
    """
    source = source_of(named)
    if source.leaves_out:
        return source.function(named, ids, without=without, weights=weights, pool=pool)
    if pool is not None:
        raise ConfigError(
            f"pop.pool pools the votes of a label store, and {named} is a file of edges. Name the store in pop.edges, "
            "or export it with: popmargin label export --as edges --pool dawid-skene."
        )
    edges = source.function(named, ids)
    edges = without_annotators(edges, without, named) if without else edges
    return weighted_annotators(edges, weights, named) if weights else edges
