"""DPO with one margin for all preferences."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from popmargin.objectives.base import Figure, Golden, Rows, objective, positive


@dataclass(frozen=True, kw_only=True)
class DPOFixedMarginOptions:
    """Options of `dpo_fixed_margin`.

    Attributes:
        beta: reward units per nat.
        margin: m, in reward units (after β).
    """

    beta: float = 0.1
    margin: float = 1.0

    def __post_init__(self) -> None:
        positive("dpo_fixed_margin", beta=self.beta)


@objective(
    "dpo_fixed_margin",
    options=DPOFixedMarginOptions,
    score="log_ratio",
    origin="baseline",
    takes_margin="own",
    figure=Figure(vary="margin", values=(0.0, 0.5, 1.0, 2.0)),
    golden=(Golden(rows={"chosen": [10.0], "rejected": [0.0]}, expected=[0.6931471805599453]),),
)
def dpo_fixed_margin(rows: Rows, options: DPOFixedMarginOptions) -> Float[Tensor, "B"]:
    """DPO with a fixed margin, the same for every preference.

    L = −log σ(β·Δ − m)

    Golden value: β·Δ = m = 1 gives log 2.

    Use:
        A baseline for adaptive margins: the same margin for all preferences.

    Watch:
        The margin is in reward units: 1 is 10 nats at β = 0.1, the upper clip of `pop`.

    Noise:
        none

    Args:
        rows: scores are log-ratios (B,), nats.
        options: see `DPOFixedMarginOptions`.

    Returns:
        The loss of every row (B,).
    """
    return softplus(options.margin - options.beta * rows.gap)
