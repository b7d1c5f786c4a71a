"""The one place where a margin's unit and sign are defined."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from jaxtyping import Bool, Float
from torch import Tensor, where, zeros_like

from popmargin.errors import DataError

Unit = Literal["nats", "reward"]


@dataclass(frozen=True, kw_only=True)
class Margin:
    """By how much the chosen side should lead the rejected side; positive favours chosen.

    Three conventions meet in this field: PoP clips its target margin in nats, before β; fixed and rating margins are
    subtracted in reward units, after β (reward = β · nats). A margin carries its unit and is read only through
    `nats` or `reward`, so that the two cannot be mixed up.

    Attributes:
        values: one margin per row (B,), in `unit`.
        unit: "nats" (a log-ratio gap Δ) or "reward" (β·Δ).

    Raises:
        DataError: an unknown unit.

    Example:
        >>> from torch import tensor
        >>> margin = Margin(values=tensor([10.0, -5.0]), unit="nats")
        >>> margin.reward(beta=0.1).tolist(), margin.swap().nats(beta=0.1).tolist()
        ([1.0, -0.5], [-10.0, 5.0])
    """

    values: Float[Tensor, "B"]
    unit: Unit

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise DataError(f"The unit of a margin must be nats or reward, not {self.unit!r}.")

    def nats(self, beta: float) -> Float[Tensor, "B"]:
        """The margin as a log-ratio gap (B,), nats."""
        return self.values if self.unit == "nats" else self.values / beta

    def reward(self, beta: float) -> Float[Tensor, "B"]:
        """The margin in reward units (B,), β · nats."""
        return self.values if self.unit == "reward" else self.values * beta

    def clip(self, low: float, high: float) -> "Margin":
        """The same clipped to [low, high], in its own unit."""
        return replace(self, values=self.values.clamp(low, high))

    def only(self, rows: Bool[Tensor, "B"]) -> "Margin":
        """The same in the given rows, and 0 elsewhere."""
        return replace(self, values=where(rows, self.values, zeros_like(self.values)))

    def times(self, factor: float) -> "Margin":
        """The same multiplied by a factor, in its own unit."""
        return replace(self, values=self.values * factor)

    def swap(self) -> "Margin":
        """The margin after swapping chosen and rejected; nothing else inverts a margin."""
        return replace(self, values=-self.values)
