"""Budget-controlled regularization: the chosen response may lose a little likelihood for free."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu

from popmargin.objectives.base import Logps, positive
from popmargin.regularizers.base import regularizer


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """Options of `budget`; their defaults are ours, the paper's constants are not known to us.

    Attributes:
        budget: δ, what the chosen response may lose against the reference, nats (nats per token with `per_token`).
        per_token: divide what is lost by the token count; a run does so for objectives of length-averaged log-probs,
            whose β belongs to nats per token, unless it is set.
        beta: reward units per nat; a run gives it the objective's β unless it is set.
    """

    budget: float = 1.0
    per_token: bool = False
    beta: float = 0.1

    def __post_init__(self) -> None:
        positive("budget", beta=self.beta)
        if not self.budget >= 0:
            raise ValueError(f"budget: budget must be 0 or more, not {self.budget}.")


def lost(logps: Logps, options: BudgetOptions) -> Float[Tensor, "B"]:
    """What the chosen responses have lost against the reference (B,), nats (per token); negative where they gained."""
    assert logps.chosen_reference is not None
    nats = logps.chosen_reference - logps.chosen
    return nats / logps.chosen_tokens if options.per_token else nats


def _diagnostics(logps: Logps, options: BudgetOptions) -> dict[str, Tensor]:
    nats = lost(logps, options)
    return {"budget_lost": nats, "budget_exceeded": (nats > options.budget).to(nats.dtype)}


@regularizer("budget", options=BudgetOptions, reference=True, diagnostics=_diagnostics)
def budget(logps: Logps, options: BudgetOptions) -> Float[Tensor, "B"]:
    """Budget: what the chosen response loses beyond a budget is charged, in reward units.

    R = β·max(0, logp_ref(y_w) − logp_θ(y_w) − δ)   (BCR, arXiv 2411.05875; the constants and the factor β are ours)

    No gradient within the budget. δ = 0 is a hinge as in DPO-Positive, but beside the loss; δ → ∞ is no regularizer.
    With `per_token` what is lost is divided by |y_w|.

    Args:
        logps: summed log-probs (B,) with those of the reference, nats.
        options: see `BudgetOptions`.

    Returns:
        The term of every row (B,), reward units.
    """
    return options.beta * relu(lost(logps, options) - options.budget)
