"""PreferDiff: regression on the chosen side and a preference over the rejected one, for denoisers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from popmargin.objectives.base import Figure, Golden, Rows, objective


@dataclass(frozen=True, kw_only=True)
class PreferDiffOptions:
    """Options of `preferdiff`.

    Attributes:
        beta: γ of the paper, reward units per unit of error; 5 in the authors' code.
        regression: λ, weight of the regression; .4 to .6 in the authors' code. 1 is plain regression, 0 only prefers.
        batch_mean: take the mean gap of the batch before log σ, as the authors' code does; false takes each row's.
    """

    beta: float = 5.0
    regression: float = 0.4
    batch_mean: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.beta < float("inf"):
            raise ValueError(f"preferdiff: beta must be a finite number, 0 or more, not {self.beta}.")
        if not 0 <= self.regression <= 1:
            raise ValueError(f"preferdiff: regression must be between 0 and 1, not {self.regression}.")


def _of_batch(rows: Rows, function: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]) -> Tensor:
    """A function of the mean gap over all processes, as losses of rows (B,); their mean has its value and gradient."""
    mean = rows.gather(rows.gap.detach()).mean()
    return function(mean) + slope(mean) * (rows.gap - rows.gap.detach())


@objective(
    "preferdiff",
    options=PreferDiffOptions,
    score="logp",
    origin="published",
    batch_statistics=lambda options: options.batch_mean,
    supervised=lambda options: options.regression > 0,
    figure=Figure(vary="regression", values=(0.0, 0.4, 1.0), options={"beta": 1.0}, score=-2.0, reach=3.0),
    golden=(
        Golden(
            rows={"chosen": [-0.04, -0.36], "rejected": [-0.25, -0.16]},
            expected=[0.19603508777058593, 0.9319570125109337],
        ),
        Golden(
            rows={"chosen": [-0.04, -0.36], "rejected": [-0.25, -0.16]},
            options={"batch_mean": True},
            expected=[0.4244351821153149, 0.5524351821153148],
        ),
        Golden(rows={"chosen": [-0.3], "rejected": [-9.0]}, options={"regression": 1.0}, expected=[0.3]),
        Golden(rows={"chosen": [-0.3], "rejected": [-9.0]}, options={"beta": 0.0}, expected=[0.5358883083359672]),
    ),
)
def preferdiff(rows: Rows, options: PreferDiffOptions) -> Float[Tensor, "B"]:
    """PreferDiff: λ times the error of the chosen side, and a log-loss of its being smaller than the rejected one's.

    L = λ·ℓ⁺ − (1 − λ)·log σ(−γ·(ℓ⁺ − ℓ⁻)),  ℓ = −score   (Liu et al., ICLR 2025, arXiv 2410.13117)

    A denoiser's error ℓ is, up to constants, the negative log-density of what it should have predicted, so the score is
    −ℓ. There is no reference. The authors' code takes the means of ℓ⁺ and ℓ⁻ over the batch before σ (`batch_mean`),
    one number a batch; per row is the objective as written. With `batch_mean`, rows of one batch share the mean's loss
    and its gradient, over all processes; micro-batches have means of their own.

    Golden values, γ = 5, λ = .4: ℓ⁺ = (.04, .36), ℓ⁻ = (.25, .16) give .4·.04 + .6·log(1 + e^−1.05) = .1960351 and
    .4·.36 + .6·log(1 + e^1) = .9319570. Batch means .2 and .205: .6·log(1 + e^−.025) = .4084352, with .4·.2 it is
    .4884352 in the mean. λ = 1 is ℓ⁺; γ = 0 is .4·.3 + .6·log 2.

    Use:
        Denoisers of item vectors (`popmargin.recommend`). With log-probs of a policy as scores it is CPO whose
        supervised term is summed over tokens (ours).

    Watch:
        Errors have a scale of their own (0 to 4 for the published one), and γ multiplies it. Compare with λ = 1: in our
        measurements at small dimensions the preference term did not help.

    Noise:
        none

    Args:
        rows: scores are −ℓ (B,).
        options: see `PreferDiffOptions`.

    Returns:
        The loss of every row (B,).
    """
    beta, weight = options.beta, options.regression
    if options.batch_mean:
        preference = _of_batch(rows, lambda gap: softplus(-beta * gap), lambda gap: -beta * torch.sigmoid(-beta * gap))
    else:
        preference = softplus(-beta * rows.gap)
    return -weight * rows.chosen + (1 - weight) * preference
