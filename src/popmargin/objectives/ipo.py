"""Identity preference optimization."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from popmargin.objectives.base import Figure, Golden, Rows, ScoreKind, objective, positive


@dataclass(frozen=True, kw_only=True)
class IPOOptions:
    """Options of `ipo`.

    Attributes:
        beta: the regularisation strength τ of the paper; the target gap is 1/(2β) nats.
        length_normalized: divide log-ratios by the token counts (TRL's convention, which its code says the paper's
            authors confirmed); off is the formula printed in the paper, and OpenRLHF's convention.
    """

    beta: float = 0.1
    length_normalized: bool = False

    def __post_init__(self) -> None:
        positive("ipo", beta=self.beta)


def _score(options: IPOOptions) -> ScoreKind:
    return "mean_log_ratio" if options.length_normalized else "log_ratio"


@objective(
    "ipo",
    options=IPOOptions,
    score=_score,
    origin="baseline",
    takes_margin="yes",
    figure=Figure(vary="beta", values=(0.1, 0.2), reach=2.0),
    golden=(
        Golden(rows={"chosen": [0.0], "rejected": [0.0]}, expected=[25.0]),
        Golden(rows={"chosen": [4.0], "rejected": [-2.0]}, options={"beta": 0.25}, expected=[16.0]),
    ),
)
def ipo(rows: Rows, options: IPOOptions) -> Float[Tensor, "B"]:
    """IPO: regress the log-ratio gap to a finite target, so certain labels do not drive it to infinity.

    L = (Δ − 1/(2β))²   (Azar et al. 2023)

    Golden values: β = 0.1 has the target 5, so Δ = 0 gives 25; β = 0.25 has the target 2, so Δ = 6 gives 16.

    Use:
        Certain labels, which would drive the gap of `dpo` to infinity; here the target is finite (published).

    Watch:
        At Δ = 0 and β = 0.1 the gradient in Δ is 200 times that of `dpo` (10 against 0.05), so gradient clipping sets
        in earlier. β differs from TRL's by the length: see `length_normalized`.

    Noise:
        none: the gradient grows with the contradiction

    Args:
        rows: scores are log-ratios (B,), nats; means over tokens with `length_normalized`.
        options: see `IPOOptions`.

    Returns:
        The loss of every row (B,).
    """
    return (rows.gap - 1 / (2 * options.beta)).square()
