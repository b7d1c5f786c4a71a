"""Rankings among PoP edges: the edges of one ranking name it, and together they are its order.

A ranking of m preferences is the m − 1 edges between neighbours, whose `weaker` is the `stronger` of the next one. They
are one answer: whoever counts them as m − 1 independent comparisons counts wrongly (docs/scale.md).
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from popmargin.errors import DataError, counted
from popmargin.pop.edges import PopEdges
from popmargin.pop.plackett_luce import MOST

pc: Any = pyarrow.compute


@dataclass(frozen=True)
class EdgeRanking:
    """One ranking.

    Attributes:
        name: in the column `ranking`.
        order: ids, the strongest first.
        rows: of its edges in the table, in the order of the ranking.
    """

    name: str
    order: tuple[str, ...]
    rows: tuple[int, ...]


def rankings_of(table: Any) -> list[EdgeRanking]:
    """The rankings of a table of edges, in order of appearance.

    Raises:
        DataError: the edges of one are no single order, or differ in annotator, source or confidence.
    """
    named: dict[str, list[int]] = {}
    for row in np.flatnonzero(pc.is_valid(table["ranking"]).to_numpy()).tolist():
        named.setdefault(table["ranking"][row].as_py(), []).append(row)
    columns = {name: table[name].to_pylist() for name in ("stronger", "weaker", "source", "annotator", "confidence")}
    return [_ranking(name, rows, columns) for name, rows in named.items()]


def _ranking(name: str, rows: list[int], columns: dict[str, list[Any]]) -> EdgeRanking:
    after = {columns["stronger"][row]: row for row in rows}
    weaker = {columns["weaker"][row] for row in rows}
    starts = [side for side in after if side not in weaker]
    order, used = starts[:1], list[int]()
    while order and order[-1] in after:
        used.append(after[order[-1]])
        order.append(columns["weaker"][used[-1]])
    if len(used) != len(rows):
        raise DataError(
            f"PoP edges: the {len(rows)} edges of ranking '{name}' (row {rows[0]} and others) are not one order, in "
            "which each weaker preference is the stronger one of the next edge. Remedy: keep all edges of a ranking, "
            "or empty their column 'ranking' to count them as single comparisons."
        )
    if len(order) > MOST:
        raise DataError(
            f"PoP edges: ranking '{name}' (row {rows[0]}) has {counted(len(order), 'preference')}; {MOST} is the most. "
            "Remedy: split it into several rankings."
        )
    for column in ("source", "annotator", "confidence"):
        if len({columns[column][row] for row in rows}) > 1:
            raise DataError(
                f"PoP edges: the edges of ranking '{name}' (row {rows[0]}) differ in '{column}'; they are one answer. "
                "Remedy: give all of them the same value."
            )
    return EdgeRanking(name, tuple(order), tuple(used))


def edges_without(edges: PopEdges, keep: Any, gone: Collection[str]) -> PopEdges:
    """The edges that are kept, with rankings closed up around preferences that are gone.

    Of a ranking a > b > c without b, the edge a > c is left: a ranking of some is what Plackett–Luce says of them, too.

    Args:
        edges: the edges.
        keep: whether each is kept (E,); those between preferences that are not gone.
        gone: ids of the preferences that are gone.
    """
    table, keep = edges.table, np.array(keep, dtype=bool)
    weaker = table["weaker"].to_pylist()
    cut = False
    for ranking in rankings_of(table) if table["ranking"].null_count < len(table) else []:
        left = [place for place, name in enumerate(ranking.order) if name not in gone]
        if len(left) == len(ranking.order):
            continue
        cut = True
        keep[list(ranking.rows)] = False
        for one, other in pairwise(left):
            keep[ranking.rows[one]] = True
            weaker[ranking.rows[one]] = ranking.order[other]
    if cut:
        place = table.column_names.index("weaker")
        table = table.set_column(place, "weaker", pa.array(weaker, pa.string()))
    return PopEdges(table.filter(pa.array(keep)), edges.parameters)
