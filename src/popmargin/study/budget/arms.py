"""The arms: what each buys with its minutes, and what it trains with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Buys = Literal[
    "nothing",
    "preferences",
    "grades",
    "inline",
    "votes",
    "rated",
    "ratings",
    "comparisons",
    "coin",
    "untrained",
    "length",
]
"""nothing: the labels that are there; preferences: new ones; grades: new ones, all with a grade; inline: new ones, all
compared with the one before; votes: of the old ones; rated: new ones with ratings in place of labels; ratings: of the
old ones; comparisons: of the old ones; coin, untrained, length: controls that learn nothing."""
Scheme = Literal["chain", "random", "iterative", "active"]


@dataclass(frozen=True, kw_only=True)
class BudgetArm:
    """One way of spending.

    Attributes:
        label: its name in the report.
        buys: what.
        objective: that trains on it, by its name in the registry.
        scheme: of the comparisons.
        signed: comparisons are of how much better the preferred response is; else of how different the two are.
        zero: whether the scale has a zero, from the known agreement, so that soft labels may fall below ½.
        margin: ratings become a margin, not a soft label.
        options: of the objective, besides β = 1.
    """

    label: str
    buys: Buys
    objective: str = "dpo"
    scheme: Scheme = "chain"
    signed: bool = True
    zero: bool = False
    margin: bool = False
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def needs_new(self) -> bool:
        """Whether it buys new preferences."""
        return self.buys in ("preferences", "grades", "inline", "rated")

    @property
    def is_control(self) -> bool:
        """Whether it learns nothing, and only shows what a number means."""
        return self.buys in ("coin", "untrained", "length")


_LOSSES = {"control": "dpo_stronger", "pop": "pop", "rank": "pop_rank", "scale": "pop_scale"}
_SAID = {"control": "stronger sides (control)", "pop": "pop", "rank": "pop_rank", "scale": "pop_scale"}


def _compared(scheme: Scheme, signed: bool, *losses: str) -> dict[str, BudgetArm]:
    kind = "" if signed else ", unsigned"
    return {
        f"{scheme}{'' if signed else '_unsigned'}_{loss}": BudgetArm(
            label=f"{scheme}{kind}: {_SAID[loss]}",
            buys="comparisons",
            objective=_LOSSES[loss],
            scheme=scheme,
            signed=signed,
        )
        for loss in losses
    }


ARMS: dict[str, BudgetArm] = {
    "base": BudgetArm(label="nothing more", buys="nothing"),
    "more": BudgetArm(label="new preferences", buys="preferences"),
    "grade": BudgetArm(label="new preferences, all with a grade", buys="grades", objective="cdpo"),
    "inline_control": BudgetArm(
        label="new, compared with the one before: stronger sides (control)", buys="inline", objective="dpo_stronger"
    ),
    "inline_rank": BudgetArm(label="new, compared with the one before: pop_rank", buys="inline", objective="pop_rank"),
    "inline_scale": BudgetArm(
        label="new, compared with the one before: pop_scale", buys="inline", objective="pop_scale"
    ),
    "rated": BudgetArm(label="new preferences, rated: soft labels", buys="rated", objective="cdpo"),
    "rated_margin": BudgetArm(
        label="new preferences, rated: margins", buys="rated", objective="dpo_rating_margin", margin=True
    ),
    "votes": BudgetArm(label="more votes: soft labels", buys="votes", objective="cdpo"),
    "ratings": BudgetArm(label="ratings of the old ones: soft labels", buys="ratings", objective="cdpo"),
    "ratings_margin": BudgetArm(
        label="ratings of the old ones: margins", buys="ratings", objective="dpo_rating_margin", margin=True
    ),
    **_compared("chain", True, "control", "pop", "rank", "scale"),
    "chain_zero": BudgetArm(label="chain: pop_scale with a zero", buys="comparisons", objective="pop_scale", zero=True),
    **_compared("random", True, "control", "pop", "rank", "scale"),
    **_compared("iterative", True, "control", "pop"),
    **_compared("active", True, "scale"),
    **_compared("chain", False, "control", "pop", "rank", "scale"),
    "coin": BudgetArm(label="random labels", buys="coin"),
    "untrained": BudgetArm(label="untrained head", buys="untrained"),
    "length": BudgetArm(label="the longer one wins", buys="length"),
}
"""By name, the simplest first: of arms that cannot be told apart, the first one is named."""

MAIN = ("votes", "ratings", "chain_control", "chain_rank", "chain_scale")
"""The arms whose differences from `more` are the main comparisons of a study."""
