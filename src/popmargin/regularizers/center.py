"""Centring of a reward model: rewards that are zero on average."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from popmargin.objectives.base import Rows
from popmargin.regularizers.base import regularizer


@dataclass(frozen=True, kw_only=True)
class CenterOptions:
    """`center` has no options besides its weight; 0.01 is usual."""


def _diagnostics(rows: Rows, options: CenterOptions) -> dict[str, Tensor]:
    return {"reward_center": (rows.chosen + rows.rejected) / 2}


@regularizer("center", options=CenterOptions, reference=False, diagnostics=_diagnostics, of="reward")
def center(rows: Rows, options: CenterOptions) -> Float[Tensor, "B"]:
    """Center: pulls the rewards of each preference towards a sum of 0, since gaps do not determine where zero is.

    R = (r(y_w) + r(y_l))²   (Eisenstein et al. 2023; TRL's center_rewards_coefficient is the weight)

    For reward models only.

    Args:
        rows: scores are rewards (B,).
        options: none.

    Returns:
        The term of every row (B,), reward units squared.
    """
    return (rows.chosen + rows.rejected).square()
