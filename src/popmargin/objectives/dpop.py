"""DPO-Positive: DPO that penalises lost likelihood of the chosen response."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu, softplus

from popmargin.objectives.base import Figure, Golden, Needs, Rows, objective, positive


@dataclass(frozen=True, kw_only=True)
class DPOPOptions:
    """Options of `dpop`.

    Attributes:
        beta: reward units per nat.
        penalty: λ, nats of gap that each lost nat of the chosen response costs; 0 is DPO.
    """

    beta: float = 0.1
    penalty: float = 50.0

    def __post_init__(self) -> None:
        positive("dpop", beta=self.beta)
        if not 0 <= self.penalty < float("inf"):
            raise ValueError(f"dpop: penalty must be a finite number, 0 or more, not {self.penalty}.")


@objective(
    "dpop",
    options=DPOPOptions,
    score="log_ratio",
    origin="baseline",
    figure=Figure(vary="penalty", values=(0.0, 1.0, 5.0)),
    needs=Needs(absolute=True, whole_responses=True),
    golden=(
        Golden(
            rows={"chosen": [3.0, -2.0], "rejected": [-7.0, -22.0]},
            options={"penalty": 5.0},
            expected=[0.31326168751822286, 0.31326168751822286],
        ),
    ),
)
def dpop(rows: Rows, options: DPOPOptions) -> Float[Tensor, "B"]:
    """DPO-Positive: falling below the reference probability counts against the chosen response's gap.

    L = −log σ(β·[Δ − λ·max(0, logp_ref(y_w) − logp_θ(y_w))])   (DPOP, Pal et al. 2024)

    The penalty is inside the sigmoid, in nats; the regularizer `budget` adds one to any loss.

    Golden values, β = 0.1, λ = 5: ρ(y_w) = 3 loses nothing and Δ = 10 gives log(1 + e⁻¹); ρ(y_w) = −2 with Δ = 20 is
    charged 10 nats and gives the same.

    Use:
        Chosen responses that lose likelihood under `dpo`; published for pairs that differ in few tokens.

    Watch:
        At the default λ a single lost nat costs 50 nats of gap, which soon outweighs the preference itself. The
        regularizer `budget` allows a small loss for free. Token selectors are refused: they may keep only the tokens
        that lost likelihood of a response that gained it, and would then penalise it.

    Noise:
        none

    Args:
        rows: scores are log-ratios (B,), nats.
        options: see `DPOPOptions`.

    Returns:
        The loss of every row (B,).
    """
    return softplus(-options.beta * (rows.gap - options.penalty * relu(-rows.chosen)))
