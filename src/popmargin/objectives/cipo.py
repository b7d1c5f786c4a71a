"""Conservative IPO: the target gap shrinks with the certainty of a soft label."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from popmargin.objectives.base import Figure, Golden, Needs, Rows, given, objective, positive


@dataclass(frozen=True, kw_only=True)
class CIPOOptions:
    """Options of `cipo`.

    Attributes:
        beta: the regularisation strength; the target gap of a certain label is 1/(2β) nats.
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        positive("cipo", beta=self.beta)


@objective(
    "cipo",
    options=CIPOOptions,
    score="log_ratio",
    origin="baseline",
    needs=Needs(soft_label=True),
    figure=Figure(vary="soft_label", values=(1.0, 0.75, 0.5), reach=2.0),
    golden=(
        Golden(
            rows={"chosen": [6.0, 6.0, 0.0], "rejected": [0.0, 0.0, 6.0], "soft_label": [1.0, 0.75, 0.25]},
            options={"beta": 0.25},
            expected=[16.0, 25.0, 25.0],
        ),
    ),
)
def cipo(rows: Rows, options: CIPOOptions) -> Float[Tensor, "B"]:
    """cIPO: IPO whose target gap is proportional to the certainty of the soft label.

    L = (Δ − (2p − 1)/(2β))²   (as in Furuta et al. 2024; Δ without β, as in IPO)

    Labels below ½ need no swap: target and gap change sign together.

    Golden values, β = ¼: Δ = 6 with the target 2 (p = 1) gives 16, with the target 1 (p = ¾) 25; p = ¼ with the
    responses swapped is the same preference.

    Use:
        As `cdpo`, if gaps should have finite targets.

    Watch:
        β is an inverse target in nats over whole responses, as in `ipo`. Labels of p = ½ pull the gap to 0.

    Noise:
        uncertainty expressed by p

    Args:
        rows: scores are log-ratios (B,), nats; `soft_label` is p (B,).
        options: see `CIPOOptions`.

    Returns:
        The loss of every row (B,).
    """
    label = given("soft_label", rows.soft_label)
    return (rows.gap - (2 * label - 1) / (2 * options.beta)).square()
