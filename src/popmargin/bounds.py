"""Which numbers a field takes: said once, beside its type, checked wherever it is set, and shown in the docs.

Example:
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Example:
    ...     rank: Count = 0
    >>> check_bounds(Example(rank=-1), "model")
    Traceback (most recent call last):
        ...
    popmargin.errors.ConfigError: model.rank must be at least 0, not -1.
"""

import dataclasses
import math
import typing
from dataclasses import dataclass
from typing import Annotated, Any

from popmargin.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The finite numbers from one to another, as an annotation of a field's type.

    Attributes:
        least: the smallest.
        above: what all are greater than.
        most: the largest.
        below: what all are smaller than.
        whole_from: from here on only whole numbers: below it they are shares, above it counts.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    whole_from: float | None = None

    def hold(self, value: float) -> bool:
        """Whether a number lies within them."""
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
            and (self.whole_from is None or value < self.whole_from or value == int(value))
        )

    def __str__(self) -> str:
        parts = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        said = " and ".join(f"{words} {limit:,}" for words, limit in parts.items() if limit is not None)
        return said if self.whole_from is None else f"{said}, and a whole number from {self.whole_from:,} on"


Count = Annotated[int, Bounds(least=0)]
"""A number of things that may be none."""
Size = Annotated[int, Bounds(least=1)]
"""A number of things of which there must be one."""
Seed = Annotated[int, Bounds(least=0, below=2**32)]
"""What random generators start from."""
NotNegative = Annotated[float, Bounds(least=0)]
Positive = Annotated[float, Bounds(above=0)]
PartialShare = Annotated[float, Bounds(least=0, below=1)]
"""A share or probability that is never all."""
ShareOrCount = Annotated[float, Bounds(least=0, whole_from=1)]
"""A share below 1, or a number from 1 on."""


def bounds_of(annotation: Any) -> Bounds | None:
    """The bounds in a field's type, be it optional or a list; None if it has none."""
    for part in (*getattr(annotation, "__metadata__", ()), *typing.get_args(annotation)):
        found = part if isinstance(part, Bounds) else bounds_of(part)
        if found is not None:
            return found
    return None


def check_bounds(config: Any, section: str = "") -> None:
    """Check all fields of a dataclass that have bounds; None is allowed where their type allows it.

    Args:
        config: the dataclass.
        section: what stands before its fields' names in messages.

    Raises:
        ConfigError: one is out of bounds; the message names it.
    """
    prefix = f"{section}." if section else ""
    for field in dataclasses.fields(config):
        bounds, value = bounds_of(field.type), getattr(config, field.name)
        values: list[Any] = value if isinstance(value, list) else [value]
        for one in values:
            if bounds is not None and one is not None and not bounds.hold(one):
                raise ConfigError(f"{prefix}{field.name} must be {bounds}, not {one}.")
