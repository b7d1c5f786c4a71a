"""A log of who answered what, from which the figures of a label report are computed again."""

import math
from dataclasses import dataclass

VALUES = {"second": -1.0, "tie": 0.0, "first": 1.0}


@dataclass(frozen=True)
class Answer:
    """One answer: `verdict` names a response of the row, whatever the order on the screen; `left` is it was there.

    `item` and `seconds` are known once the store has been read: it measures them.
    """

    who: str
    row: str
    verdict: str
    left: bool
    version: int | None
    repeat: bool = False
    adjudicated: bool = False
    model: bool = False
    day: str = ""
    confidence: float = math.nan
    item: int = 0
    seconds: float = math.nan
