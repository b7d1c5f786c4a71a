"""Margin sources: they give the margin subtracted from each preference's gap before the objective.

The margin m is subtracted from the reward margin: z = β·Δ − m replaces β·Δ, for any objective that depends only on the
gap. With `dpo` these are published methods and baselines; with others, ours.
"""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from torch import Tensor

from popmargin.errors import ConfigError
from popmargin.margin import Margin
from popmargin.objectives.base import Needs, Origin, Rows
from popmargin.registry import Registry, decorator, make_options


@dataclass(frozen=True)
class MarginSource:
    """A registered margin source.

    Attributes:
        name: its name in configurations (`margin.source`).
        function: `(rows, options) -> Margin` of every row (B,), detached.
        options: its frozen options dataclass.
        needs: what it needs, in addition to the objective's needs.
        known: the origin of its combination with an objective; ours if not listed.
        diagnostics: `(rows, options) -> {name: (B,)}`, averaged over rows and logged.
    """

    name: str
    function: Callable[[Rows, Any], Margin]
    _: KW_ONLY
    options: type[Any]
    needs: Needs = field(default_factory=Needs)
    known: Mapping[str, Origin] = field(default_factory=dict[str, Origin])
    diagnostics: Callable[[Rows, Any], dict[str, Tensor]] | None = None

    def requires(self, options: Any) -> frozenset[str]:
        """What a task must provide, by name: only gaps, which every task has, unless `needs` says more."""
        return frozenset(self.needs.provided)


MARGIN_SOURCES: Registry[MarginSource] = Registry("margin_source", "popmargin.margin_sources")
margin_source = decorator(MARGIN_SOURCES, MarginSource)
"""Registers the decorated function: `@margin_source("name", options=…, needs=…)` and the fields of `MarginSource`.

Example:
    >>> from dataclasses import dataclass
    >>> from torch import tensor
    >>> @dataclass(frozen=True, kw_only=True)
    ... class VotesOptions:
    ...     a_vote: float = 0.5
    >>> @margin_source("votes", options=VotesOptions, needs=Needs(columns=("votes",)))
    ... def votes(rows: Rows, options: VotesOptions) -> Margin:
    ...     return Margin(values=options.a_vote * rows.columns["votes"], unit="reward")
    >>> votes(Rows(chosen=tensor([0.0]), rejected=tensor([0.0]), columns={"votes": tensor([3.0])}), VotesOptions())
    Margin(values=tensor([1.5000]), unit='reward')
"""


def make_margin(values: Mapping[str, Any]) -> tuple[MarginSource, Any]:
    """A source and its options from the run's `margin`.

    Raises:
        ConfigError: a missing or unknown source, or an unknown or invalid option.
    """
    rest = dict(values)
    if "source" not in rest:
        known = ", ".join(MARGIN_SOURCES.names())
        raise ConfigError(f"margin.source is missing, e.g. margin: {{source: pop}}. Known: {known}.")
    source = MARGIN_SOURCES.get(str(rest.pop("source")))
    return source, make_options(source.options, rest, f"margin '{source.name}'")
