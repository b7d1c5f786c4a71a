"""Signals of preference strength, and their use: as margin, soft label, order of PoP edges or weight.

A *signal* is a numeric column of the data: ratings, a strength, a margin, votes, a custom label. The run's `signals`
say which column is used as what; by default the data's columns of these names are used.

Axis suffix N: the training preferences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import expit, logit

from popmargin.data.schema import Preferences
from popmargin.errors import ConfigError, DataError, counted, did_you_mean
from popmargin.registry import make_options

USES = ("margin", "soft_label", "order", "weight")
"""Uses of a signal in every run, besides the columns that its parts declare."""
_RATINGS = ("chosen_rating", "rejected_rating")
_UNITS = {"reward": "reward units", "nats": "nats", "probability": "probabilities"}
_WHO = {"weight": "A run with weights"}
_REMEDIES = {
    "weight": "set signals.weight to null to train without weights, ",
    "soft_label": "set data.soft_label_temperature to make it from ratings, choose an objective without soft labels, ",
    "margin": "choose an objective and a margin that do without, ",
}
_WITH_UNIT = ("margin", "soft_label")
_LARGEST = float(np.finfo(np.float32).max)
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Signal:
    """A column, and the meaning of its numbers.

    Attributes:
        column: a numeric column of the data; `ratings`: chosen_rating − rejected_rating; `scale`: the run's strength
            scale (see `pop`).
        unit: of a margin or soft label, after `scale`: `reward` (log-odds that chosen is better), `nats` (reward units
            divided by the objective's β), or `probability` that chosen is better. null means `probability` for the
            column soft_label and `reward` for any other.
        scale: factor of the numbers; for a probability, of its log-odds. A negative one reverses the order.
    """

    column: str
    unit: Literal["reward", "nats", "probability"] | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not np.isfinite(self.scale) or self.scale == 0:
            raise ValueError(f"signals: scale must be a finite number other than 0, not {self.scale}.")

    @property
    def read_as(self) -> str:
        """The unit, or the one implied by the column's name."""
        return self.unit or ("probability" if self.column == "soft_label" else "reward")

    @property
    def sources(self) -> tuple[str, ...]:
        """The data columns it reads."""
        return {"ratings": _RATINGS, "scale": ()}.get(self.column, (self.column,))

    def describe(self, use: str, names: Mapping[str, str]) -> str:
        """A description of the use, for the account.

        Args:
            use: the use.
            names: the columns' names in files, if they differ.
        """
        told = {"ratings": "the gap of the ratings", "scale": "the strength scale"}.get(self.column)
        if told is None:
            other = names.get(self.column, self.column)
            told = f"column '{self.column}'" + (f" ('{other}' in the file)" if other != self.column else "")
        unit = f", {_UNITS[self.read_as]}" if use in _WITH_UNIT else ""
        return f"{use}: {told}{unit}, times {self.scale:g}"


Signals = Mapping[str, Signal | None]
"""Configured signals by use; None for an unused weight."""


def make_signals(values: Mapping[str, Any], columns: Sequence[str]) -> Signals:
    """The signals in a configuration.

    Args:
        values: the run's `signals`: for each use a column, or `column`, `unit` and `scale`.
        columns: those read by the run's parts.

    Raises:
        ConfigError: an unknown use, or an unknown or invalid option.
    """
    known = list(dict.fromkeys([*USES, *(name for name in columns if name != "scale")]))
    made: dict[str, Signal | None] = {}
    for use, value in values.items():
        if use not in known:
            raise ConfigError(f"signals.{use}: no part of this run reads such a column. {did_you_mean(use, known)}")
        if use == "weight" and value is None and use not in columns:
            made[use] = None
            continue
        options = {"column": value} if isinstance(value, str) else value
        if not isinstance(options, Mapping) or "column" not in options:
            raise ConfigError(f"signals.{use} is {value!r}: name a column, e.g. {{column: strength, scale: 0.5}}.")
        signal: Signal = make_options(Signal, options, f"signals.{use}")
        if signal.unit is not None and use not in _WITH_UNIT:
            raise ConfigError(f"signals.{use}.unit: only margin and soft_label have a unit. Remove it.")
        if use == "order" and signal.column == "scale":
            raise ConfigError(
                "signals.order: the scale is fitted to edges, so edges cannot be sampled from it. Write it into the "
                "data (popmargin pop scale … --preferences-out FILE --as strength) and train on these."
            )
        made[use] = signal
    return made


def own_signal(preferences: Preferences, use: str) -> Signal:
    """The default signal: the column of that name.

    The margin is the rating gap; if some have none, the strengths or the column `margin`, if all have these.
    """
    return Signal(column=(preferences.margin_column or "ratings") if use == "margin" else use)


def own_order(preferences: Preferences) -> str:
    """The default order from which edges are sampled, for the account."""
    explicit = np.isfinite(preferences.column("strength"))
    if 0 < explicit.sum() < len(explicit):
        return (
            f"order: column 'strength' in {explicit.sum()} of {counted(len(explicit), 'row')}, the rating gap in others"
        )
    return Signal(column="strength" if explicit.any() else "ratings").describe("order", preferences.report.columns_used)


def has_weights(preferences: Preferences, signals: Signals) -> bool:
    """Whether the rows are weighted: by a signal, or by weights in the data that no signal turns off."""
    if "weight" in signals:
        return signals["weight"] is not None
    return "weight" in preferences.columns and bool(np.isfinite(preferences.column("weight")).any())


def raw_values(preferences: Preferences, column: str) -> np.ndarray:
    """A column's numbers (one per preference), nan where unknown.

    Raises:
        DataError: there is no such numeric column.
    """
    values = preferences.rating_gap if column == "ratings" else preferences.column(column)
    if values.ndim != 1:
        raise DataError(
            f"The column '{column}' has {values.shape[1]} numbers per row, but a signal is a single number."
        )
    return values


def column_of(
    use: str,
    signal: Signal,
    values: np.ndarray,
    ids: Sequence[str],
    beta: float,
) -> np.ndarray:
    """The numbers read by a run's parts as the column `use`.

    Args:
        use: margin (reward units), soft_label (a probability), weight, or any other column (unchanged).
        signal: their source.
        values: its column (N,), finite.
        ids: of the preferences (N,).
        beta: reward units per nat.

    Returns:
        (N,), float32.

    Raises:
        DataError: some numbers are invalid; the message names the first.
    """
    read = values
    with np.errstate(over="ignore"):
        values = _margin_or_label(use, signal, read, ids, beta) if use in _WITH_UNIT else signal.scale * read
    rule = f"As {use}, the column '{signal.column}' times its scale must be at most {_LARGEST:.1e}, as fp32 needs"
    _refuse(np.abs(values) > _LARGEST, read, ids, rule, f"Correct them, or set signals.{use}.scale")
    if use == "weight":
        remedy = "Correct them, or set signals.weight to null"
        _refuse(values < 0, values, ids, f"As weights, the column '{signal.column}' must be 0 or more", remedy)
        if not values.any():
            raise DataError("All weights are 0, so nothing would be trained. Give some rows a weight above 0.")
    return values.astype(np.float32)


def lacking(use: str, ways: Mapping[str, np.ndarray], ids: Sequence[str], *, given: bool) -> str:
    """A message on why some preferences have no number for a use, and the remedy.

    Args:
        use: the use of the numbers.
        ways: columns that could supply them, with their values (N,), nan where unknown.
        ids: of the preferences (N,).
        given: whether the configuration names the column.
    """
    said: list[str] = []
    for column, values in ways.items():
        missing, name = np.flatnonzero(~np.isfinite(values)), " and ".join(Signal(column=column).sources)
        if len(missing):
            said.append(f"{name}, which {len(missing)} of {len(ids)} preferences lack (first: '{ids[missing[0]]}')")
    who = f"signals.{use}" if given else _WHO.get(use, "The objective or its margin")
    other = "name another column" if given else f"name another column (signals.{use})"
    return f"{who} needs {', or '.join(said)}. Fill it in, {_REMEDIES.get(use, '')}or {other}."


def _margin_or_label(use: str, signal: Signal, values: np.ndarray, ids: Sequence[str], beta: float) -> np.ndarray:
    """A signal's numbers as log-odds (a margin) or as a probability (a soft label)."""
    column = f"the column '{signal.column}'"
    factor = signal.scale * (beta if signal.read_as == "nats" else 1.0)
    if signal.read_as == "probability":
        rule = f"As probabilities, {column} must be from 0 to 1"
        _refuse((values < 0) | (values > 1), values, ids, rule, f"Name another signals.{use}.unit")
    if use == "margin":
        if signal.read_as == "probability":
            ends = (values == 0) | (values == 1)
            rule = f"As a margin, {column} must be strictly between 0 and 1: the log-odds of 0 and 1 are infinite"
            _refuse(ends, values, ids, rule, "Write e.g. 0.01 or 0.99")
        return factor * (logit(values) if signal.read_as == "probability" else values)
    if signal.read_as == "probability":
        return values if factor == 1 else expit(factor * logit(values))
    return expit(factor * values)


def _refuse(bad: np.ndarray, values: np.ndarray, ids: Sequence[str], rule: str, remedy: str) -> None:
    places = np.flatnonzero(bad)
    if len(places):
        shown = ", ".join(f"'{ids[place]}' ({values[place]:g})" for place in places[:_SHOWN])
        more = " …" if len(places) > _SHOWN else ""
        raise DataError(f"{rule}. {len(places)} of {len(values)} preferences break this: {shown}{more}. {remedy}.")


def weight_notes(weight: np.ndarray) -> list[str]:
    """Summary of the rows' weights (R,): their mean, Kish's effective sample size, and zeros."""
    weight = weight.astype(np.float64)
    effective = weight.sum() ** 2 / np.square(weight).sum() if weight.any() else 0.0
    notes = [f"weighted rows: mean weight {weight.mean():g}, effective sample size {effective:.1f} of {len(weight)}"]
    zeros = int((weight == 0).sum())
    return notes + ([f"rows of weight 0, not trained on: {zeros}"] if zeros else [])
