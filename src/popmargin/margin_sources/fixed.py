"""The same margin for every preference."""

from dataclasses import dataclass

import torch

from popmargin.margin import Margin
from popmargin.margin_sources.base import margin_source
from popmargin.objectives.base import Rows


@dataclass(frozen=True, kw_only=True)
class FixedMarginOptions:
    """Options of the margin `fixed`.

    Attributes:
        value: m, in reward units (after β).
    """

    value: float = 1.0


# In front of simpo: a larger γ.
@margin_source("fixed", options=FixedMarginOptions, known={"dpo": "baseline", "simpo": "baseline"})
def fixed(rows: Rows, options: FixedMarginOptions) -> Margin:
    """The same margin for every preference, as in `dpo_fixed_margin`."""
    return Margin(values=torch.full_like(rows.chosen, options.value, requires_grad=False), unit="reward")
