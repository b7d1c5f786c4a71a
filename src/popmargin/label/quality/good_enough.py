"""Whether the comparisons of a project order its preferences well enough, and how many more it takes."""

import math
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from popmargin.data.questions import is_order
from popmargin.errors import counted
from popmargin.label.store.ranked_items import ranked_ids
from popmargin.pop.precision import ScalePrecision, scale_precision
from popmargin.report.metrics import number

pc: Any = pyarrow.compute
COLUMNS = ("kind", "first", "second", "others", "annotator_kind", "verdict", "repeat_of")
"""Columns of a table of labels that `order_of` reads."""
TARGET = 0.9
"""Of the rank correlation with the true strengths, if nobody sets another."""


def order_of(labels: Any, target: float = TARGET) -> ScalePrecision | None:
    """The precision of the scale of people's decided comparisons and rankings; None without one.

    Args:
        labels: as of `LabelStore.labels`, with `COLUMNS`.
        target: of the rank correlation.
    """
    people = pc.and_(pc.equal(labels["annotator_kind"], "person"), pc.is_null(labels["repeat_of"]))
    decided = pc.is_in(labels["verdict"], value_set=pa.array(["first", "second"]))
    own = labels.filter(pc.and_(people, pc.and_(decided, pc.equal(labels["kind"], "pop"))))
    ranked = labels.filter(pc.and_(people, pc.equal(labels["kind"], "rank")))
    orders = [ranked_ids(row) for row in ranked.to_pylist() if is_order(row["verdict"])]
    if not own.num_rows and not orders:
        return None
    names = [
        own["first"].combine_chunks(),
        own["second"].combine_chunks(),
        pa.array(list(chain.from_iterable(orders)), pa.string()),
    ]
    every = pa.concat_arrays(names).dictionary_encode()
    first, second, placed = np.split(every.indices.to_numpy(), [own.num_rows, 2 * own.num_rows])
    ends = np.cumsum([len(order) for order in orders])
    rankings = [part.tolist() for part in np.split(placed, ends[:-1])] if orders else []
    won = pc.equal(own["verdict"], "first").to_numpy()
    return scale_precision(
        np.where(won, first, second), np.where(won, second, first), len(every.dictionary), rankings=rankings,
        target=target,
    )  # fmt: skip


def order_sentences(found: ScalePrecision, compared_of: int | None = None) -> list[str]:
    """What it says.

    Args:
        found: of `order_of`.
        compared_of: preferences of the project, if known.
    """
    if math.isnan(found.spearman.estimate):
        return ["The order of the preferences is unknown: too few are compared."]
    correlation = number(found.spearman.estimate, 2)
    ends = f"{number(found.spearman.low, 2)} to {number(found.spearman.high, 2)}"
    text = (
        f"{counted(found.comparisons, 'comparison')} order {counted(found.preferences, 'preference')} with a rank "
        f"correlation of {correlation} ({ends}) with the true strengths; the target is {number(found.target, 2)}."
    )
    if found.reached:
        after = "The scale is good enough: the whole interval is above the target."
    elif found.more.estimate == 0:
        after = f"That may be enough; up to {_count(found.more.high)} more comparisons make it sure."
    else:
        after = (
            f"About {_count(found.more.estimate)} more comparisons ({_count(found.more.low)} to "
            f"{_count(found.more.high)}), spread evenly, reach it."
        )
    left = f"Another one says {number(found.information, 0, share=True)} of what the first one said."
    missing = "" if compared_of is None or compared_of <= found.preferences else (
        f" {counted(compared_of - found.preferences, 'preference')} without a comparison cannot be ordered."
    )  # fmt: skip
    return [f"{text} {after} {left}{missing}"]


def _count(value: float) -> str:
    """Two digits of a number, which has no more.

    Example:
        >>> _count(1234.0), _count(float("inf"))
        ('1,200', 'more than 10,000 times as many')
    """
    if value == float("inf"):
        return "more than 10,000 times as many"
    places = max(0, len(str(int(value))) - 2)
    return number(round(value, -places), 0)
