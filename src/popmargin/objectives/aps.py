"""Adaptive preference scaling on the policy's own reward margin (Ada-DPO)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from popmargin.objectives.base import Figure, Golden, Rows, objective, positive

FLOOR = 1e-6
"""Smallest curvature of a Newton step."""
TAU_BINS = 8
"""Bins between τ₀ and τ_max in the logged histogram of scales."""


@dataclass(frozen=True, kw_only=True)
class APSOptions:
    """Options of `aps`.

    Attributes:
        beta: reward units per nat.
        rho0: ρ₀, price of a large scale; the paper searches .05, .1, .3, .5, and smaller works better. Above 0.13
            `linear` does not converge at every margin, see `popmargin.objectives.aps.scales`; from log 2 on the scale
            would be τ₀ at every margin, so it is refused.
        tau0: smallest scale τ.
        tau_max: largest scale τ; the paper searches 1, 4, 5, 10.
        iterations: Newton steps; 5 in the paper for language models, 3 for robotics.
        regularizer: `linear` ρτ with ρ = ρ₀ − log 2, or `quadratic` ρ₀τ² − τ·log 2.
    """

    beta: float = 0.1
    rho0: float = 0.1
    tau0: float = 0.1
    tau_max: float = 4.0
    iterations: int = 5
    regularizer: Literal["linear", "quadratic"] = "linear"

    def __post_init__(self) -> None:
        positive("aps", beta=self.beta, rho0=self.rho0, tau0=self.tau0, tau_max=self.tau_max)
        if self.tau0 > self.tau_max:
            raise ValueError(f"aps: tau0 {self.tau0} is above tau_max {self.tau_max}.")
        if self.iterations < 1:
            raise ValueError(f"aps: iterations must be 1 or more, not {self.iterations}.")
        if self.regularizer == "linear" and self.rho0 >= math.log(2):
            raise ValueError(
                f"aps: with rho0 {self.rho0}, which is not below log 2 = 0.693, every scale is tau0, as in `dpo` "
                "with β/tau0: lower it (the paper searches .05 to .5)."
            )


def price(tau: Float[Tensor, "B"], options: APSOptions) -> Float[Tensor, "B"]:
    """The price of a scale τ (B,)."""
    if options.regularizer == "quadratic":
        return options.rho0 * tau.square() - math.log(2) * tau
    return (options.rho0 - math.log(2)) * tau


def scales(rows: Rows, options: APSOptions) -> Float[Tensor, "B"]:
    """The scale τ* of every row (B,): Newton's method from τ = 1, detached, in fp64.

    With u = |d|/τ, the slope of the inner problem in τ is H(σ(u)) − log 2 plus that of the price, and its curvature
    (d²/τ³)·σ(u)·σ(−u). Both are even in d, so |d| avoids cancellation at large negative margins.

    Five steps come within 5% of τ* for `quadratic`, and for `linear` up to ρ₀ = 0.13. From ρ₀ = 0.139 on, the `linear`
    iteration (the paper's) oscillates between two scales at some margins, for any number of steps (τ₀ = 0.1):

        ρ₀     |d|, any τ_max of the paper    and at τ_max = 10
        0.14   0.66                           6.55–6.61
        0.2    0.63–0.82                      6.33–8.15
        0.3    0.62–1.06                      6.20–10.57
        0.5    0.67–1.56                      6.68–15.62 (τ_max = 5: 6.68–7.81)
    """
    size = (options.beta * rows.gap.detach().double()).abs()
    tau = torch.ones_like(size)
    for _ in range(options.iterations):
        u = size / tau
        slope = softplus(-u) + torch.sigmoid(-u) * u - math.log(2)
        curvature = size.square() / tau.pow(3) * torch.sigmoid(u) * torch.sigmoid(-u)
        if options.regularizer == "quadratic":
            slope, curvature = slope + 2 * options.rho0 * tau, curvature + 2 * options.rho0
        else:
            slope = slope + options.rho0
        tau = (tau - slope / curvature.clamp(min=FLOOR)).clamp(options.tau0, options.tau_max)
    return tau


def _diagnostics(rows: Rows, options: APSOptions) -> dict[str, Tensor]:
    """`tau_bin_1` … `tau_bin_8` are the shares of rows whose scale lies in each eighth of [τ₀, τ_max]."""
    tau = scales(rows, options)
    width = (options.tau_max - options.tau0) / TAU_BINS or 1.0
    place = ((tau - options.tau0) / width).floor().clamp(0, TAU_BINS - 1)
    bins = {f"tau_bin_{number + 1}": (place == number).double() for number in range(TAU_BINS)}
    return bins | {
        "tau_mean": tau,
        "tau_square": tau.square(),
        "tau_at_min": (tau <= options.tau0).double(),
        "tau_at_max": (tau >= options.tau_max).double(),
    }


@objective(
    "aps",
    options=APSOptions,
    score="log_ratio",
    origin="published",
    takes_margin="yes",
    diagnostics=_diagnostics,
    figure=Figure(vary="tau_max", values=(1.0, 4.0, 10.0), reach=8.0),
    golden=(
        Golden(rows={"chosen": [0.0, 400.0], "rejected": [0.0, 0.0]}, expected=[0.01, -2.372407126642914]),
        Golden(
            rows={"chosen": [0.0], "rejected": [0.0]},
            options={"regularizer": "quadratic"},
            expected=[0.001],
        ),
    ),
)
def aps(rows: Rows, options: APSOptions) -> Float[Tensor, "B"]:
    """Ada-DPO: every preference has its own scale, large if it is unambiguous and small if it is not.

    L = min over τ in [τ₀, τ_max] of −τ·log σ(d/τ) + ρ·τ,  d = β·Δ,  ρ = ρ₀ − log 2   (Hong et al. 2024)

    `quadratic` has ρ₀τ² − τ·log 2 instead of ρτ. τ* is detached, so ∂L/∂d = −σ(−d/τ*). The price of τ* changes no
    gradient; it is kept so that the loss equals the objective, and the loss may be negative.

    The authors' code adds 1e-6 to the probability inside the logarithms; here they are exact. At the defaults this
    changes the loss and its gradient by a relative 2e-5 at most for |d| from 0.5 to 5, and τ* by less than 1e-4. It
    would matter only for d/τ* < −10, where their gradient vanishes (`tests/objectives/test_objective_authors.py`).

    Golden values, ρ₀ = τ₀ = 0.1, τ_max = 4: Δ = 0 has τ* = τ₀ and τ₀·log 2 + (ρ₀ − log 2)·τ₀ = 0.01 (quadratic:
    ρ₀τ₀² = 0.001); d = 40 has τ* = τ_max and 4·log(1 + e⁻¹⁰) + 4·(0.1 − log 2) = 0.0001816 − 2.3725887.

    Use:
        Preferences that differ in ambiguity. Published: smaller ρ₀ works better; ρ₀ = 0.1 and τ_max = 4 were best on
        TL;DR, ρ₀ = 0.05 and τ_max = 5 on HH, where `quadratic` raised the win rate from 53.4 to 56.0.

    Watch:
        The histogram of scales (`tau_bin_1` … `tau_bin_8`, and in the report): about 40% at τ_max is usual on TL;DR
        (published). With all at one end this is `dpo` with a different β. `linear` with ρ₀ above 0.13 does not
        converge at every margin.

    Noise:
        ambiguous preferences saturate early; flipped ones still pull

    Args:
        rows: scores are log-ratios (B,), nats.
        options: see `APSOptions`.

    Returns:
        The loss of every row (B,).
    """
    tau = scales(rows, options).to(rows.gap.dtype)
    return tau * softplus(-options.beta * rows.gap / tau) + price(tau, options)
