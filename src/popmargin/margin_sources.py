"""Where a run's `margin` comes from: by how much every preference must lead before its objective sees the gap.

The margin m is subtracted from the reward margin: z = β·Δ − m takes the place of β·Δ, for any objective that is a
function of the gap alone. In front of `dpo` these are published methods and baselines; in front of others, ours.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from popmargin.errors import ConfigError, did_you_mean
from popmargin.margin import Margin
from popmargin.objectives.base import Needs, Origin, Rows, given, positive
from popmargin.objectives.pop import TargetClip, target_diagnostics, target_margin
from popmargin.registry import make_options


@dataclass(frozen=True, kw_only=True)
class FixedMarginOptions:
    """Options of the margin `fixed`.

    Attributes:
        value: m, in reward units (after β).
    """

    value: float = 1.0


def fixed(rows: Rows, options: FixedMarginOptions) -> Margin:
    """Every preference must lead by the same amount, as in `dpo_fixed_margin`."""
    return Margin(values=torch.full_like(rows.chosen, options.value, requires_grad=False), unit="reward")


@dataclass(frozen=True, kw_only=True)
class RatingMarginOptions:
    """Options of the margin `ratings`.

    Attributes:
        scale: reward units per rating point.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        positive("margin 'ratings'", scale=self.scale)


def ratings(rows: Rows, options: RatingMarginOptions) -> Margin:
    """Every preference must lead by the gap between its ratings, as in `dpo_rating_margin`."""
    return given("margin", rows.margin).times(options.scale)


def _rating_diagnostics(rows: Rows, options: RatingMarginOptions) -> dict[str, Tensor]:
    margin = ratings(rows, options).values
    return {"rating_margin_mean": margin, "rating_margin_square": margin.square()}


def pop(rows: Rows, options: TargetClip) -> Margin:
    """The stronger preference of an edge must lead by the margin that the weaker one has now, as in `pop`.

    The run's `target` scores the weaker side; its gap is detached and clipped in nats, before β, and 0 in rows without
    a weaker side.
    """
    return target_margin(rows, options.margin_min, options.margin_max)


@dataclass(frozen=True, kw_only=True)
class MarginSource:
    """A place that margins come from.

    Attributes:
        name: its name in configurations (`margin.source`).
        function: `(rows, options) -> Margin` of every row (B,), detached.
        options: its frozen options dataclass.
        needs: what it must be given, beside what the objective needs.
        known: where the method comes from that it makes of an objective; ours where it is not listed.
        diagnostics: `(rows, options) -> {name: (B,)}`, averaged over rows and logged.
    """

    name: str
    function: Callable[[Rows, Any], Margin]
    options: type[Any]
    needs: Needs = field(default_factory=Needs)
    known: Mapping[str, Origin] = field(default_factory=dict[str, Origin])
    diagnostics: Callable[[Rows, Any], dict[str, Tensor]] | None = None


MARGIN_SOURCES = {
    source.name: source
    for source in (
        MarginSource(
            name="fixed",
            function=fixed,
            options=FixedMarginOptions,
            known={"dpo": "baseline", "simpo": "baseline"},  # in front of simpo: a larger γ
        ),
        MarginSource(
            name="ratings",
            function=ratings,
            options=RatingMarginOptions,
            needs=Needs(margin=True),
            known={"dpo": "baseline"},
            diagnostics=_rating_diagnostics,
        ),
        MarginSource(
            name="pop",
            function=pop,
            options=TargetClip,
            needs=Needs(edges=True, weaker="target"),
            known={"dpo": "published", "dpo_stronger": "published"},
            diagnostics=target_diagnostics,
        ),
    )
}


def make_margin(values: Mapping[str, Any]) -> tuple[MarginSource, Any]:
    """A source and its options from the run's `margin`.

    Raises:
        ConfigError: a missing or unknown source, or an unknown or invalid option.
    """
    rest = dict(values)
    if "source" not in rest:
        raise ConfigError(
            f"margin.source is missing, e.g. margin: {{source: pop}}. Known: {', '.join(MARGIN_SOURCES)}."
        )
    name = str(rest.pop("source"))
    if name not in MARGIN_SOURCES:
        raise ConfigError(f"Unknown margin source '{name}'. {did_you_mean(name, MARGIN_SOURCES)}")
    source = MARGIN_SOURCES[name]
    return source, make_options(source.options, rest, f"margin '{name}'")
