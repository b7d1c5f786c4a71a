"""Reading known answers and times that `label import`, `annotate` and `label set` share."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from popmargin.cli.data_options import tell_left_out
from popmargin.data.questions import Kind
from popmargin.pop.edges import PopEdges

if TYPE_CHECKING:
    from popmargin.data.schema import Preferences
    from popmargin.label.projects.known_orders import KnownOrders


def read_gold(path: Path, kind: Kind) -> "PopEdges | Preferences | KnownOrders":
    """Known answers for items of a kind, with their own layout: the options of the data do not apply.

    Raises:
        DataError: a file that cannot be read.
    """
    if kind == "pop":
        return PopEdges.load(path)
    if kind == "rank":
        from popmargin.label.projects.known_orders import read_orders

        return read_orders(path)
    from popmargin.data.load import load_preferences

    gold = load_preferences(path, ties="drop" if kind == "rating" else "keep")
    tell_left_out(gold, str(path))
    return gold


def lease_seconds(minutes: float | None) -> float | None:
    """A lease in whole seconds; nan and infinity, which cannot be rounded, are refused with other wrong values."""
    return round(minutes * 60) if minutes is not None and math.isfinite(minutes) else minutes
