"""Rankings whose right order is known: read from a file, and found among the rankings of a project.

The file is CSV, JSONL, JSON or Parquet with a column `order`: ids of preferences, the strongest first, as a list or as
a text such as `p3 > p1 > p4`. Other columns are not read, so exported labels of rankings are such a file.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from popmargin.data.locate import open_source
from popmargin.data.questions import RANKED, Order, order_of
from popmargin.errors import DataError, counted
from popmargin.label.store.ranked_items import ids_in

COLUMN = "order"


@dataclass(frozen=True)
class KnownOrders:
    """Known orders, each of a different set of preferences.

    Attributes:
        source: where they are from, for messages.
        orders: ids of preferences, the strongest first.
    """

    source: str
    orders: tuple[tuple[str, ...], ...]

    def among(self, known: Collection[str], name: str) -> dict[frozenset[str], tuple[str, ...]]:
        """The preferences of each ranking -> their order.

        Args:
            known: ids of the preferences that there are.
            name: of what has them, for messages.

        Raises:
            DataError: an order names one that there is not.
        """
        for order in self.orders:
            missing = [one for one in order if one not in known]
            if missing:
                raise DataError(
                    f"gold: {self.source} orders preference {missing[0]!r}, which is not in {name}. Preferences are "
                    "matched by id."
                )
        return {frozenset(order): order for order in self.orders}


def read_orders(path: Path) -> KnownOrders:
    """The known orders of a file; one that comes twice counts once.

    Raises:
        DataError: a row without an order, one of too few or many preferences, or two orders of the same ones.
    """
    found = dict[frozenset[str], tuple[tuple[str, ...], str]]()
    for place, value in _cells(path):
        order = _order(place, value)
        before, where = found.setdefault(frozenset(order), (order, place))
        if before != order:
            raise DataError(f"{place}, column '{COLUMN}': {where} has another order of the same preferences. Keep one.")
    if not found:
        raise DataError(f"{path}: there is no row, so no known order. Give some, or omit gold.")
    return KnownOrders(path.name, tuple(order for order, _ in found.values()))


def order_in(ids: Sequence[str], order: Sequence[str]) -> Order:
    """An order as the answer to an item with these preferences.

    Example:
        >>> order_in(["a", "b", "c"], ["b", "c", "a"])
        '2>3>1'
    """
    return order_of([ids.index(one) + 1 for one in order])


def _order(place: str, value: object) -> tuple[str, ...]:
    said = f"{place}, column '{COLUMN}'"
    try:
        order = tuple(ids_in(value))
    except ValueError as error:
        raise DataError(f"{said}: {error}. Give ids of preferences, the strongest first: p3 > p1 > p4.") from None
    if len(order) not in RANKED:
        raise DataError(
            f"{said}: {counted(len(order), 'preference')}; a ranking has {RANKED[0]} to {RANKED[-1]}. Give ids of "
            "preferences, the strongest first: p3 > p1 > p4."
        )
    if len(set(order)) < len(order):
        raise DataError(f"{said}: a preference comes twice. Name each once.")
    return order


def _cells(path: Path) -> Iterator[tuple[str, object]]:
    for batch in (opened := open_source(str(path), split=None)).batches():
        source = batch.source or opened
        before, after = (f"{source.name}:", "") if source.by_line else (f"{source.name}, row ", " (from 0)")
        for position, error in batch.broken:
            raise DataError(f"{before}{position}{after}: {error.message} Remedy: {error.remedy}")
        for position, row in zip(batch.positions, batch.read(), strict=True):
            place = f"{before}{position}{after}"
            if COLUMN not in row:
                raise DataError(
                    f"{place}: no column '{COLUMN}'. Give a file of gold for rankings one with ids of preferences, the "
                    "strongest first."
                )
            yield place, row[COLUMN]
