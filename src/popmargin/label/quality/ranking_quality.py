"""How good rankings of several preferences are: Kendall's τ of people, and a row for each annotator.

τ is 1 for the same order, −1 for the opposite one, and 0 by chance; (1 + τ) / 2 of all pairs are in the same order.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow.compute

from popmargin.data.questions import is_order, numbers_of, same_share
from popmargin.label.quality.adjudications import not_adjudicated
from popmargin.label.quality.annotator_row import AnnotatorRow
from popmargin.statistics.intervals import UNDEFINED, Interval
from popmargin.statistics.jackknife import share_of_sums

pc: Any = pyarrow.compute
COLUMNS = ("kind", "item", "annotator", "annotator_kind", "assignment", "verdict", "shown_order", "repeat_of",
           "seconds", "adjudicated", "gold", "training")  # fmt: skip
"""Columns of a table of labels that `ranking_quality` reads."""


@dataclass(frozen=True, kw_only=True)
class RankerQuality(AnnotatorRow):
    """One annotator's rankings; κ is unknown, since orders are compared by τ.

    Attributes:
        others: mean τ with each other person who ranked the item.
        consistency: mean τ of repeated rankings with the first ones.
        gold: share of the comparisons in gold rankings that are as in the known order.
        left: share of orders that begin with the pair that was furthest left.
        by_chance: what it would be if places on the screen did not matter.
    """

    left: Interval
    by_chance: float


@dataclass(frozen=True)
class RankingQuality:
    """Rankings of several preferences.

    Attributes:
        items: labelled rankings.
        shared: of these, with orders of at least two people.
        tau: mean τ of two people's orders.
        rankers: a row for each annotator, people first.
    """

    items: int
    shared: int
    tau: Interval
    rankers: list[RankerQuality]


def kendall(one: str, other: str) -> float:
    """Kendall's τ of two orders of the same preferences.

    Example:
        >>> kendall("1>2>3", "1>2>3"), kendall("1>2>3", "3>2>1")
        (1.0, -1.0)
    """
    return 2 * same_share(one, other) - 1


def ranking_quality(labels: Any) -> RankingQuality | None:
    """Statistics of the labels of kind "rank"; None without one.

    Args:
        labels: as of `LabelStore.labels`, with at least `COLUMNS`.
    """
    labels = not_adjudicated(labels.filter(pc.equal(labels["kind"], "rank")))
    if not labels.num_rows:
        return None
    rows: list[dict[str, Any]] = labels.select(COLUMNS).to_pylist()
    once = [row for row in rows if row["repeat_of"] is None]
    given: dict[int, dict[str, str]] = {}
    for row in once:
        if row["annotator_kind"] == "person" and is_order(row["verdict"]):
            given.setdefault(row["item"], {})[row["annotator"]] = row["verdict"]
    shared = [[kendall(a, b) for a, b in combinations(said.values(), 2)] for said in given.values() if len(said) > 1]
    by_name: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        by_name.setdefault((row["annotator_kind"], row["annotator"]), []).append(row)
    who = sorted(by_name, key=lambda one: (one[0] != "person", one))
    return RankingQuality(
        items=len({row["item"] for row in rows}),
        shared=len(shared),
        tau=_mean_tau(shared),
        rankers=[_ranker(name, kind, by_name[kind, name], given) for kind, name in who],
    )


def _ranker(
    name: str, kind: str, own: Sequence[Mapping[str, Any]], given: Mapping[int, Mapping[str, str]]
) -> RankerQuality:
    once = [row for row in own if row["repeat_of"] is None]
    orders = [row for row in once if is_order(row["verdict"])]
    times = [row["seconds"] for row in once if row["seconds"] is not None]
    others = [
        [kendall(row["verdict"], said) for other, said in given.get(row["item"], {}).items() if other != name]
        for row in orders
    ]
    first = {row["assignment"]: row["verdict"] for row in orders}
    again = [
        [kendall(row["verdict"], first[row["repeat_of"]])]
        for row in own
        if row["repeat_of"] in first and is_order(row["verdict"])
    ]
    known = [row for row in orders if row["gold"] is not None and not row["training"]]
    seen = [row for row in orders if row["shown_order"] is not None]
    left = [[float(numbers_of(row["verdict"])[0] == numbers_of(row["shown_order"])[0])] for row in seen]
    return RankerQuality(
        name=name,
        kind=kind,
        labels=len(once),
        seconds=float(np.median(times)) if times else math.nan,
        unsure=1 - len(orders) / len(once) if once else math.nan,
        others=_mean_tau(others),
        consistency=_mean_tau(again),
        gold=_mean([[same_share(row["verdict"], row["gold"])] for row in known]),
        left=_mean(left),
        by_chance=float(np.mean([1 / len(numbers_of(row["verdict"])) for row in seen])) if seen else math.nan,
    )


def _mean_tau(values: Sequence[Sequence[float]]) -> Interval:
    """The mean of τ, by the share of pairs in the same order."""
    found = _mean([[(1 + tau) / 2 for tau in group] for group in values])
    return Interval(2 * found.estimate - 1, 2 * found.low - 1, 2 * found.high - 1)


def _mean(values: Sequence[Sequence[float]]) -> Interval:
    """The mean of all values, with the jackknife over the groups, which are items."""
    sums = np.array([[sum(group), len(group)] for group in values if group], dtype=np.float64)
    return share_of_sums(sums) if len(sums) else UNDEFINED
