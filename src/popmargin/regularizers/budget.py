"""Budget-controlled regularization: the chosen response may lose a little likelihood for free."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu

from popmargin.objectives.base import Logps, positive
from popmargin.regularizers.base import regularizer


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """Options of `budget`; the defaults are ours, since we do not know the paper's constants.

    Attributes:
        budget: δ, how much the chosen response may lose relative to the reference, nats (nats per token with
            `per_token`).
        per_token: divide the loss in log-prob by the token count; unless set, on for objectives of length-averaged
            log-probs, whose β is per nat per token.
        beta: reward units per nat; unless set, a run uses the objective's β.
    """

    budget: float = 1.0
    per_token: bool = False
    beta: float = 0.1

    def __post_init__(self) -> None:
        positive("budget", beta=self.beta)
        if not self.budget >= 0:
            raise ValueError(f"budget: budget must be 0 or more, not {self.budget}.")


def lost(logps: Logps, options: BudgetOptions) -> Float[Tensor, "B"]:
    """Log-prob that chosen responses lost against the reference (B,), nats (per token); negative if they gained."""
    assert logps.chosen_reference is not None
    nats = logps.chosen_reference - logps.chosen
    return nats / logps.chosen_tokens if options.per_token else nats


def _diagnostics(logps: Logps, options: BudgetOptions) -> dict[str, Tensor]:
    nats = lost(logps, options)
    return {"budget_lost": nats, "budget_exceeded": (nats > options.budget).to(nats.dtype)}


@regularizer("budget", options=BudgetOptions, reference=True, diagnostics=_diagnostics)
def budget(logps: Logps, options: BudgetOptions) -> Float[Tensor, "B"]:
    """Budget: penalises the log-prob that the chosen response loses beyond a budget, in reward units.

    R = β·max(0, logp_ref(y_w) − logp_θ(y_w) − δ)   (BCR, arXiv 2411.05875; the constants and the factor β are ours)

    No gradient within the budget. δ = 0 is a hinge as in DPO-Positive, but added to the loss; δ → ∞ disables it. With
    `per_token` the lost log-prob is divided by |y_w|.

    Args:
        logps: summed log-probs (B,) with those of the reference, nats.
        options: see `BudgetOptions`.

    Returns:
        The term of every row (B,), reward units.
    """
    return options.beta * relu(lost(logps, options) - options.budget)
