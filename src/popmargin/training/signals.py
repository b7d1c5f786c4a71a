"""What says how strong a preference is, and what it is used as: margin, soft label, order of PoP edges or weight.

A *signal* is a column of numbers of the data with a unit: ratings, a strength, a margin, votes, weights … The run's
`signals` say which one a part of the run is given; else the data's own columns of that name are taken.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import expit, logit

from popmargin.data.schema import Preferences
from popmargin.errors import ConfigError, DataError, did_you_mean
from popmargin.registry import make_options

USES = ("margin", "soft_label", "order", "weight")
"""What every run may make of a signal; beside these, the columns that its own parts declare."""
Unit = Literal["reward", "nats", "probability"]


@dataclass(frozen=True, kw_only=True)
class Signal:
    """A column of the data, and what its numbers mean.

    Attributes:
        column: a column of numbers of the data, or `ratings`: the gap between both ratings.
        unit: of `scale` times its numbers: `reward` (log-odds that chosen is better), `nats` (reward / β), or
            `probability` that chosen is better, whose log-odds are scaled; null for probabilities in `soft_label` and
            `reward` elsewhere.
        scale: units for each unit of the column.
    """

    column: str
    unit: Unit | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < np.inf:
            raise ConfigError(f"signals: scale must be a finite number above 0, not {self.scale}.")

    @property
    def read_as(self) -> Unit:
        """The unit, or what the column's name says of it."""
        return self.unit or ("probability" if self.column == "soft_label" else "reward")


def make_signals(values: Mapping[str, Any], columns: Iterable[str]) -> dict[str, Signal]:
    """The run's signals by use: `order` (of PoP edges that are sampled), or the name of a column that parts read.

    Args:
        values: the run's `signals`.
        columns: names of the columns that the run's own parts read.

    Raises:
        ConfigError: a use that there is not, or an unknown or invalid option.
    """
    known = list(dict.fromkeys([*USES, *columns]))
    for name in values:
        if name not in known:
            raise ConfigError(f"signals.{name}: no part of this run reads such a column. {did_you_mean(name, known)}")
    named = {name: {"column": value} if isinstance(value, str) else value for name, value in values.items()}
    for name, value in named.items():
        if not isinstance(value, Mapping) or "column" not in value:
            raise ConfigError(f"signals.{name} needs a column, e.g. {{column: strength, scale: 0.5}}, not {value!r}.")
    return {name: make_options(Signal, value, f"signals.{name}") for name, value in named.items()}


def raw_values(preferences: Preferences, column: str) -> np.ndarray:
    """A column's numbers (N,), nan where unknown.

    Raises:
        DataError: there is no such column of numbers.
    """
    values = preferences.rating_gap if column == "ratings" else preferences.column(column)
    if values.ndim != 1:
        raise DataError(f"The column '{column}' holds {values.shape[1]} numbers a row: a signal is one.")
    return values


def order_of(preferences: Preferences, signal: Signal | None) -> np.ndarray:
    """How strong each preference is (N,), for the order of PoP edges; nan where unknown."""
    return preferences.strength if signal is None else raw_values(preferences, signal.column) * signal.scale


def column_of(
    preferences: Preferences, index: Sequence[int] | np.ndarray, name: str, signal: Signal | None, beta: float
) -> np.ndarray:
    """The numbers that a part reads as the column `name`.

    Args:
        preferences: of the data (N,).
        index: which of them (B,).
        name: the column as the part knows it; `margin` in reward units, `soft_label` a probability, others as they are.
        signal: what it is made of; None for the data's own: `margin` is the gap of the ratings, else a strength or the
            column `margin`.
        beta: reward units per nat.

    Returns:
        (B,), float32.

    Raises:
        DataError: some have no number, or one that cannot be; the message names the first.
    """
    ids = [preferences.ids[place] for place in index]
    if signal is None:
        own = {"margin": lambda: preferences.margin, "soft_label": lambda: preferences.soft_label}
        values = own[name]() if name in own else raw_values(preferences, name)
        values = values[np.asarray(index, dtype=np.int64)]
    else:
        values = _as(name, raw_values(preferences, signal.column)[np.asarray(index, dtype=np.int64)], signal, beta, ids)
    _refuse_unknown(name, signal, values, ids)
    if name == "weight":
        _refuse(values < 0, values, ids, "weight must be 0 or more", "Correct these, or leave the rows out")
        if not (values > 0).any():
            raise DataError("weight is 0 in all training preferences: nothing would be trained. Give some a weight.")
    return values.astype(np.float32)


def _as(name: str, values: np.ndarray, signal: Signal, beta: float, ids: Sequence[str]) -> np.ndarray:
    """A signal's numbers in the unit of the column that is made of them."""
    unit, column = signal.read_as, signal.column
    if unit == "probability":
        bad = (values < 0) | (values > 1)
        _refuse(bad, values, ids, f"{column} must be a probability, 0 to 1", "Choose another unit for the signal")
    if name == "soft_label" and unit == "probability" and signal.scale == 1:
        return values
    factor = signal.scale * (beta if unit == "nats" else 1)
    if name == "soft_label":
        return expit(factor * (logit(values) if unit == "probability" else values))
    if name == "margin" and unit == "probability":
        ends = (values <= 0) | (values >= 1)
        _refuse(ends, values, ids, f"{column} is certain, which is an endless margin", "Keep it inside 0 and 1")
        values = logit(values)
    return factor * values if name == "margin" else signal.scale * values


def _refuse_unknown(name: str, signal: Signal | None, values: np.ndarray, ids: Sequence[str]) -> None:
    missing = np.flatnonzero(~np.isfinite(values))
    if not len(missing):
        return
    needed, remedy = {
        "margin": ("chosen_rating and rejected_rating", "Give the data these columns, or a strength"),
        "soft_label": ("soft_label", "Give it, set data.soft_label_temperature to make it from ratings"),
    }.get(name, (name, "Fill it in"))
    if signal is not None:
        needed, remedy = f"{signal.column} as {name} (signals.{name})", "Fill it in, name another column"
    raise DataError(
        f"The objective or its margin needs {needed}, which {len(missing)} of {len(values)} preferences lack (first: "
        f"'{ids[missing[0]]}'). {remedy}, or choose others that do without."
    )


def _refuse(bad: np.ndarray, values: np.ndarray, ids: Sequence[str], rule: str, remedy: str) -> None:
    places = np.flatnonzero(bad)
    if len(places):
        shown = ", ".join(f"'{ids[place]}' ({values[place]:g})" for place in places[:5])
        more = " …" if len(places) > 5 else ""
        raise DataError(f"{rule}: {len(places)} of {len(values)} preferences break this: {shown}{more}. {remedy}.")


def weight_note(weights: np.ndarray) -> str:
    """How unequal the weights of the rows (R,) are, in a sentence: their mean and Kish's effective sample size."""
    weights = weights.astype(np.float64)
    effective = weights.sum() ** 2 / (weights**2).sum()
    return f"rows are weighted: mean weight {weights.mean():g}, effective sample size {effective:.1f} of {len(weights)}"
