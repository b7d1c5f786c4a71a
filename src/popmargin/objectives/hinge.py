"""Hinge loss on the reward margin (SLiC)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu

from popmargin.objectives.base import Golden, Rows, objective, positive


@dataclass(frozen=True, kw_only=True)
class HingeOptions:
    """Options of `hinge`.

    Attributes:
        beta: reward units per nat; the loss is 0 from a gap of 1/β nats on.
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        positive("hinge", beta=self.beta)


@objective(
    "hinge",
    options=HingeOptions,
    score="log_ratio",
    origin="baseline",
    takes_margin="yes",
    golden=(Golden(rows={"chosen": [0.0, 4.0, 20.0], "rejected": [0.0, -1.0, 0.0]}, expected=[1.0, 0.5, 0.0]),),
)
def hinge(rows: Rows, options: HingeOptions) -> Float[Tensor, "B"]:
    """Hinge: no loss beyond a reward margin of 1.

    L = max(0, 1 − β·Δ)   (SLiC, Zhao et al. 2023, on log-ratios as in RSO, Liu et al. 2023, and TRL)

    SLiC itself takes plain log-probs and adds a supervised term: see the regularizer `sft`.

    Golden values, β = 0.1: Δ = 0 gives 1, Δ = 5 gives ½, and Δ = 20 nothing.

    Use:
        If preferences should stop pulling as soon as they are settled.

    Watch:
        A loss near 0 means that hardly any row still trains. β sets both the gradient and the gap that suffices, 1/β
        nats.

    Noise:
        some: a contradicted label pulls no harder than any other below the hinge

    Args:
        rows: scores are log-ratios (B,), nats.
        options: see `HingeOptions`.

    Returns:
        The loss of every row (B,).
    """
    return relu(1 - options.beta * rows.gap)
