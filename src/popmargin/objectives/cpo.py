"""Contrastive preference optimization: DPO without a reference, stabilised by a supervised term."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from popmargin.objectives.base import Figure, Golden, Rows, given, objective, positive


@dataclass(frozen=True, kw_only=True)
class CPOOptions:
    """Options of `cpo`.

    Attributes:
        beta: reward units per nat.
        sft_weight: weight of the supervised term (`cpo_alpha` in TRL); 0 for none.
    """

    beta: float = 0.1
    sft_weight: float = 1.0

    def __post_init__(self) -> None:
        positive("cpo", beta=self.beta)
        if not 0 <= self.sft_weight < float("inf"):
            raise ValueError(f"cpo: sft_weight must be a finite number, 0 or more, not {self.sft_weight}.")


@objective(
    "cpo",
    options=CPOOptions,
    score="logp",
    origin="baseline",
    supervised=lambda options: options.sft_weight > 0,
    token_counts=lambda options: options.sft_weight > 0,
    figure=Figure(vary="sft_weight", values=(0.0, 1.0), rows={"chosen_tokens": 20.0}, score=-20.0, reach=3.0),
    golden=(
        Golden(
            rows={"chosen": [-4.0], "rejected": [-14.0], "chosen_tokens": [8.0]},
            expected=[0.8132616875182228],
        ),
        Golden(
            rows={"chosen": [-4.0], "rejected": [-14.0]},
            options={"sft_weight": 0.0},
            expected=[0.31326168751822286],
        ),
    ),
)
def cpo(rows: Rows, options: CPOOptions) -> Float[Tensor, "B"]:
    """CPO: DPO under a uniform reference, plus the negative log-likelihood of chosen.

    L = −log σ(β·(logp(y_w) − logp(y_l))) − α·logp(y_w)/|y_w|   (Xu et al. 2024)

    The second term is per token, as in TRL; the mean is per row, whereas TRL's is over the tokens of the batch.

    Golden values, β = 0.1: a gap of 10 gives log(1 + e⁻¹) = 0.3132617; 4 nats over 8 tokens add ½.

    Use:
        No reference, and a supervised term that keeps chosen responses likely.

    Watch:
        Summed log-probs depend on length, and nothing corrects for it (ours). Adding the regularizer `sft` is refused
        unless `sft_weight` is 0.

    Noise:
        none

    Args:
        rows: scores are summed log-probs (B,), nats; `logps` hold the token counts.
        options: see `CPOOptions`.

    Returns:
        The loss of every row (B,).
    """
    contrast = softplus(-options.beta * rows.gap)
    if options.sft_weight == 0:
        return contrast
    logps = given("logps", rows.logps)
    return contrast - options.sft_weight * logps.chosen / logps.chosen_tokens
