"""Direct preference optimization."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from popmargin.objectives.base import Golden, Rows, objective, positive


@dataclass(frozen=True, kw_only=True)
class DPOOptions:
    """Options of `dpo`.

    Attributes:
        beta: reward units per nat; larger keeps the policy closer to the reference.
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        positive("dpo", beta=self.beta)


@objective(
    "dpo",
    options=DPOOptions,
    score="log_ratio",
    origin="baseline",
    takes_margin="yes",
    golden=(
        Golden(rows={"chosen": [0.0], "rejected": [0.0]}, expected=[0.6931471805599453]),
        Golden(rows={"chosen": [3.0], "rejected": [-7.0]}, expected=[0.31326168751822286]),
    ),
)
def dpo(rows: Rows, options: DPOOptions) -> Float[Tensor, "B"]:
    """DPO: the log-loss of a Bradley–Terry model whose reward is the policy's log-ratio.

    L = −log σ(β·Δ)   (Rafailov et al. 2023)

    Golden values: Δ = 0 gives log 2; Δ = 10, β = 0.1 gives log(1 + e⁻¹) = 0.3132617.

    Use:
        The baseline, for pairwise labels that can be trusted and a reference model.

    Watch:
        Both log-ratios may fall while their gap grows: look at `chosen_logratio`. A certain label asks for an infinite
        margin.

    Noise:
        none: the more a label is contradicted, the larger its gradient

    Args:
        rows: scores are log-ratios (B,), nats.
        options: see `DPOOptions`.

    Returns:
        The loss of every row (B,).
    """
    return softplus(-options.beta * rows.gap)
