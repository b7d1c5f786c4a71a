"""DPO with the rating gap as margin."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from popmargin.objectives.base import Figure, Golden, Needs, Rows, given, objective, positive


@dataclass(frozen=True, kw_only=True)
class DPORatingMarginOptions:
    """Options of `dpo_rating_margin`.

    Attributes:
        beta: reward units per nat.
        margin_scale: reward units per rating point; 1 is the published baseline.
    """

    beta: float = 0.1
    margin_scale: float = 1.0

    def __post_init__(self) -> None:
        positive("dpo_rating_margin", beta=self.beta, margin_scale=self.margin_scale)


@objective(
    "dpo_rating_margin",
    options=DPORatingMarginOptions,
    score="log_ratio",
    origin="baseline",
    takes_margin="own",
    needs=Needs(margin=True),
    figure=Figure(vary="margin", values=(0.0, 1.0, 3.0)),
    golden=(
        Golden(
            rows={"chosen": [10.0, 0.0], "rejected": [0.0, 0.0], "margin": [1.0, 1.0]},
            expected=[0.6931471805599453, 1.3132616875182228],
        ),
    ),
)
def dpo_rating_margin(rows: Rows, options: DPORatingMarginOptions) -> Float[Tensor, "B"]:
    """DPO with ground-truth margins: each preference's margin is the gap between its ratings.

    L = −log σ(β·Δ − c·(rating_chosen − rating_rejected))

    Golden values: β·Δ = margin = 1 gives log 2; Δ = 0 with margin 1 gives log(1 + e) = 1.3132617.

    Use:
        Ratings of both responses whose differences are comparable across annotators and prompts.

    Watch:
        One rating point is one reward unit unless `margin_scale` says otherwise. Rating errors enter the loss
        directly, which preferences over preferences avoid.

    Noise:
        none: rating noise becomes margin noise

    Args:
        rows: scores are log-ratios (B,), nats; margins are rating gaps (B,).
        options: see `DPORatingMarginOptions`.

    Returns:
        The loss of every row (B,).
    """
    margin = given("margin", rows.margin).reward(options.beta)
    return softplus(options.margin_scale * margin - options.beta * rows.gap)
