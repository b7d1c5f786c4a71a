"""Labels of rankings in a table: a column `order` with ids of preferences, as `label export --as labels` writes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from popmargin.data.questions import Verdict, is_order, numbers_of
from popmargin.errors import ConfigError
from popmargin.label.outside.on_criteria import TABLES
from popmargin.label.outside.outside_label import LeftOut, OutsideLabel, Rows
from popmargin.label.projects.known_orders import COLUMN, order_in
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.ranked_items import ids_in, load_others
from popmargin.label.store.records import Project


@dataclass(frozen=True)
class Ranked:
    """What a row says of a ranking, in the numbers of the item that has these preferences.

    Attributes:
        others: ids after the first, as the item keeps them.
        shown: the order on the screen; empty if it is not known.
    """

    item: int
    size: int
    others: str
    verdict: Verdict
    shown: tuple[int, ...]


def check_ranking_format(format: str, name: str) -> None:
    """Refuse what is no table: other tools have no rankings of several preferences.

    Raises:
        ConfigError: it says what to do.
    """
    if format not in TABLES:
        raise ConfigError(
            f"Project '{name}' asks for rankings of several preferences, which are read from tables with a column "
            f"'{COLUMN}'. Convert the labels from {format} to CSV or JSONL."
        )


def with_order(rows: Rows, columns: Mapping[str, str]) -> Rows:
    """The rows with their order of ids as the verdict; those without one keep theirs."""
    name, label = columns.get(COLUMN, COLUMN), columns.get("label", "verdict")
    for place, row in rows:
        given = row.get(name)
        try:
            yield place, row if given in (None, "") else {**row, label: ids_in(given)}
        except ValueError:
            yield place, {**row, label: given}


class RankedItems:
    """Finds the rankings of a project by their preferences.

    Args:
        store: the store.
        project: whose items.
    """

    def __init__(self, store: LabelStore, project: Project) -> None:
        self._items = dict[frozenset[str], tuple[int, list[str], str]]()
        for batch in store.items(project.id):
            for row in batch.to_pylist():
                if row["kind"] == "rank":
                    ids = [row["first"], *load_others(row["others"])]
                    self._items.setdefault(frozenset(ids), (row["item"], ids, row["others"]))

    def read(self, label: OutsideLabel, *, unsure: bool) -> Ranked | LeftOut:
        """The item of a label and its answer, or what is wrong.

        Args:
            label: its value is an order of ids, or of numbers of the preferences in its columns first and others.
            unsure: the value says that there is no order.
        """
        try:
            named = _named(label.cells)
            value = label.values[0]
            if unsure:
                order = named
            elif named and isinstance(value, str) and is_order(value):
                order = [named[number - 1] for number in numbers_of(value) if number <= len(named)]
            else:
                order = ids_in(value)
        except ValueError as error:
            return _left_out(label, "unknown answer", f"{error}.")
        if not order:
            return _left_out(label, "no such item", "it does not name the preferences that were ranked.")
        found = self._items.get(frozenset(order))
        if found is None or len(set(order)) < len(order):
            named_here = ", ".join(order)[:80]
            return _left_out(label, "no such item", f"the project has no ranking of {named_here}.")
        item, ids, others = found
        verdict: Verdict = "unsure" if unsure else order_in(ids, order)
        on_screen = label.cells.get("shown_order")
        shown: tuple[int, ...] = ()
        if isinstance(on_screen, str) and is_order(on_screen) and set(named) == set(ids):
            shown = tuple(ids.index(named[number - 1]) + 1 for number in numbers_of(on_screen))
        return Ranked(item, len(ids), others, verdict, shown)


def _named(cells: Mapping[str, Any]) -> list[str]:
    """The preferences in the columns first and others, by which exported labels number them."""
    first, others = cells.get("first"), cells.get("others")
    return [] if first in (None, "") or others in (None, "") else [str(first), *ids_in(others)]


def _left_out(label: OutsideLabel, reason: str, message: str) -> LeftOut:
    remedy = f"give the ids of its preferences, the strongest first, in a column '{COLUMN}': p3 > p1 > p4."
    return LeftOut(place=label.place, reason=reason, message=message, remedy=remedy)
