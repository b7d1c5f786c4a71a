"""Geometric-averaged ROPO for soft labels (GROPO)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from popmargin.objectives.base import Figure, Golden, Needs, Rows, given, objective, positive
from popmargin.objectives.geometric_dpo import warn_of_small


@dataclass(frozen=True, kw_only=True)
class GeometricROPOOptions:
    """Options of `geometric_ropo`.

    Attributes:
        beta: reward units per nat; larger than for DPO, as for `geometric_dpo`.
        alpha: α, weight of the bounded loss; not tied to γ here.
        gamma: γ, weight of the geometric DPO loss.
    """

    beta: float = 0.3
    alpha: float = 2.0
    gamma: float = 0.1

    def __post_init__(self) -> None:
        positive("geometric_ropo", beta=self.beta, alpha=self.alpha, gamma=self.gamma)
        warn_of_small(self.beta, "geometric_ropo")


@objective(
    "geometric_ropo",
    options=GeometricROPOOptions,
    score="log_ratio",
    origin="published",
    needs=Needs(soft_label=True),
    figure=Figure(vary="soft_label", values=(1.0, 0.75, 0.5), reach=6.0),
    golden=(
        Golden(
            rows={"chosen": [10.0, 0.0, 10.0], "rejected": [0.0, 10.0, 0.0], "soft_label": [0.75, 0.25, 0.5]},
            options={"beta": 0.2},
            expected=[0.5692090114918125, 0.5692090114918125, 1.0693147180559945],
        ),
    ),
)
def geometric_ropo(rows: Rows, options: GeometricROPOOptions) -> Float[Tensor, "B"]:
    """Geometric ROPO: ROPO whose reward margin is scaled by the certainty of the soft label.

    L = α·(1 − σ(g)) − γ·log σ(g),  g = β·(2p − 1)·Δ   (GROPO, Furuta et al. 2024)

    p = 1 is `ropo` with α/γ as its α, up to a constant factor; p = ½ gives no gradient. Labels below ½ need no swap:
    2p − 1 and Δ change sign together.

    Golden values, α = 2, γ = 0.1: g = 1 gives 2·0.2689414 + 0.1·0.3132617 = 0.5692090, on both sides of ½; p = ½ gives
    1 + 0.1·log 2 = 1.0693147.

    Use:
        Soft labels that may also be wrong: a bounded loss on scaled margins.

    Watch:
        Raise β above that of `dpo`. α and γ are independent weights, unlike in `ropo`; contradicted preferences still
        pull with weight γ.

    Noise:
        uncertainty expressed by p, and flipped labels

    Args:
        rows: scores are log-ratios (B,), nats; `soft_label` is p (B,).
        options: see `GeometricROPOOptions`.

    Returns:
        The loss of every row (B,).
    """
    label = given("soft_label", rows.soft_label)
    reward = options.beta * (2 * label - 1) * rows.gap
    return options.alpha * torch.sigmoid(-reward) + options.gamma * softplus(-reward)
