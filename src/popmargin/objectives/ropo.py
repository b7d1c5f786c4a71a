"""ROPO: a loss with little gradient on preferences that the policy strongly contradicts."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from popmargin.objectives.base import Figure, Golden, Rows, objective, positive


@dataclass(frozen=True, kw_only=True)
class ROPOOptions:
    """Options of `ropo`.

    Attributes:
        beta: reward units per nat.
        alpha: α > 2, weight of the noise-aware loss; larger ignores contradicted preferences more (6, 14 and 30 in the
            paper).
    """

    beta: float = 0.1
    alpha: float = 14.0

    def __post_init__(self) -> None:
        positive("ropo", beta=self.beta, alpha=self.alpha)
        if self.alpha <= 2:
            raise ValueError(f"ropo: alpha must be above 2, not {self.alpha}.")


@objective(
    "ropo",
    options=ROPOOptions,
    score="log_ratio",
    origin="published",
    takes_margin="yes",
    figure=Figure(vary="alpha", values=(6.0, 14.0, 30.0), reach=6.0),
    golden=(
        Golden(rows={"chosen": [0.0], "rejected": [0.0]}, options={"alpha": 3.0}, expected=[1.644860385419959]),
        Golden(rows={"chosen": [3.0], "rejected": [-7.0]}, options={"alpha": 3.0}, expected=[0.8400644637211562]),
    ),
)
def ropo(rows: Rows, options: ROPOOptions) -> Float[Tensor, "B"]:
    """ROPO: DPO plus a bounded noise-aware loss, so strongly contradicted preferences hardly pull.

    L = (4α/(1 + α)²)·(−log σ(h) + α·σ(−h)),  h = β·Δ   (Liang et al. 2024)

    The weight of ∂h in the gradient, (4α/(1 + α)²)·σ(−h)·(1 + α·σ(h)), is at most 1, and falls to 4α/(1 + α)² as
    h → −∞. The authors have published no code that we know of; three other implementations agree on this loss. It
    helps if 20–30% of labels are flipped and can hurt on clean data.

    Golden values, α = 3 (factor 12/16): h = 0 gives 0.75·(log 2 + 3/2) = 1.6448604; h = 1 gives
    0.75·(0.3132617 + 3·0.2689414) = 0.8400645.

    Use:
        A fifth or more of the labels may be flipped. Published by others: against DPO it wins 69.3% at 30% flips, and
        25.9% on clean data (Nectar).

    Watch:
        It can hurt on clean data: report `dpo` with it. The paper's outer loop, which drops and resamples preferences,
        is not part of the loss.

    Noise:
        flipped labels, 20–30%

    Args:
        rows: scores are log-ratios (B,), nats.
        options: see `ROPOOptions`.

    Returns:
        The loss of every row (B,).
    """
    reward = options.beta * rows.gap
    scale = 4 * options.alpha / (1 + options.alpha) ** 2
    return scale * (softplus(-reward) + options.alpha * torch.sigmoid(-reward))
