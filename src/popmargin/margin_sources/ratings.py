"""Margins from the data: the gap between ratings, or another column the run uses instead."""

from dataclasses import dataclass

from torch import Tensor

from popmargin.margin import Margin
from popmargin.margin_sources.base import margin_source
from popmargin.objectives.base import Needs, Rows, given, positive


@dataclass(frozen=True, kw_only=True)
class RatingMarginOptions:
    """Options of the margin `ratings`.

    Attributes:
        scale: reward units per rating point.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        positive("margin 'ratings'", scale=self.scale)


def _diagnostics(rows: Rows, options: RatingMarginOptions) -> dict[str, Tensor]:
    margin = ratings(rows, options).values
    return {"rating_margin_mean": margin, "rating_margin_square": margin.square()}


@margin_source(
    "ratings",
    options=RatingMarginOptions,
    needs=Needs(margin=True),
    known={"dpo": "baseline"},
    diagnostics=_diagnostics,
)
def ratings(rows: Rows, options: RatingMarginOptions) -> Margin:
    """Each preference's margin is the gap between its ratings, as in `dpo_rating_margin`."""
    return given("margin", rows.margin).times(options.scale)
