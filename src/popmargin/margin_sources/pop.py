"""The margin of the weaker side of a PoP edge."""

from popmargin.margin import Margin
from popmargin.margin_sources.base import margin_source
from popmargin.objectives.base import Needs, Rows
from popmargin.objectives.pop import TargetClip, target_diagnostics, target_margin


@margin_source(
    "pop",
    options=TargetClip,
    needs=Needs(edges=True, weaker="target"),
    known={"dpo": "published", "dpo_stronger": "published"},
    diagnostics=target_diagnostics,
)
def pop(rows: Rows, options: TargetClip) -> Margin:
    """The stronger preference's margin is the weaker one's current margin, as in `pop`.

    The run's `target` scores the weaker side; its gap is detached and clipped in nats, before β, and 0 in rows without
    a weaker side.
    """
    return target_margin(rows, options.margin_min, options.margin_max)
