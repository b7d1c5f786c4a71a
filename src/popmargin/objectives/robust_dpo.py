"""Robust DPO: an unbiased estimate of the DPO loss when labels are flipped at a known rate."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from popmargin.objectives.base import Figure, Golden, Rows, objective, positive


@dataclass(frozen=True, kw_only=True)
class RobustDPOOptions:
    """Options of `robust_dpo`.

    Attributes:
        beta: reward units per nat.
        flip_rate: ε, the share of flipped labels, 0 ≤ ε < ½ (`label_smoothing` in TRL).
    """

    beta: float = 0.1
    flip_rate: float = 0.1

    def __post_init__(self) -> None:
        positive("robust_dpo", beta=self.beta)
        if not 0 <= self.flip_rate < 0.5:
            raise ValueError(f"robust_dpo: flip_rate must be 0 or more and below 0.5, not {self.flip_rate}.")


@objective(
    "robust_dpo",
    options=RobustDPOOptions,
    score="log_ratio",
    origin="baseline",
    takes_margin="yes",
    figure=Figure(vary="flip_rate", values=(0.0, 0.1, 0.3)),
    golden=(
        Golden(
            rows={"chosen": [0.0, 10.0], "rejected": [0.0, 0.0]},
            options={"flip_rate": 0.25},
            expected=[0.6931471805599453, -0.18673831248177708],
        ),
    ),
)
def robust_dpo(rows: Rows, options: RobustDPOOptions) -> Float[Tensor, "B"]:
    """Robust DPO: its expectation under flipped labels is the DPO loss on clean ones.

    L = [(1 − ε)·ℓ(h) − ε·ℓ(−h)] / (1 − 2ε),  ℓ(h) = −log σ(h),  h = β·Δ   (rDPO, Chowdhury et al. 2024)

    It has no lower bound and may be negative.

    Golden values: h = 0 gives log 2 for every ε; h = 1, ε = ¼ gives [¾·0.3132617 − ¼·1.3132617]/½ = −0.1867383.

    Use:
        Labels flipped at random, at a known rate.

    Watch:
        No margin is ever enough: the gradient of a settled preference stays at ε/(1 − 2ε), and the loss has no lower
        bound. The rate is not estimated.

    Noise:
        flipped labels, at a known rate

    Args:
        rows: scores are log-ratios (B,), nats.
        options: see `RobustDPOOptions`.

    Returns:
        The loss of every row (B,).
    """
    reward, rate = options.beta * rows.gap, options.flip_rate
    return ((1 - rate) * softplus(-reward) - rate * softplus(reward)) / (1 - 2 * rate)
