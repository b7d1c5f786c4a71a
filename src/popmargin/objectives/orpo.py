"""Odds-ratio preference optimization: a supervised loss and the odds of the two responses, no reference."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from popmargin.objectives.base import Figure, Golden, Needs, Rows, objective, positive

LARGEST = -1e-6
"""Mean log-probs are kept below this, nats per token: at 0 the odds are infinite (ours)."""


@dataclass(frozen=True, kw_only=True)
class ORPOOptions:
    """Options of `orpo`.

    Attributes:
        beta: λ of the paper, weight of the odds-ratio term (named as in TRL).
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        positive("orpo", beta=self.beta)


def log_odds(mean_logp: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """log(P/(1 − P)) of P = exp(mean_logp) (B,), without cancellation at either end."""
    value = mean_logp.clamp(max=LARGEST)
    # log(1 − e^v): the first form is exact for small probabilities, the second for large ones.
    rest = torch.where(value < -math.log(2), torch.log1p(-value.exp()), torch.log(-torch.expm1(value)))
    return value - rest


@objective(
    "orpo",
    options=ORPOOptions,
    score="mean_logp",
    origin="baseline",
    needs=Needs(whole_responses=True),
    supervised=lambda options: True,
    figure=Figure(score=-2.0, reach=0.15),
    golden=(
        Golden(
            rows={"chosen": [-0.6931471805599453] * 2, "rejected": [-0.6931471805599453, -1.3862943611198906]},
            options={"beta": 0.5},
            expected=[1.0397207708399179, 0.8369882167858358],
        ),
    ),
)
def orpo(rows: Rows, options: ORPOOptions) -> Float[Tensor, "B"]:
    """ORPO: the negative log-likelihood of chosen, plus an odds-ratio term.

    L = −mean_logp(y_w) − λ·log σ(log[odds(y_w)/odds(y_l)]),  odds = P/(1 − P),  P = exp(mean_logp)   (Hong et al. 2024)

    The first term is over the completion, averaged per row; TRL's is over prompt and completion, averaged per batch.

    Golden values, λ = ½: P = ½ on both sides gives log 2 + ½·log 2 = 1.0397208; P_w = ½, P_l = ¼ have the odds ratio 3
    and give log 2 + ½·log(4/3) = 0.8369882.

    Use:
        One stage from a base model instead of supervised and then preference training, without a reference (published).

    Watch:
        The first term trains on every chosen response, however good it is. The logged reward margin is λ times the gap
        of mean log-probs, which is not a reward. Token selectors and `sft` are refused.

    Noise:
        none

    Args:
        rows: scores are mean log-probs (B,), nats per token.
        options: see `ORPOOptions`.

    Returns:
        The loss of every row (B,).
    """
    return options.beta * softplus(log_odds(rows.rejected) - log_odds(rows.chosen)) - rows.chosen
