"""Simple preference optimization: no reference, length-averaged log-probs, a fixed margin."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from popmargin.objectives.base import Figure, Golden, Rows, objective, positive


@dataclass(frozen=True, kw_only=True)
class SimPOOptions:
    """Options of `simpo`.

    Attributes:
        beta: reward units per nat of mean log-prob.
        gamma: target margin in reward units (the paper tunes γ/β; the default is γ/β = 0.5).
    """

    beta: float = 2.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        positive("simpo", beta=self.beta)


@objective(
    "simpo",
    options=SimPOOptions,
    score="mean_logp",
    origin="baseline",
    takes_margin="yes",
    figure=Figure(vary="gamma", values=(0.0, 1.0, 2.0), score=-2.0),
    golden=(Golden(rows={"chosen": [-1.0], "rejected": [-2.0]}, expected=[0.31326168751822286]),),
)
def simpo(rows: Rows, options: SimPOOptions) -> Float[Tensor, "B"]:
    """SimPO: the length-averaged log-prob is the reward, with a fixed margin and no reference.

    L = −log σ(β·(mean_logp(y_w) − mean_logp(y_l)) − γ)   (Meng et al. 2024)

    Golden value: a gap of 1 with β = 2, γ = 1 gives log(1 + e⁻¹) = 0.3132617.

    Use:
        No reference: less memory, one pass fewer, and a reward (likelihood per token) that matches generation.

    Watch:
        Only a small learning rate keeps the policy near the start model. The reward margin does not start at 0, and β
        and γ apply to log-probs per token: values from other objectives do not carry over.

    Noise:
        none

    Args:
        rows: scores are mean log-probs (B,), nats per token.
        options: see `SimPOOptions`.

    Returns:
        The loss of every row (B,).
    """
    return softplus(options.gamma - options.beta * rows.gap)
