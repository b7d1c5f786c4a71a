"""Smoothed preference optimization (SmPO): the margin is scaled by how far apart the scores of a reward model are."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from popmargin.objectives.base import Figure, Golden, Needs, Rows, given, objective, positive


@dataclass(frozen=True, kw_only=True)
class SmPOOptions:
    """Options of `smpo`.

    Attributes:
        beta: reward units per nat.
        gamma: γ, by which the certainty 2p − 1 is multiplied; only the product γ·β matters.
    """

    beta: float = 0.1
    gamma: float = 10.0

    def __post_init__(self) -> None:
        positive("smpo", beta=self.beta, gamma=self.gamma)


def smoothing_factor(label: Float[Tensor, "B"], gamma: float) -> Float[Tensor, "B"]:
    """γ·(2p − 1) of soft labels p (B,); for p = σ(r_w − r_l) that is γ·tanh((r_w − r_l)/2).

    Example:
        >>> from torch import tensor
        >>> smoothing_factor(tensor([1.0, 0.75, 0.5]), 10.0).tolist()
        [10.0, 5.0, 0.0]
    """
    return gamma * (2 * label - 1)


def diagnostics(rows: Rows, options: SmPOOptions) -> dict[str, Tensor]:
    """The factor of every row's margin; its mean is the factor at which plain DPO is a fair comparison."""
    return {"smoothing_factor": smoothing_factor(given("soft_label", rows.soft_label), options.gamma)}


@objective(
    "smpo",
    options=SmPOOptions,
    score="log_ratio",
    origin="published",
    needs=Needs(soft_label=True),
    diagnostics=diagnostics,
    figure=Figure(vary="soft_label", values=(0.73, 0.6, 0.5)),
    golden=(
        Golden(
            rows={"chosen": [-0.15, -0.15, -0.15], "rejected": [-0.165, -0.165, -0.165],
                  "soft_label": [1.0, 0.5299795237, 0.5]},
            options={"beta": 100.0, "gamma": 10.0},
            expected=[3.059022737137205e-07, 0.3413314740492897, 0.6931471805599453],
        ),
    ),
)  # fmt: skip
def smpo(rows: Rows, options: SmPOOptions) -> Float[Tensor, "B"]:
    """SmPO: the log-loss of DPO on a margin that is scaled by the difference of the responses' scores.

    L = −log σ(γ·(2p − 1)·β·Δ),  p = σ(r'_w − r'_l)   (SmPO-Diffusion, Lu et al. 2025)

    r' are scores of a reward model, brought to 0 … 1 over the whole training data: `data.soft_label_temperature: range`
    makes p from ratings that way, `quantiles` without letting outliers set the range. Then p ≤ σ(1) = 0.731, and the
    factor is γ·tanh((r'_w − r'_l)/2) ≤ 4.62 at γ = 10. With α = γ·p, as the paper writes it, α = γ = 1 is DPO. The
    paper trains text-to-image models, with a second part, the inversion (`task.noise`); language models are ours.

    Golden values, β = 100, Δ = 0.015, so that β·Δ = 1.5: p = ½ gives log 2 whatever Δ; the scores 0.22 and 0.20 of a
    model whose scores lie in 0.1154 … 0.2820 give p = 0.52998, the factor 0.59959 and log(1 + e^(−0.89939)).

    Use:
        Preferences with scores of a reward model, which replaces the people's labels: the winner is the response with
        the larger score.

    Watch:
        γ and β are one product: report γ·β and `smoothing_factor`, its mean over the data, and compare with `dpo` at β
        times that mean, or smoothing and a larger β are confused. Evaluating with the reward model that gave the labels
        shows what was optimized, not quality.

    Noise:
        uncertainty expressed by the scores: equal scores have no gradient

    Args:
        rows: scores are log-ratios (B,), nats; `soft_label` is p (B,).
        options: see `SmPOOptions`.

    Returns:
        The loss of every row (B,).
    """
    factor = smoothing_factor(given("soft_label", rows.soft_label), options.gamma)
    return softplus(-(factor * options.beta) * rows.gap)
