"""Self-refined DPO, the training loss of SPA: label smoothing of the preferences that a noise detector suspects."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from popmargin.objectives.base import Figure, Golden, Rows, given, objective, positive


@dataclass(frozen=True, kw_only=True)
class SPAOptions:
    """Options of `spa`.

    Attributes:
        beta: reward units per nat.
        alpha: α, weight of the opposite label in the loss of a suspected preference, 0 ≤ α ≤ ½.
        quantile: K, share of the recent preferences that the threshold τ may suspect.
        window: rows that τ is taken of, at least: those of the last whole optimizer steps. Nothing is suspected before.
        decoupling: λ, how far the policy's logits are moved away from the reference's before h̃ is taken; 0 takes h.
        warm_share: share of the optimizer steps at the start in which α is 0.
    """

    beta: float = 0.1
    alpha: float = 0.1
    quantile: float = 0.1
    window: int = 256
    decoupling: float = 0.5
    warm_share: float = 0.2

    def __post_init__(self) -> None:
        positive("spa", beta=self.beta)
        if not 0 <= self.alpha <= 0.5:
            raise ValueError(f"spa: alpha must be 0 to 0.5, not {self.alpha}: above, it would turn labels round.")
        if not 0 < self.quantile < 1:
            raise ValueError(f"spa: quantile must be above 0 and below 1, not {self.quantile}.")
        if not self.window * self.quantile >= 1:
            raise ValueError(
                f"spa: window must hold 1/quantile rows or more ({math.ceil(1 / self.quantile)}), not {self.window}: "
                "of fewer, none may be suspected."
            )
        if not 0 <= self.decoupling < math.inf:
            raise ValueError(f"spa: decoupling must be a finite number, 0 or more, not {self.decoupling}.")
        if not 0 <= self.warm_share <= 1:
            raise ValueError(f"spa: warm_share must be 0 to 1, not {self.warm_share}.")


def _decoupled_margin(rows: Rows, options: SPAOptions) -> Float[Tensor, "B"]:
    """h̃ (B,), reward units, detached, in fp64."""
    gap = given("decoupled", rows.decoupled) if options.decoupling else rows.gap
    return options.beta * gap.detach().double()


def _threshold(rows: Rows) -> Tensor:
    """τ, a scalar; nan where nothing is to be suspected."""
    return given("state['threshold']", rows.state.get("threshold"))


def suspected(rows: Rows, options: SPAOptions) -> Bool[Tensor, "B"]:
    """Whether z = 0: h̃ is at or below τ (B,)."""
    return _decoupled_margin(rows, options) <= _threshold(rows)  # never of nan


def threshold_of(margins: Float[Tensor, "N"], quantile: float) -> Float[Tensor, ""]:
    """τ: the largest value that has a share of at most `quantile` at or below it; nan if there is none.

    Of values that are all alike, as h̃ = 0 in the first step, there is none: one of them would suspect all.

    Args:
        margins: h̃ of recent rows (N,), reward units.
        quantile: K.

    Example:
        >>> threshold_of(torch.tensor([0.3, -0.2, 0.1, 0.4]), 0.5)
        tensor(0.1000)
        >>> threshold_of(torch.tensor([0.0, 0.0, 0.0, 0.4]), 0.5)
        tensor(nan)
    """
    ordered = margins.sort().values
    at_or_below = torch.searchsorted(ordered, ordered, right=True)
    few = ordered[at_or_below <= quantile * len(ordered)]
    return few[-1] if len(few) else torch.full_like(margins.sum(), torch.nan)


def _diagnostics(rows: Rows, options: SPAOptions) -> dict[str, Tensor]:
    margin = _decoupled_margin(rows, options)
    return {
        "decoupled_margin": margin,
        "suspected": suspected(rows, options).double(),
        "suspect_threshold": _threshold(rows).to(margin).expand_as(margin),
        "signs_agree": (rows.gap.detach().sign() == margin.sign()).double(),
    }


def _init_state(options: SPAOptions) -> dict[str, Tensor]:
    """τ, the h̃ that it is taken of, step after step, and how many of them are of each step."""
    return {
        "threshold": torch.tensor(torch.nan, dtype=torch.float64),
        "margins": torch.zeros(0, dtype=torch.float64),
        "rows_of_steps": torch.zeros(0, dtype=torch.int64),
    }


def _update_state(state: dict[str, Tensor], step: Mapping[str, Any], options: SPAOptions) -> dict[str, Tensor]:
    """Steps are kept whole and their rows sorted, so that it does not matter which process or pass had a row."""
    new: Tensor = step["decoupled_margin"]
    margins = torch.cat([state["margins"], new.sort().values])
    counts = torch.cat([state["rows_of_steps"], torch.tensor([len(new)])])
    since = counts.flip(0).cumsum(0)  # rows of the last step, of the last two, …
    steps = min(int((since < options.window).sum()) + 1, len(counts))
    margins, counts = margins[-int(since[steps - 1]) :], counts[-steps:]
    full = len(margins) >= options.window
    threshold = threshold_of(margins, options.quantile) if full else torch.full_like(state["threshold"], torch.nan)
    return {"threshold": threshold, "margins": margins, "rows_of_steps": counts}


def _decoupling(options: SPAOptions) -> float:
    return options.decoupling


_AT = {"threshold": 0.4}
_GOLDEN: list[tuple[float, float, float]] = [
    (5.0, 5.0, 0.4740769841801067),
    (5.0, 3.0, 0.5240769841801067),
    (-3.0, -3.0, 0.8243552444685273),
]


@objective(
    "spa",
    options=SPAOptions,
    score="log_ratio",
    origin="published",
    diagnostics=_diagnostics,
    init_state=_init_state,
    update_state=_update_state,
    every_row=("decoupled_margin",),
    decoupling=_decoupling,
    figure=Figure(
        vary="alpha", values=(0.0, 0.1, 0.5), options={"decoupling": 0.0}, state={"threshold": -1.0}, reach=4.0
    ),
    golden=tuple(
        Golden(rows={"chosen": [gap], "rejected": [0.0], "decoupled": [decoupled]}, state=_AT, expected=[loss])
        for gap, decoupled, loss in _GOLDEN
    ),
)
def spa(rows: Rows, options: SPAOptions) -> Float[Tensor, "B"]:
    """SPA: DPO with label smoothing of the preferences whose label is suspected, for labels that the model made itself.

    L = −(1 − s)·log σ(h) − s·log σ(−h),  h = β·Δ,  s = α·(1 − z),  z = 1 if h̃ > τ else 0   (Kim et al. 2025) [code]

    h̃ is h with de-coupled log-probs and without gradient: those of a token are log softmax((1 + λ)·f − λ·f_ref) over
    the vocabulary, f the logits, and those of the reference are subtracted as ever. λ is 1/2, 1/4 and 1/8 in rounds 1,
    2 and 3 [second-hand]; with λ = 0, h̃ is h, and the reference's cached log-probs are enough. τ is the K-quantile of
    recent h̃, K = 0.1; α = 0.1, and 0 in the first fifth of the optimizer steps [code].

    What is ours [ours]: τ is taken of single rows of all processes, those of the last whole steps that have at least
    `window` together, and nothing is suspected before there are so many. It is the largest h̃ with a share of at most K
    at or below it: rows that are all alike, as h̃ = 0 in the first step of a round with λ = 0, suspect none. The
    published code [code] takes means of the micro-batches of one process, the last 50, and a point near 11–12%; it
    suspects every negative h̃ before it has them; and its public configurations leave λ at 0.

    Golden values, α = β = 0.1, τ = 0.4: Δ = Δ̃ = 5 (h̃ = 0.5, z = 1) give log(1 + e^−0.5) = 0.4740770; Δ̃ = 3 (z = 0) adds
    s·h = 0.1·0.5, as log σ(−h) = log σ(h) − h; Δ = Δ̃ = −3 give log(1 + e^0.3) − 0.1·0.3 = 0.8243552.

    Use:
        Rounds of training on labels from the policy's own implicit reward, with the last round's policy as reference.
        Published [second-hand] (AlpacaEval 2, length-controlled): 14.41 with such labels alone, 14.70 with smoothing
        too, 15.39 with de-coupling as well; 9.03 for DPO on the 2,000 seed pairs alone.

    Watch:
        A run of fewer rows than `window` suspects none: `suspect_threshold` (τ) appears in the log when there is one.
        `suspected` is the share of rows with z = 0, about K unless h̃ drifts; `decoupled_margin` is the mean of h̃, and
        `reward_margin` that of h. With λ above 0 the reference is forwarded in every step beside the policy.

    Noise:
        labels that contradict the de-coupled policy, a share K of them

    Args:
        rows: scores are log-ratios (B,), nats; `decoupled` is Δ̃ (B,), nats, unless λ = 0; the state holds τ.
        options: see `SPAOptions`.

    Returns:
        The loss of every row (B,).
    """
    reward = options.beta * rows.gap
    alpha = options.alpha if rows.progress >= options.warm_share else 0.0
    smoothing = alpha * suspected(rows, options).to(reward.dtype)
    return (1 - smoothing) * softplus(-reward) + smoothing * softplus(reward)
