"""What an edge source is: it recognises the name of its edges, and reads those between some preferences."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass

from popmargin.pop.edges import PopEdges
from popmargin.registry import Registry, decorator

Read = Callable[[str, Sequence[str]], PopEdges]


@dataclass(frozen=True)
class EdgeSource:
    """A registered edge source.

    Attributes:
        name: of the source.
        function: `(named, ids) -> edges` between the preferences with these ids.
        claims: whether a name is one of this source's; `file` takes what no other claims.
        grows: whether there may be more edges under the same name tomorrow, so that a run that goes on keeps its own.
    """

    name: str
    function: Read
    _: KW_ONLY
    claims: Callable[[str], bool]
    grows: bool = False


EDGE_SOURCES: Registry[EdgeSource] = Registry("edge source", "popmargin.edge_sources")


edge_source = decorator(EDGE_SOURCES, EdgeSource)


def source_of(named: str) -> EdgeSource:
    """The source of edges with this name."""
    others = (EDGE_SOURCES.get(name) for name in EDGE_SOURCES.names() if name != "file")
    return next((source for source in others if source.claims(named)), EDGE_SOURCES.get("file"))


def read_edges(named: str, ids: Sequence[str]) -> PopEdges:
    """PoP edges between some preferences.

    Of labels, those between other preferences, held out for testing, are left out and counted, in a file that was
    exported as in the store itself. Any other file is taken whole: it was made for these preferences.

    Args:
        named: a file of edges; or a label store, where `#NAME` at its end names the project, if there are several.
        ids: the preferences that are trained on.

    Raises:
        DataError: no such file, store or project, several projects and no name, or no label is left.
    """
    return source_of(named).function(named, ids)
