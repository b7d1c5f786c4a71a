"""The Lagrangian form of DPO-PoP: the ordering of margins as a constraint."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from popmargin.objectives.base import Figure, Golden, Needs, Rows, given, objective, of_edges, positive


@dataclass(frozen=True, kw_only=True)
class PopLagrangianOptions:
    """Options of `pop_lagrangian`.

    Attributes:
        beta: reward units per nat.
        lambda_init: the initial multiplier λ.
        lambda_lr: step of the dual ascent on log λ, once per optimizer step.
        lambda_max: upper bound of λ.
        ascent: `step`, ours, adds lambda_lr times the mean violation of the step to log λ; `authors` adds lambda_lr·λ
            times the mean violation of a window, less the threshold, as the authors' code does.
        window: for `authors`, optimizer steps in the window; nothing is trained until it is full. 4 steps of 32 edges
            are the 128 edges of the authors' code.
        threshold: for `authors`, the allowed violation, nats.
    """

    beta: float = 0.1
    lambda_init: float = 1.0
    lambda_lr: float = 0.01
    lambda_max: float = 100.0
    ascent: Literal["step", "authors"] = "step"
    window: int = 4
    threshold: float = 0.0

    def __post_init__(self) -> None:
        positive("pop_lagrangian", beta=self.beta, lambda_init=self.lambda_init, lambda_max=self.lambda_max)
        if self.lambda_lr < 0:
            raise ValueError(f"pop_lagrangian: lambda_lr must be 0 or more, not {self.lambda_lr}: λ only ascends.")
        if self.window < 1:
            raise ValueError(f"pop_lagrangian: window must be 1 or more optimizer steps, not {self.window}.")
        if not math.isfinite(self.threshold):
            raise ValueError(f"pop_lagrangian: threshold must be a finite number, not {self.threshold}.")


def _violation(rows: Rows, beta: float) -> Tensor:
    values = softplus(-beta * (rows.gap - rows.weaker_gap)) - math.log(2)
    return torch.where(given("has_weaker", rows.has_weaker), values, torch.zeros_like(values))


def _multiplier(rows: Rows) -> Tensor:
    """λ, a scalar."""
    return given("state['log_lambda']", rows.state.get("log_lambda")).exp()


def _diagnostics(rows: Rows, options: PopLagrangianOptions) -> dict[str, Tensor]:
    violation = of_edges(_violation(rows, options.beta), rows)
    return {"violation": violation, "lambda": _multiplier(rows).expand_as(violation)}


def _init_state(options: PopLagrangianOptions) -> dict[str, Tensor]:
    """log λ, and for `authors` the violations of the last steps and their number."""
    state = {"log_lambda": torch.tensor(math.log(options.lambda_init), dtype=torch.float64)}
    if options.ascent == "authors":
        state["violations"] = torch.zeros(options.window, dtype=torch.float64)
        state["steps_seen"] = torch.zeros((), dtype=torch.float64)
    return state


def _update_state(
    state: dict[str, Tensor], means: Mapping[str, float], options: PopLagrangianOptions
) -> dict[str, Tensor]:
    if "violation" not in means:  # no row of the step was an edge
        return state
    log_lambda, violation = state["log_lambda"], means["violation"]
    if options.ascent == "step":
        return {"log_lambda": _bounded(log_lambda + options.lambda_lr * violation, options)}
    violations = torch.cat([state["violations"][1:], torch.full_like(state["violations"][:1], violation)])
    seen = state["steps_seen"] + 1
    if seen >= options.window:
        slope = log_lambda.exp() * (violations.mean() - options.threshold)
        log_lambda = _bounded(log_lambda + options.lambda_lr * slope, options)
    return {"log_lambda": log_lambda, "violations": violations, "steps_seen": seen}


def _bounded(log_lambda: Tensor, options: PopLagrangianOptions) -> Tensor:
    return log_lambda.clamp(max=math.log(options.lambda_max))


def _trains(rows: Rows, options: PopLagrangianOptions) -> Tensor:
    """Whether the window of `authors` is full, a scalar; true for `step`."""
    if options.ascent == "step":
        return torch.ones((), dtype=torch.bool, device=rows.chosen.device)
    return given("state['steps_seen']", rows.state.get("steps_seen")) >= options.window


@objective(
    "pop_lagrangian",
    options=PopLagrangianOptions,
    score="log_ratio",
    origin="published",
    takes_margin="own",
    needs=Needs(edges=True, weaker="gradient"),
    diagnostics=_diagnostics,
    init_state=_init_state,
    update_state=_update_state,
    figure=Figure(vary="log_lambda", values=(-2.0, 0.0, 1.0), rows={"has_weaker": 1, "weaker_chosen": 10.0}),
    golden=(
        Golden(
            rows={"chosen": [10.0, 10.0], "rejected": [0.0, 0.0], "weaker_chosen": [10.0, 0.0],
                  "weaker_rejected": [0.0, 0.0], "has_weaker": [1, 0]},
            state={"log_lambda": 0.0},
            expected=[0.31326168751822286, 0.31326168751822286],
        ),
        Golden(
            rows={"chosen": [0.0], "rejected": [0.0], "weaker_chosen": [10.0], "weaker_rejected": [0.0],
                  "has_weaker": [1]},
            state={"log_lambda": 0.6931471805599453},
            expected=[1.7434334479556393],
        ),
        Golden(
            rows={"chosen": [0.0], "rejected": [0.0], "weaker_chosen": [10.0], "weaker_rejected": [0.0],
                  "has_weaker": [1]},
            options={"ascent": "authors", "window": 2},
            state={"log_lambda": 0.6931471805599453, "steps_seen": 2.0},
            expected=[1.7434334479556393],
        ),
        Golden(
            rows={"chosen": [0.0], "rejected": [0.0], "weaker_chosen": [10.0], "weaker_rejected": [0.0],
                  "has_weaker": [1]},
            options={"ascent": "authors", "window": 2},
            state={"steps_seen": 1.0},
            expected=[0.0],
        ),
    ),
)  # fmt: skip
def pop_lagrangian(rows: Rows, options: PopLagrangianOptions) -> Float[Tensor, "B"]:
    """DPO-PoP as a constraint: DPO on both preferences, plus a multiplier times the violation of their order.

    L(s, u) = ½[ℓ(s) + ℓ(u)] + λ·(−log σ(β[Δ(s) − Δ(u)]) − log 2),  ℓ = −log σ(β·Δ)

    A variant in the authors' code (Chittepu et al. 2025). Both sides get a gradient. A row without weaker side is ℓ(s)
    (ours). λ is updated once per optimizer step, with v the mean violation over its edges, by one of two rules:

    `step` (ours, the default):  Δlog λ = lr·v
    `authors`:                   Δlog λ = lr·λ·(mean v of the window − threshold), and no loss until the window is full

    The factor λ in the authors' rule makes it explode: at a steady violation of 0.3 nats, lr = 0.01, λ after 400 steps
    is 3.3 by `step`, and has reached its bound of 100 by `authors`. Their window is 128 edges; ours is counted in
    steps, which is the same for batches of 32 edges. Updating λ once per step, not per micro-batch, is ours.

    Golden values: equal gaps of 10 violate nothing, leaving log(1 + e⁻¹); Δ(s) = 0, Δ(u) = 10, λ = 2 give
    ½[log 2 + 0.3132617] + 2·(log(1 + e) − log 2) = 0.5032044 + 2·0.6201145 = 1.7434334; by `authors` nothing before the
    window is full.

    Use:
        PoP labels as a constraint on both sides, instead of a moving target.

    Watch:
        `lambda` in the log: λ rises as long as edges are violated, and wrong edges may stay violated (ours). With
        `authors` it soon reaches `lambda_max`, where the preferences themselves hardly count. Both sides are forwarded
        with gradient.

    Noise:
        wrong edges raise λ (ours)

    Args:
        rows: scores of both sides are log-ratios (B,), nats; the state holds `log_lambda`, and the window of `authors`.
        options: see `PopLagrangianOptions`.

    Returns:
        The loss of every row (B,).
    """
    stronger, weaker = softplus(-options.beta * rows.gap), softplus(-options.beta * rows.weaker_gap)
    both = torch.where(given("has_weaker", rows.has_weaker), (stronger + weaker) / 2, stronger)
    loss = both + _multiplier(rows).to(stronger) * _violation(rows, options.beta)
    return torch.where(_trains(rows, options), loss, 0 * loss)
