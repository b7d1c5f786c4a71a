"""The inputs of objectives: scores of a batch's rows, and named columns of the data.

A *row* is one training unit: a preference, or a preference-over-preference edge (its stronger preference, and the
weaker one, if there is one). Axis suffix B: rows of one batch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from popmargin.errors import DataError, counted
from popmargin.margin import Margin


def _same(values: Tensor) -> Tensor:
    return values


@dataclass(frozen=True, kw_only=True)
class ColumnKind:
    """The rules for a column with a known name.

    Attributes:
        allowed: the allowed numbers, in words.
        fine: which rows are valid.
        swap: its numbers after swapping chosen and rejected.
    """

    allowed: str = "a finite number"
    fine: Callable[[Tensor], Tensor] = torch.isfinite
    swap: Callable[[Tensor], Tensor] = _same


def _is_probability(values: Tensor) -> Tensor:
    return (values >= 0) & (values <= 1)


def _is_weight(values: Tensor) -> Tensor:
    return torch.isfinite(values) & (values >= 0)


COLUMN_KINDS: dict[str, ColumnKind] = {
    "margin": ColumnKind(swap=torch.neg),
    "scale": ColumnKind(swap=torch.neg),
    "soft_label": ColumnKind(allowed="a probability, 0 to 1", fine=_is_probability, swap=lambda values: 1 - values),
    "weight": ColumnKind(allowed="a finite number, 0 or more", fine=_is_weight),
}
"""Columns with a special meaning; any other is a finite number per preference, whichever side is chosen."""


@dataclass(frozen=True, kw_only=True)
class Logps:
    """Summed log-probs of the rows' responses (B,), nats, and their token counts; for regularizers.

    They cover whole responses: token selectors change only scores.
    """

    chosen: Float[Tensor, "B"]
    rejected: Float[Tensor, "B"]
    chosen_reference: Float[Tensor, "B"] | None
    rejected_reference: Float[Tensor, "B"] | None
    chosen_tokens: Float[Tensor, "B"]
    rejected_tokens: Float[Tensor, "B"]

    def __post_init__(self) -> None:
        for name, tensor in vars(self).items():
            if tensor is not None:
                _same_shape(f"logps.{name}", tensor, self.chosen.shape)

    def of_reference(self) -> "Logps | None":
        """The reference's sums instead of the policy's; None without a reference."""
        if self.chosen_reference is None or self.rejected_reference is None:
            return None
        return replace(self, chosen=self.chosen_reference, rejected=self.rejected_reference)

    def swap(self) -> "Logps":
        """The same with chosen and rejected swapped."""
        return Logps(
            chosen=self.rejected,
            rejected=self.chosen,
            chosen_reference=self.rejected_reference,
            rejected_reference=self.chosen_reference,
            chosen_tokens=self.rejected_tokens,
            rejected_tokens=self.chosen_tokens,
        )


def _same_shape(name: str, tensor: Tensor, shape: torch.Size) -> None:
    if len(shape) != 1 or tensor.shape != shape:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, chosen {tuple(shape)}: both must be (B,), one number per row. "
            f"Other shapes would broadcast to a matrix of losses."
        )


def _refuse_values(name: str, values: Tensor) -> None:
    """Check numbers of the data, only on the CPU: on a device every check would be a sync."""
    if values.device.type != "cpu":
        return
    kind = COLUMN_KINDS.get(name, ColumnKind())
    bad: list[int] = (~kind.fine(values)).nonzero().flatten().tolist()
    if bad:
        rows = ", ".join(f"{row} ({values[row].item():g})" for row in bad[:5]) + (" …" if len(bad) > 5 else "")
        raise DataError(f"{name} must be {kind.allowed}. Wrong in {len(bad)} of {counted(len(values), 'row')}: {rows}.")


ValueT = TypeVar("ValueT")


def given(name: str, value: ValueT | None) -> ValueT:
    """An optional field of `Rows` that an objective requires: `given("margin", rows.margin)`.

    Raises:
        DataError: the rows do not have it; the message names the field.
    """
    if value is None:
        raise DataError(f"The rows have no {name}, which this objective needs: pass it to Rows.")
    return value


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One batch as an objective sees it. Every tensor is (B,); optional ones are None unless the objective needs them.

    Attributes:
        chosen: score of the (stronger) preference's chosen response, in the objective's score kind, nats.
        rejected: the same for its rejected response.
        has_weaker: whether the row is an edge with a weaker side.
        weaker_chosen: score of the weaker side's chosen response, with gradient (0 if there is none).
        weaker_rejected: the same for its rejected response.
        target: the weaker side's detached gap, nats (0 if there is none).
        columns: numbers of the (stronger) preference by name: what the run's parts declare in `Needs`, and `weight` if
            the data has it. `margin` and `scale` are in reward units, `soft_label` is the probability that chosen is
            better; others are as in the data, and `swap` leaves them unchanged.
        stronger_share: weights that give every preference the same total over an epoch, however many edges it has;
            they average to 1 over preferences.
        weaker_share: the same for the weaker side; 0 if there is none.
        logps: sums over all tokens of the responses, for regularizers and supervised terms.
        decoupled: the (stronger) preference's gap with de-coupled log-probs, nats, detached (`Objective.decoupling`).
        progress: share of the run's optimizer steps that are done, 0 in the first one; 1 outside a run.
        state: the objective's own state (see `Objective.init_state`).
        gather: concatenates a detached tensor over all processes; the identity on one.

    Raises:
        ValueError: a tensor is not (B,).
        DataError: on the CPU, a column with an invalid number (nan, a `soft_label` outside [0, 1], a negative
            `weight`); the message names the rows. Scores and targets come from a model: training checks them once per
            step.

    Example:
        >>> from torch import tensor
        >>> rows = Rows(chosen=tensor([2.0, 1.0]), rejected=tensor([0.5, 3.0]), columns={"weight": tensor([1.0, 0.5])})
        >>> rows.gap.tolist(), rows.swap().gap.tolist()
        ([1.5, -2.0], [-1.5, 2.0])
    """

    chosen: Float[Tensor, "B"]
    rejected: Float[Tensor, "B"]
    has_weaker: Bool[Tensor, "B"] | None = None
    weaker_chosen: Float[Tensor, "B"] | None = None
    weaker_rejected: Float[Tensor, "B"] | None = None
    target: Margin | None = None
    columns: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    stronger_share: Float[Tensor, "B"] | None = None
    weaker_share: Float[Tensor, "B"] | None = None
    logps: Logps | None = None
    decoupled: Float[Tensor, "B"] | None = None
    progress: float = 1.0
    state: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    gather: Callable[[Tensor], Tensor] = _same

    def __post_init__(self) -> None:
        shape = self.chosen.shape
        for name in ("chosen", "rejected", "has_weaker", "weaker_chosen", "weaker_rejected", "target",
                     "stronger_share", "weaker_share", "decoupled"):  # fmt: skip
            value: Tensor | Margin | None = getattr(self, name)
            if value is not None:
                _same_shape(name, value.values if isinstance(value, Margin) else value, shape)
        if self.logps is not None:
            _same_shape("logps.chosen", self.logps.chosen, shape)
        for name, column in self.columns.items():
            _same_shape(name, column, shape)
            _refuse_values(name, column)

    @property
    def gap(self) -> Float[Tensor, "B"]:
        """Δ = chosen − rejected (B,), nats."""
        return self.chosen - self.rejected

    @property
    def weaker_gap(self) -> Float[Tensor, "B"]:
        """The weaker side's gap (B,), nats, with gradient; a `DataError` if the rows have none."""
        return given("weaker_chosen", self.weaker_chosen) - given("weaker_rejected", self.weaker_rejected)

    @property
    def margin(self) -> Margin | None:
        """The preference's own margin from the data, reward units."""
        return self._margin("margin")

    @property
    def scale(self) -> Margin | None:
        """The preference's value on the strength scale of the run's PoP edges, reward units."""
        return self._margin("scale")

    @property
    def soft_label(self) -> Float[Tensor, "B"] | None:
        """Probability that chosen is better (B,)."""
        return self.columns.get("soft_label")

    def _margin(self, name: str) -> Margin | None:
        values = self.columns.get(name)
        return None if values is None else Margin(values=values, unit="reward")

    def column(self, name: str) -> Float[Tensor, "B"]:
        """A column (B,) that the objective declares with `Needs(columns=(name,))`.

        Raises:
            DataError: the rows have no such column.
        """
        return given(name, self.columns.get(name))

    def with_columns(self, **columns: Tensor | None) -> "Rows":
        """The same rows with some columns (B,) replaced, or removed (None)."""
        changed = {**self.columns, **columns}
        return replace(self, columns={name: values for name, values in changed.items() if values is not None})

    def swap(self) -> "Rows":
        """The same rows with chosen and rejected swapped, including labels, data margins and log-probs."""
        return replace(
            self,
            chosen=self.rejected,
            rejected=self.chosen,
            columns={name: COLUMN_KINDS.get(name, ColumnKind()).swap(values) for name, values in self.columns.items()},
            logps=None if self.logps is None else self.logps.swap(),
            decoupled=None if self.decoupled is None else -self.decoupled,
        )


def of_edges(values: Float[Tensor, "B"], rows: Rows) -> Float[Tensor, "B"]:
    """Values to log (B,), with nan in rows without a weaker side, which the mean skips."""
    return values.masked_fill(~given("has_weaker", rows.has_weaker), torch.nan)
