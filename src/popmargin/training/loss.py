"""Everything that makes up the loss of a row: objective, margin, regularizers and token selector."""

import functools
import operator
from dataclasses import dataclass, field, replace
from typing import Any

from popmargin.config import PopConfig
from popmargin.data.schema import Preferences
from popmargin.engine.target import Target
from popmargin.margin_sources.base import MarginSource
from popmargin.objectives.base import Needs, Objective, Origin, Rows, ScoreKind
from popmargin.regularizers.base import Regularizer
from popmargin.tokens.base import TokenSelector
from popmargin.training.signals import Signal, Signals, has_weights, own_signal
from popmargin.user_code import running


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Everything that makes up the loss of a row.

    Attributes:
        objective: the registered objective.
        options: its options.
        regularizers: added terms: weight, regularizer, options.
        tokens: a token selector and its options; None uses every token.
        margin: where the margin comes from that is subtracted before the objective, and its options; None for none.
        target: what scores weaker sides; None where neither objective nor margin needs a target.
        provides: what the task gives; see `tasks.base.Task`.
        signals: what the run uses as margin, soft label, order of edges, weight or another column that the parts read;
            else the data's own columns are.
        scoring: a model of its own by which the token selector scores tokens; None takes the run's reference.
    """

    objective: Objective
    options: Any
    regularizers: tuple[tuple[float, Regularizer, Any], ...] = ()
    tokens: tuple[TokenSelector, Any] | None = None
    margin: tuple[MarginSource, Any] | None = None
    target: Target | None = None
    provides: frozenset[str] = frozenset()
    scoring: str | None = None
    signals: Signals = field(default_factory=dict[str, Signal | None])

    @property
    def needs(self) -> Needs:
        """What the parts together must be given."""
        of_rows = [part for part in self.components if not isinstance(part, TokenSelector)]
        needs = functools.reduce(operator.or_, (part.needs for part in of_rows))
        read = [self.signals.get(use) for use in (*needs.columns, "weight")]
        fitted = any(signal is not None and signal.column == "scale" for signal in read)
        return needs | Needs(scale=True) if fitted else needs

    def samples_edges(self, pop: PopConfig) -> bool:
        """Whether PoP edges are sampled from an order of the data, for themselves or for the scale fitted to them."""
        return pop.edges is None and (self.needs.edges or (self.needs.scale and pop.scale is None))

    def columns(self, preferences: Preferences) -> dict[str, Signal]:
        """What every column is made of that the parts read, and `weight` where rows are weighted; without `scale`."""
        names = [name for name in self.needs.columns if name != "scale"]
        names += ["weight"] if "weight" not in names and has_weights(preferences, self.signals) else []
        return {name: self.signals.get(name) or own_signal(preferences, name) for name in names}

    @property
    def kind(self) -> ScoreKind:
        """The score kind that the objective wants."""
        return self.objective.score_kind(self.options)

    @property
    def components(self) -> list[Any]:
        """The registered parts: objective, margin source, regularizers and token selector."""
        chosen = [part[0] for part in (self.margin, self.tokens) if part is not None]
        return [self.objective, *chosen, *(regularizer for _, regularizer, _ in self.regularizers)]

    @property
    def origin(self) -> Origin:
        """Where the method comes from that objective and margin make together."""
        if self.margin is None:
            return self.objective.origin
        return self.margin[0].known.get(self.objective.name, "ours")

    def less_margin(self, rows: Rows) -> Rows:
        """The rows as the objective sees them: chosen is lowered by the margin, so that β·Δ is β·Δ − m."""
        if self.margin is None:
            return rows
        source, options = self.margin
        with running(f"margin source '{source.name}'"):
            margin = source.function(rows, options).nats(self.beta)
        return replace(rows, chosen=rows.chosen - margin)

    @property
    def decoupling(self) -> float:
        """λ of the gaps with de-coupled log-probs that the objective wants; 0 for none."""
        return self.objective.decoupling_of(self.options)

    @property
    def beta(self) -> float:
        """Reward units per nat, to log reward margins; 1 for objectives without a β."""
        return float(getattr(self.options, "beta", 1.0))

    @property
    def uses_reference(self) -> bool:
        """Whether any part needs reference log-probs."""
        return "reference" in self.provides and (
            self.objective.uses_reference(self.options)
            or self.tokens is not None
            or any(regularizer.reference for _, regularizer, _ in self.regularizers)
        )
