"""Conservative DPO: the cross-entropy with a soft label."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from popmargin.objectives.base import Figure, Golden, Needs, Rows, given, objective, positive


@dataclass(frozen=True, kw_only=True)
class CDPOOptions:
    """Options of `cdpo`.

    Attributes:
        beta: reward units per nat.
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        positive("cdpo", beta=self.beta)


@objective(
    "cdpo",
    options=CDPOOptions,
    score="log_ratio",
    origin="baseline",
    needs=Needs(soft_label=True),
    figure=Figure(vary="soft_label", values=(1.0, 0.75, 0.5)),
    golden=(
        Golden(
            rows={"chosen": [10.0, 10.0, 0.0], "rejected": [0.0, 0.0, 10.0], "soft_label": [1.0, 0.75, 0.25]},
            expected=[0.31326168751822286, 0.5632616875182228, 0.5632616875182228],
        ),
    ),
)
def cdpo(rows: Rows, options: CDPOOptions) -> Float[Tensor, "B"]:
    """cDPO: DPO whose label is the probability that chosen is preferred.

    L = −[p·log σ(h) + (1 − p)·log σ(−h)],  h = β·Δ   (as in Furuta et al. 2024)

    The loss is smallest at h = log(p/(1 − p)). Labels below ½ need no swap: p and h change sides together.

    Golden values: h = 1, p = 1 is the DPO loss log(1 + e⁻¹); p = ¾ adds ¼·1, as log σ(−h) = log σ(h) − h; p = ¼ with
    the responses swapped is the same preference.

    Use:
        Soft labels (votes, or a judge's probabilities), and a policy that should rank well. Published: it classifies
        best but generates worse than the geometric losses.

    Watch:
        Labels of p = ½ pull the margin to 0 rather than leaving it alone.

    Noise:
        uncertainty expressed by p

    Args:
        rows: scores are log-ratios (B,), nats; `soft_label` is p (B,).
        options: see `CDPOOptions`.

    Returns:
        The loss of every row (B,).
    """
    label = given("soft_label", rows.soft_label)
    reward = options.beta * rows.gap
    return label * softplus(-reward) + (1 - label) * softplus(reward)
