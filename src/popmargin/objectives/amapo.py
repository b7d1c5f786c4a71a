"""AMaPO: an adaptive margin for misranked preferences."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from popmargin.objectives.base import Figure, Golden, Rows, given, objective, positive

STATE = ("weight", "mean", "square")
"""Running moments of the gap and their total weight so far."""


@dataclass(frozen=True, kw_only=True)
class AMaPOOptions:
    """Options of `amapo`.

    Attributes:
        beta: reward units per nat of mean log-prob.
        convention: the exponent: `code` as in the authors' code, `paper` as in the paper's formula.
        running: decay of running statistics per optimizer step, 0 ≤ running < 1; 0 uses the global batch's.
        label_smoothing: ε, weight of the opposite label, 0 ≤ ε < ½.
        eps: smallest s, nats per token; gaps this close to μ count as equal to it (ours).
        exponent_max: upper bound of the exponent (ours): it keeps the logged loss finite; the gradient saturates long
            before.
    """

    beta: float = 2.0
    convention: Literal["code", "paper"] = "code"
    running: float = 0.0
    label_smoothing: float = 0.0
    eps: float = 1e-6
    exponent_max: float = 20.0

    def __post_init__(self) -> None:
        positive("amapo", beta=self.beta, eps=self.eps, exponent_max=self.exponent_max)
        if not 0 <= self.running < 1:
            raise ValueError(f"amapo: running must be 0 (off) or a decay below 1, not {self.running}.")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"amapo: label_smoothing must be 0 or more and below 0.5, not {self.label_smoothing}.")


@dataclass(frozen=True, kw_only=True)
class AdaptiveMargins:
    """Margins and the quantities they come from; all detached, in fp64.

    Attributes:
        values: M, reward units, one a row (B,).
        exponent: the exponent if there is a margin, else 0 (B,).
        lags: whether the row has a margin (B,).
        mu: μ (B,), nats per token.
        s: s, nats per token, the same for all rows (B,).
    """

    values: Tensor
    exponent: Tensor
    lags: Tensor
    mu: Tensor
    s: Tensor


def statistics(rows: Rows, options: AMaPOOptions) -> tuple[Tensor, Tensor]:
    """μ and s (B,) that the margins are measured against, nats per token; detached, in fp64."""
    gap = rows.gap.detach().double()
    if options.running:
        weight, mean, square = (given(f"state['{name}']", rows.state.get(name)) for name in STATE)
        started = weight > 0
        weight = torch.where(started, weight, torch.ones_like(weight))
        mu = mean / weight
        s = (square / weight - mu.square()).clamp(min=0).sqrt()
        # Before the first update a row is its own mean, which gives it no margin.
        return torch.where(started, mu, gap), s.expand_as(gap)
    everyone = rows.gather(gap)
    mu = everyone.mean()
    s = ((everyone - mu).square().sum() / max(len(everyone) - 1, 1)).sqrt()  # n = 1 gives 0, not NaN
    return mu.expand_as(gap), s.expand_as(gap)


def adaptive_margins(rows: Rows, options: AMaPOOptions) -> AdaptiveMargins:
    """The margin of every row."""
    gap = rows.gap.detach().double()
    mu, s = statistics(rows, options)
    behind = mu - gap
    behind = torch.where(behind.abs() > options.eps, behind, torch.zeros_like(behind))  # rounding is no margin
    exponent = behind / s.clamp(min=options.eps) * mu
    if options.convention == "paper":
        exponent = options.beta * exponent
        lags = exponent > 0
    else:
        lags = behind > 0
    exponent = torch.where(lags, exponent.clamp(max=options.exponent_max), torch.zeros_like(exponent))
    values = torch.where(lags, options.beta * exponent.exp(), torch.zeros_like(exponent))
    return AdaptiveMargins(values=values, exponent=exponent, lags=lags, mu=mu, s=s)


def _diagnostics(rows: Rows, options: AMaPOOptions) -> dict[str, Tensor]:
    """A mean over rows cannot hold a maximum: `exponent_max` is the mean over forward passes of their maximum.

    Rows without a margin have no exponent: the maximum is over the others, 0 if there are none.
    `gap_mean` and `gap_square` are of all rows of an optimizer step, and feed the running statistics.
    """
    margins = adaptive_margins(rows, options)
    exponent = torch.where(margins.lags, margins.exponent, torch.full_like(margins.exponent, -torch.inf))
    largest = (exponent if options.running else rows.gather(exponent)).max()
    largest = torch.where(largest.isinf(), torch.zeros_like(largest), largest)
    gap = rows.gap.detach().double()
    return {
        "margin_share": margins.lags.double(),
        "exponent_mean": margins.exponent,
        "exponent_square": margins.exponent.square(),
        "exponent_max": largest.expand_as(gap),
        "mu": margins.mu,
        "s": margins.s,
        "gap_mean": gap,
        "gap_square": gap.square(),
    }


def _init_state(options: AMaPOOptions) -> dict[str, Tensor]:
    return {name: torch.zeros((), dtype=torch.float64) for name in (STATE if options.running else ())}


def _update_state(state: dict[str, Tensor], means: Mapping[str, float], options: AMaPOOptions) -> dict[str, Tensor]:
    new = {"weight": 1.0, "mean": means["gap_mean"], "square": means["gap_square"]}
    keep = options.running
    return {name: keep * value + (1 - keep) * new[name] for name, value in state.items()}


def _batch_statistics(options: AMaPOOptions) -> bool:
    return not options.running


@objective(
    "amapo",
    options=AMaPOOptions,
    score="mean_logp",
    origin="published",
    takes_margin="own",
    diagnostics=_diagnostics,
    init_state=_init_state,
    update_state=_update_state,
    batch_statistics=_batch_statistics,
    figure=Figure(
        vary="convention",
        values=("code", "paper"),
        options={"running": 0.9},
        state={"weight": 1.0, "mean": 0.5, "square": 0.5},
        score=-2.0,
        reach=2.0,
    ),
    golden=(
        Golden(
            rows={"chosen": [-1.0, -1.0], "rejected": [-1.0, -3.0]},
            expected=[4.073395952307834, 0.018149927917809738],
        ),
        Golden(
            rows={"chosen": [-1.0, -1.0], "rejected": [-1.0, -3.0]},
            options={"convention": "paper"},
            expected=[8.226768192441183, 0.018149927917809738],
        ),
        Golden(
            rows={"chosen": [-1.0], "rejected": [-2.0]},
            options={"running": 0.5},
            state={"weight": 0.5, "mean": 1.0, "square": 2.5},
            expected=[12.778115019723296],
        ),
    ),
)
def amapo(rows: Rows, options: AMaPOOptions) -> Float[Tensor, "B"]:
    """AMaPO: preferences that lag behind the batch get a margin that grows with their lag; no reference.

    L = −log σ(β·r − sg[M]),  r = mean_logp(y_w) − mean_logp(y_l),  z = (μ − r)/s   (arXiv 2511.09385)

    `code` (authors' code, the default):   M = β·exp(z·μ) if r < μ, else 0
    `paper` (second-hand):                 γ = max(z·β·μ, 0);  M = β·exp(γ) if γ > 0, else 0

    μ and s are the mean and unbiased standard deviation of sg[r] over the global batch: the rows forwarded together,
    over all processes. With micro-batches that is less than an optimizer step, and statistics of 4–8 rows are noise:
    set `running` (ours) if `micro_batch_size` is small. μ and s are then bias-corrected moving averages over optimizer
    steps (s without the n/(n − 1)), a row's loss does not depend on other rows, and no row has a margin before the
    first update. If μ < 0, `code` gives margins below β, and `paper` gives margins to rows above the mean. Label
    smoothing weights log σ of the opposite sign by ε.

    Golden values, β = 2: gaps 0 and 2 have μ = 1, s = √2. The first row has z·μ = 1/√2, the margin 2·e^0.7071068 =
    4.0562300 and the loss log(1 + e^4.0562300) = 4.0733960 (`paper`: 2·e^1.4142136 = 8.2265008, 8.2267682); the second
    has z < 0 and log(1 + e⁻⁴) = 0.0181499. Running moments 1/½ and 2.5/½ are μ = 2, s = √(5 − 4) = 1: r = 1 has
    z·μ = 2, the margin 2·e² = 14.7781122 and log(1 + e^(14.7781122 − 2)) = 12.7781150.

    Use:
        No reference, and more effort on preferences that lag behind. Published (read second-hand): length-controlled
        AlpacaEval 2 of 26.4 against 22.0 for SimPO (Llama-3-8B base). The authors' recipe: learning rates 4e-7 to 1e-6,
        batches of 128.

    Watch:
        The margin jumps from 0 to about β at the mean. `margin_share` is the share of rows with a margin;
        `exponent_max` shows explosions. The statistics need many rows at once, or `running`.

    Noise:
        none: flipped preferences lag too, and get a margin (ours)

    Args:
        rows: scores are mean log-probs (B,), nats per token; the state holds running moments of the gap.
        options: see `AMaPOOptions`.

    Returns:
        The loss of every row (B,).
    """
    # In fp64: exp(exponent) and β·r may be large and nearly equal.
    logit = options.beta * rows.gap.double() - adaptive_margins(rows, options).values
    smoothing = options.label_smoothing
    loss = softplus(-logit) if smoothing == 0 else (1 - smoothing) * softplus(-logit) + smoothing * softplus(logit)
    return loss.to(rows.gap.dtype)
