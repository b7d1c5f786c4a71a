"""Geometric-averaged IPO for soft labels (GIPO)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from popmargin.objectives.base import Figure, Golden, Needs, Rows, given, objective, positive


@dataclass(frozen=True, kw_only=True)
class GeometricIPOOptions:
    """Options of `geometric_ipo`.

    Attributes:
        beta: the regularisation strength; the target gap is 1/(2β) nats.
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        positive("geometric_ipo", beta=self.beta)


@objective(
    "geometric_ipo",
    options=GeometricIPOOptions,
    score="log_ratio",
    origin="published",
    needs=Needs(soft_label=True),
    figure=Figure(vary="soft_label", values=(1.0, 0.75, 0.5), reach=2.0),
    golden=(
        Golden(
            rows={"chosen": [6.0, 6.0, 0.0, 6.0], "rejected": [0.0, 0.0, 6.0, 0.0],
                  "soft_label": [1.0, 0.75, 0.25, 0.5]},
            options={"beta": 0.25},
            expected=[16.0, 4.0, 4.0, 0.0],
        ),
    ),
)  # fmt: skip
def geometric_ipo(rows: Rows, options: GeometricIPOOptions) -> Float[Tensor, "B"]:
    """Geometric IPO: IPO weighted by the squared certainty of the soft label.

    L = (2p − 1)²·(Δ − 1/(2β))²,  p ≥ ½   (GIPO, Furuta et al. 2024; Δ without β, as in IPO)

    With c = 2p − 1 this is (c·Δ − |c|/(2β))², which also holds below ½, where the pair is swapped first.

    Golden values, β = ¼ (target 2): Δ = 6 gives 16 at p = 1 and ¼·16 = 4 at p = ¾, as does p = ¼ with the responses
    swapped; p = ½ gives 0.

    Use:
        As `geometric_dpo`, if gaps should have a finite target.

    Watch:
        The target is the same for all labels; only its weight falls. β is an inverse target in nats over whole
        responses.

    Noise:
        uncertainty expressed by p: p = ½ has no gradient

    Args:
        rows: scores are log-ratios (B,), nats; `soft_label` is p (B,).
        options: see `GeometricIPOOptions`.

    Returns:
        The loss of every row (B,).
    """
    certainty = 2 * given("soft_label", rows.soft_label) - 1
    return (certainty * rows.gap - certainty.abs() / (2 * options.beta)).square()
