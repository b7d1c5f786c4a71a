"""Geometric-averaged DPO for soft labels (GDPO)."""

import logging
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from popmargin.objectives.base import Figure, Golden, Needs, Rows, given, objective, positive

_LOG = logging.getLogger(__name__)


def warn_of_small(beta: float, owner: str) -> None:
    """Warn if β is not larger than DPO's, since soft labels shrink the effective β to β·E[|2p − 1|]."""
    if beta <= 0.1:
        _LOG.warning(
            "%s: β %g is not above DPO's 0.1, but soft labels shrink it to β·|2p − 1|: 0.3 is published for "
            "geometric_dpo",
            owner,
            beta,
        )


@dataclass(frozen=True, kw_only=True)
class GeometricDPOOptions:
    """Options of `geometric_dpo`.

    Attributes:
        beta: reward units per nat; larger than for DPO, since the effective one is β·E[|2p − 1|]: 0.3 where DPO uses
            0.1 (0.5 for TL;DR in the paper).
    """

    beta: float = 0.3

    def __post_init__(self) -> None:
        positive("geometric_dpo", beta=self.beta)
        warn_of_small(self.beta, "geometric_dpo")


@objective(
    "geometric_dpo",
    options=GeometricDPOOptions,
    score="log_ratio",
    origin="published",
    needs=Needs(soft_label=True),
    figure=Figure(vary="soft_label", values=(1.0, 0.75, 0.5)),
    golden=(
        Golden(
            rows={"chosen": [10.0, 10.0, 0.0, 10.0], "rejected": [0.0, 0.0, 10.0, 0.0],
                  "soft_label": [1.0, 0.75, 0.25, 0.5]},
            options={"beta": 0.2},
            expected=[0.12692801104297263, 0.31326168751822286, 0.31326168751822286, 0.6931471805599453],
        ),
    ),
)  # fmt: skip
def geometric_dpo(rows: Rows, options: GeometricDPOOptions) -> Float[Tensor, "B"]:
    """Geometric DPO: the reward margin is scaled by the certainty of the soft label.

    L = −log σ(β·(2p − 1)·Δ)   (GDPO, Furuta et al. 2024)

    p = 1 is DPO; p = ½ gives log 2 and no gradient. Raise β above DPO's, see `GeometricDPOOptions`. Labels below ½ need
    no swap: 2p − 1 and Δ change sign together.

    Golden values, β = 0.2, Δ = 10: p = 1 gives log(1 + e⁻²) = 0.1269280, p = ¾ log(1 + e⁻¹) = 0.3132617, as does p = ¼
    with the responses swapped; p = ½ gives log 2.

    Use:
        Soft labels, and a policy that should generate well. Published: the geometric losses win about 70% of direct
        comparisons with their base losses on average.

    Watch:
        Raise β above that of `dpo`. Labels near ½ hardly train, so the effective data set is smaller than it looks.

    Noise:
        uncertainty expressed by p: p = ½ has no gradient

    Args:
        rows: scores are log-ratios (B,), nats; `soft_label` is p (B,).
        options: see `GeometricDPOOptions`.

    Returns:
        The loss of every row (B,).
    """
    label = given("soft_label", rows.soft_label)
    return softplus(-options.beta * (2 * label - 1) * rows.gap)
