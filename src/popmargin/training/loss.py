"""The parts of a row's loss: objective, margin, regularizers and token selector."""

import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from popmargin.config import PopConfig
from popmargin.data.schema import Preferences
from popmargin.engine.scores import PairScores
from popmargin.engine.target import Target
from popmargin.errors import RunError
from popmargin.margin import Margin
from popmargin.margin_sources.base import MarginSource
from popmargin.objectives.base import Logps, Needs, Objective, Origin, Rows, ScoreKind
from popmargin.regularizers.base import Regularizer
from popmargin.tokens.base import TokenSelector
from popmargin.training.signals import Signal, Signals, has_weights, own_signal
from popmargin.user_code import running


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The parts of a row's loss.

    Attributes:
        objective: the registered objective.
        options: its options.
        regularizers: added terms: weight, regularizer, options.
        tokens: a token selector and its options; None uses every token.
        margin: source of the margin subtracted before the objective, and its options; None for none.
        target: scores weaker sides; None if neither objective nor margin needs a target.
        provides: what the task provides; see `tasks.base.Task`.
        signals: what the run uses as margin, soft label, order of edges, weight or another column that the parts read;
            otherwise the data's own columns are used.
        scoring: a separate model with which the token selector scores tokens; None for the run's reference.
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
        """The combined needs of all parts."""
        of_rows = [part for part in self.components if not isinstance(part, TokenSelector)]
        needs = functools.reduce(operator.or_, (part.needs for part in of_rows))
        read = [self.signals.get(use) for use in (*needs.columns, "weight")]
        fitted = any(signal is not None and signal.column == "scale" for signal in read)
        return needs | Needs(scale=True) if fitted else needs

    def samples_edges(self, pop: PopConfig) -> bool:
        """Whether PoP edges are sampled from an order of the data, for training or for the scale fitted to them."""
        return pop.edges is None and (self.needs.edges or (self.needs.scale and pop.scale is None))

    def columns(self, preferences: Preferences) -> dict[str, Signal]:
        """The signal of every column that the parts read, and of `weight` if rows are weighted; excluding `scale`."""
        names = [name for name in self.needs.columns if name != "scale"]
        names += ["weight"] if "weight" not in names and has_weights(preferences, self.signals) else []
        return {name: self.signals.get(name) or own_signal(preferences, name) for name in names}

    @property
    def kind(self) -> ScoreKind:
        """The objective's score kind."""
        return self.objective.score_kind(self.options)

    @property
    def components(self) -> list[Any]:
        """The registered parts: objective, margin source, regularizers and token selector."""
        chosen = [part[0] for part in (self.margin, self.tokens) if part is not None]
        return [self.objective, *chosen, *(regularizer for _, regularizer, _ in self.regularizers)]

    @property
    def origin(self) -> Origin:
        """The origin of the method formed by objective and margin."""
        if self.margin is None:
            return self.objective.origin
        return self.margin[0].known.get(self.objective.name, "ours")

    def rows(
        self,
        part: Mapping[str, Any],
        scores: PairScores,
        target_P: Tensor | None,
        *,
        progress: float,
        state: Mapping[str, Tensor],
        gather: Callable[[Tensor], Tensor],
    ) -> Rows:
        """The rows as the parts see them, from the scores of the distinct preferences that they point into.

        Args:
            part: `stronger`, `weaker` and `has_weaker` of each row (B,), its shares, and `columns`; see `Collator`.
            scores: of the P preferences.
            target_P: the target's gaps of them (P,), nats; None without a target.
            progress: share of the optimizer steps that are done.
            state: the objective's own.
            gather: concatenates a tensor over all processes.
        """
        stronger, weaker, has_weaker = part["stronger"], part["weaker"], part["has_weaker"]

        def of_weaker(values_P: Tensor) -> Tensor:
            return torch.where(has_weaker, values_P[weaker], torch.zeros_like(values_P[weaker]))

        gradient = self.needs.weaker == "gradient"
        logps: dict[str, Any] = {} if scores.logps is None else vars(scores.logps)
        taken: dict[str, Any] = {k: None if v is None else v[stronger] for k, v in logps.items()}
        return Rows(
            chosen=scores.chosen[stronger],
            rejected=scores.rejected[stronger],
            has_weaker=has_weaker,
            weaker_chosen=of_weaker(scores.chosen) if gradient else None,
            weaker_rejected=of_weaker(scores.rejected) if gradient else None,
            target=None if target_P is None else Margin(values=of_weaker(target_P).to(scores.gap.dtype), unit="nats"),
            columns=part["columns"],
            stronger_share=part["stronger_share"],
            weaker_share=part["weaker_share"],
            logps=Logps(**taken) if taken else None,
            decoupled=None if scores.decoupled is None else scores.decoupled[stronger],
            progress=progress,
            state={name: value.to(scores.gap.device) for name, value in state.items()},
            gather=gather,
        )

    def of_rows(self, rows: Rows, seen: Rows) -> Float[Tensor, "B"]:
        """The loss of every row (B,): the objective's, and the weighted regularizers; the mean is the caller's.

        Args:
            rows: as `rows` gives them.
            seen: the same less the margin.

        Raises:
            RunError: the objective returns another number of losses.
        """
        with running(f"objective '{self.objective.name}'"):
            loss_R = self.objective.function(seen, self.options)
        if loss_R.shape != rows.chosen.shape:
            raise RunError(
                f"The objective '{self.objective.name}' returned a loss of shape {tuple(loss_R.shape)}, but "
                f"must return one number per row: {tuple(rows.chosen.shape)}. The trainer takes the mean."
            )
        for weight, regularizer, options in self.regularizers:
            with running(f"regularizer '{regularizer.name}'"):
                loss_R = loss_R + weight * regularizer.function(regularizer.sees(rows), options)
        return loss_R

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
