"""DPO-PoP: the weaker preference's reward margin is the stronger one's target margin."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from popmargin.margin import Margin
from popmargin.objectives.base import Figure, Golden, Needs, Rows, given, objective, of_edges, positive


@dataclass(frozen=True, kw_only=True)
class TargetClip:
    """Where a target margin is clipped.

    Attributes:
        margin_min: lower clip of the target margin, nats (before β).
        margin_max: upper clip of the target margin, nats (before β).
    """

    margin_min: float = 0.0
    margin_max: float = 10.0

    def __post_init__(self) -> None:
        if not self.margin_min <= self.margin_max:
            raise ValueError(f"pop: margin_min {self.margin_min} is above margin_max {self.margin_max}.")


@dataclass(frozen=True, kw_only=True)
class PopOptions(TargetClip):
    """Options of `pop`.

    Attributes:
        beta: reward units per nat.
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        positive("pop", beta=self.beta)
        super().__post_init__()


def target_margin(rows: Rows, margin_min: float, margin_max: float) -> Margin:
    """The clipped target margin, nats; 0 in rows without a weaker side."""
    return given("target", rows.target).clip(margin_min, margin_max).only(given("has_weaker", rows.has_weaker))


def target_diagnostics(rows: Rows, options: TargetClip) -> dict[str, Tensor]:
    """Shows whether the target moves: with a margin of 0 the loss degenerates to `dpo_stronger`."""
    target = given("target", rows.target).values
    margin = of_edges(target_margin(rows, options.margin_min, options.margin_max).values, rows)
    return {
        "target_margin_mean": margin,
        "target_margin_square": margin.square(),  # the log turns mean and square into a standard deviation
        "target_margin_clipped": of_edges((margin != target).to(margin.dtype), rows),
    }


@objective(
    "pop",
    options=PopOptions,
    score="log_ratio",
    origin="published",
    takes_margin="own",
    needs=Needs(edges=True, weaker="target"),
    diagnostics=target_diagnostics,
    figure=Figure(vary="target", values=(0.0, 5.0, 10.0, 20.0), rows={"has_weaker": 1}),
    golden=(
        Golden(
            rows={"chosen": [10.0] * 4, "rejected": [0.0] * 4, "target": [10.0, 25.0, -3.0, 10.0],
                  "has_weaker": [1, 1, 1, 0]},
            expected=[0.6931471805599453, 0.6931471805599453, 0.31326168751822286, 0.31326168751822286],
        ),
    ),
)  # fmt: skip
def pop(rows: Rows, options: PopOptions) -> Float[Tensor, "B"]:
    """DPO-PoP: the stronger preference's target margin is the weaker one's current margin.

    L(s, u) = −log σ(β·[Δ(s) − clip(sg[Δ_target(u)], m_min, m_max)])   (Chittepu et al. 2025)

    The margin is clipped in nats, before β. Only s gets a gradient. The run's `target` scores u: the Polyak-averaged
    policy as published, the detached policy, or our margin bank.

    The authors' code sums a different set of tokens: it skips the first token at which the two responses differ, and
    counts a pad token after the end. Here every token of a response counts, including its end token, and no padding.
    On a random model the gap of 100 pairs (5 to 40 tokens after 0 to 3 common ones) differs by 0.39 nats on average,
    where its standard deviation is 2.1 (`tests/objectives/test_objective_authors.py`).

    Golden values: Δ(s) = 10 with the target 10, and 25 clipped to 10, give log 2; a target of −3 clipped to 0, and a
    row without weaker side, give the DPO loss log(1 + e⁻¹).

    Use:
        Labels that say which of two preferences is stronger, without comparable ratings.
        Published: iterative edges favour accuracy, random edges the quality of generations.

    Watch:
        `target_margin_mean` at 0 means that the target never moved, so this is `dpo_stronger`. Compare with that
        control: much of a gain may come from which preferences are trained on. The margin is clipped in nats.

    Noise:
        ordinal: ratings may be off as long as their order is right (ours); flipped preferences are not detected

    Args:
        rows: scores of the stronger sides are log-ratios (B,), nats; `target` holds the weaker sides' gaps, nats.
        options: see `PopOptions`.

    Returns:
        The loss of every row (B,).
    """
    margin = target_margin(rows, options.margin_min, options.margin_max)
    return softplus(-options.beta * (rows.gap - margin.nats(options.beta)))
