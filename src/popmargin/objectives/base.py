"""What an objective is: a pure function from scores to one loss per row, and a declaration of what it needs.

A *row* is one training unit: a preference, or a preference-over-preference edge (its stronger preference, and the
weaker one where there is one). Axis suffix B: rows of one batch.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from popmargin.errors import DataError
from popmargin.margin import Margin
from popmargin.registry import Registry, make_options

ScoreKind = Literal["log_ratio", "mean_log_ratio", "logp", "mean_logp"]
"""How a response is scored before β. log_ratio: Σ log π/π_ref (nats); logp: Σ log π; mean_…: divided by the tokens.

An explicit reward model supplies its reward in the place of any of them: objectives see only numbers.
"""

Weaker = Literal["none", "target", "gradient"]
Origin = Literal["published", "baseline", "control", "ours"]
TakesMargin = Literal["yes", "own", "no"]
"""Whether the run's `margin` may be subtracted from the gap that an objective sees.

yes: its loss is a function of chosen − rejected alone; own: it has a margin or a target strength of its own; no:
something else counts too, such as single scores or a soft label.
"""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What an objective must be given beyond the scores of its rows.

    Attributes:
        edges: rows are PoP edges rather than preferences.
        weaker: what is wanted of an edge's weaker side: nothing, its gap as a constant target, or scores with gradient.
        margin: a margin per preference from the data (reward units).
        soft_label: the probability per preference that chosen is the better one.
        scale: the place of each preference on the strength scale of the run's PoP edges (reward units).
        reference: reference log-probs even where the score kind does not use them.
        whole_responses: the scores must be of whole responses, so that a token selector is refused.
        absolute: single scores count, not only their gaps, so that a reward model, whose rewards have no zero, is
            refused.
    """

    edges: bool = False
    weaker: Weaker = "none"
    margin: bool = False
    soft_label: bool = False
    scale: bool = False
    reference: bool = False
    whole_responses: bool = False
    absolute: bool = False

    def __or__(self, other: "Needs") -> "Needs":
        """What either needs; of a weaker side, what this one wants of it if it wants anything."""
        both: dict[str, Any] = {
            field.name: getattr(self, field.name) or getattr(other, field.name) for field in fields(self)
        }
        both["weaker"] = other.weaker if self.weaker == "none" else self.weaker
        return Needs(**both)


@dataclass(frozen=True, kw_only=True)
class Logps:
    """Summed log-probs of the rows' responses (B,), nats, and their token counts; for regularizers.

    They are of whole responses: a token selector changes scores alone.
    """

    chosen: Float[Tensor, "B"]
    rejected: Float[Tensor, "B"]
    chosen_reference: Float[Tensor, "B"] | None
    rejected_reference: Float[Tensor, "B"] | None
    chosen_tokens: Float[Tensor, "B"]
    rejected_tokens: Float[Tensor, "B"]

    def __post_init__(self) -> None:
        for name, tensor in vars(self).items():
            if tensor is not None:
                _same_shape(f"logps.{name}", tensor, self.chosen.shape)

    def of_reference(self) -> "Logps | None":
        """The reference's own sums in the place of the policy's; None without a reference."""
        if self.chosen_reference is None or self.rejected_reference is None:
            return None
        return replace(self, chosen=self.chosen_reference, rejected=self.rejected_reference)

    def swap(self) -> "Logps":
        """The same with chosen and rejected exchanged."""
        return Logps(
            chosen=self.rejected,
            rejected=self.chosen,
            chosen_reference=self.rejected_reference,
            rejected_reference=self.chosen_reference,
            chosen_tokens=self.rejected_tokens,
            rejected_tokens=self.chosen_tokens,
        )


def _same_shape(name: str, tensor: Tensor, shape: torch.Size) -> None:
    if len(shape) != 1 or tensor.shape != shape:
        raise ValueError(
            f"{name} has the shape {tuple(tensor.shape)}, chosen {tuple(shape)}: both must be (B,), a number per row. "
            "Tensors of other shapes would be broadcast into a matrix of losses."
        )


def _refuse_values(name: str, values: Tensor, fine: Callable[[Tensor], Tensor], allowed: str) -> None:
    """Look at numbers of the data, on the CPU alone: on a device every look would be a sync."""
    if values.device.type != "cpu":
        return
    bad: list[int] = (~fine(values)).nonzero().flatten().tolist()
    if bad:
        rows = ", ".join(f"{row} ({values[row].item():g})" for row in bad[:5]) + (" …" if len(bad) > 5 else "")
        raise DataError(f"{name} must be {allowed}. {len(bad)} of {len(values)} rows have none: {rows}.")


def _is_probability(values: Tensor) -> Tensor:
    return (values >= 0) & (values <= 1)


ValueT = TypeVar("ValueT")


def given(name: str, value: ValueT | None) -> ValueT:
    """An optional field of `Rows` that an objective cannot do without: `given("margin", rows.margin)`.

    Raises:
        DataError: the rows have none; the message names the field.
    """
    if value is None:
        raise DataError(f"The rows have no {name}, which this objective needs: give it to Rows.")
    return value


def _alone(values: Tensor) -> Tensor:
    return values


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One batch as an objective sees it. Every tensor is (B,); optional ones are None unless the objective needs them.

    Attributes:
        chosen: score of the (stronger) preference's chosen response, in the objective's score kind, nats.
        rejected: the same of its rejected response.
        has_weaker: whether the row is an edge with a weaker side.
        weaker_chosen: score of the weaker side's chosen response, with gradient (0 where there is none).
        weaker_rejected: the same of its rejected response.
        target: the weaker side's detached gap, nats (0 where there is none).
        margin: the preference's own margin from the data, reward units.
        soft_label: probability that chosen is better.
        scale: the preference's place on the strength scale of the run's PoP edges, reward units.
        stronger_share: weights that give every preference the same total over an epoch when it stands in several edges;
            they average to 1 over preferences.
        weaker_share: the same for the weaker side; 0 where there is none.
        logps: sums over all tokens of the responses, for regularizers and supervised terms.
        state: the objective's own state (see `Objective.init_state`).
        gather: concatenates a detached tensor over all processes; the identity on one.

    Raises:
        ValueError: a tensor is not (B,).
        DataError: on the CPU, a `margin` or `scale` that is not finite, or a `soft_label` that is no probability; the
            message names the rows. Scores and targets come from a model: training looks at them once a step.
    """

    chosen: Float[Tensor, "B"]
    rejected: Float[Tensor, "B"]
    has_weaker: Bool[Tensor, "B"] | None = None
    weaker_chosen: Float[Tensor, "B"] | None = None
    weaker_rejected: Float[Tensor, "B"] | None = None
    target: Margin | None = None
    margin: Margin | None = None
    soft_label: Float[Tensor, "B"] | None = None
    scale: Margin | None = None
    stronger_share: Float[Tensor, "B"] | None = None
    weaker_share: Float[Tensor, "B"] | None = None
    logps: Logps | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    gather: Callable[[Tensor], Tensor] = _alone

    def __post_init__(self) -> None:
        shape = self.chosen.shape
        for name in ("chosen", "rejected", "has_weaker", "weaker_chosen", "weaker_rejected", "target", "margin",
                     "soft_label", "scale", "stronger_share", "weaker_share"):  # fmt: skip
            value: Tensor | Margin | None = getattr(self, name)
            if value is not None:
                _same_shape(name, value.values if isinstance(value, Margin) else value, shape)
        if self.logps is not None:
            _same_shape("logps.chosen", self.logps.chosen, shape)
        if self.margin is not None:
            _refuse_values("margin", self.margin.values, torch.isfinite, "a finite number")
        if self.scale is not None:
            _refuse_values("scale", self.scale.values, torch.isfinite, "a finite number")
        if self.soft_label is not None:
            _refuse_values("soft_label", self.soft_label, _is_probability, "a probability, 0 to 1")

    @property
    def gap(self) -> Float[Tensor, "B"]:
        """Δ = chosen − rejected (B,), nats."""
        return self.chosen - self.rejected

    @property
    def weaker_gap(self) -> Float[Tensor, "B"]:
        """The weaker side's gap (B,), nats, with gradient; a `DataError` where the rows have none."""
        return given("weaker_chosen", self.weaker_chosen) - given("weaker_rejected", self.weaker_rejected)

    def swap(self) -> "Rows":
        """The same rows with chosen and rejected exchanged; labels, data margins and log-probs too."""
        return replace(
            self,
            chosen=self.rejected,
            rejected=self.chosen,
            margin=None if self.margin is None else self.margin.swap(),
            soft_label=None if self.soft_label is None else 1 - self.soft_label,
            scale=None if self.scale is None else self.scale.swap(),
            logps=None if self.logps is None else self.logps.swap(),
        )


@dataclass(frozen=True, kw_only=True)
class Golden:
    """A hand-computed case: values by field of `Rows` (lists), options, and the expected loss of every row.

    `chosen_tokens` and `rejected_tokens` among the values are those of `Rows.logps` (1 where they are not given).
    """

    rows: Mapping[str, list[float]]
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    state: Mapping[str, float] = field(default_factory=dict[str, float])
    expected: list[float]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What the documentation draws of an objective: loss and gradient against the reward margin, one curve a value.

    Attributes:
        vary: an option, a field of `Rows` or an entry of the state that differs between curves; empty for one curve.
        values: its values.
        rows: fields of `Rows` that all curves share, as in `Golden`.
        options: options that all curves share.
        state: entries of the state that all curves share.
        score: mean of both scores, nats; chosen and rejected move away from it in equal parts.
        reach: largest reward margin on either side.
    """

    vary: str = ""
    values: tuple[float | str, ...] = ()
    rows: Mapping[str, float] = field(default_factory=dict[str, float])
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    state: Mapping[str, float] = field(default_factory=dict[str, float])
    score: float = 0.0
    reach: float = 4.0


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A registered objective.

    Attributes:
        name: its name in configurations.
        function: `(rows, options) -> loss (B,)`, pure and element-wise up to statistics of the batch.
        options: its frozen options dataclass.
        score: the score kind it wants, or a function of the options that says so.
        origin: published, baseline, control or ours.
        needs: what it must be given.
        golden: hand-computed cases, checked by the contract tests.
        diagnostics: `(rows, options) -> {name: (B,)}`, averaged over rows and logged.
        init_state: `(options) -> {name: scalar tensor}`, state that is saved with checkpoints.
        update_state: `(state, mean diagnostics of the step, options) -> state`, called after every optimizer step.
        batch_statistics: `(options) -> bool`: whether the loss of a row depends on the rows that are forwarded with it.
            All processes must then forward together, as `Rows.gather` waits for them.
        supervised: `(options) -> bool`: whether the loss holds the negative log-likelihood of the chosen response.
        figure: what its page of the documentation draws.
        takes_margin: whether a margin can be subtracted from the gap that it sees.
    """

    name: str
    function: Callable[[Rows, Any], Tensor]
    options: type[Any]
    score: ScoreKind | Callable[[Any], ScoreKind]
    origin: Origin
    needs: Needs
    golden: tuple[Golden, ...]
    diagnostics: Callable[[Rows, Any], dict[str, Tensor]] | None = None
    init_state: Callable[[Any], dict[str, Tensor]] | None = None
    update_state: Callable[[dict[str, Tensor], Mapping[str, float], Any], dict[str, Tensor]] | None = None
    batch_statistics: Callable[[Any], bool] | None = None
    supervised: Callable[[Any], bool] | None = None
    figure: Figure = Figure()
    takes_margin: TakesMargin = "no"

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def section(self, title: str) -> str:
        """A section of the function's docstring as one line (`Use`, `Watch`, `Noise`); empty where it has none."""
        match = re.search(rf"^{title}:\n((?:    .*\n)+)", f"{inspect.getdoc(self.function)}\n", re.M)
        return " ".join(match[1].split()) if match else ""

    def make_options(self, values: Mapping[str, Any]) -> Any:
        """The options dataclass built from plain values; unknown ones are a `ConfigError`."""
        return make_options(self.options, values, f"objective '{self.name}'")

    def score_kind(self, options: Any) -> ScoreKind:
        """The score kind under these options."""
        return self.score(options) if callable(self.score) else self.score

    def uses_reference(self, options: Any) -> bool:
        """Whether reference log-probs are needed."""
        return self.needs.reference or self.score_kind(options) in ("log_ratio", "mean_log_ratio")

    def uses_batch_statistics(self, options: Any) -> bool:
        """Whether the loss of a row depends on the rows that are forwarded with it."""
        return self.batch_statistics is not None and self.batch_statistics(options)

    def is_supervised(self, options: Any) -> bool:
        """Whether the loss holds the negative log-likelihood of the chosen response."""
        return self.supervised is not None and self.supervised(options)


OBJECTIVES: Registry[Objective] = Registry("objective", "popmargin.objectives")

FunctionT = TypeVar("FunctionT", bound=Callable[..., Tensor])


def objective(
    name: str,
    *,
    options: type[Any],
    score: ScoreKind | Callable[[Any], ScoreKind],
    origin: Origin,
    needs: Needs | None = None,
    golden: tuple[Golden, ...] = (),
    diagnostics: Callable[[Rows, Any], dict[str, Tensor]] | None = None,
    init_state: Callable[[Any], dict[str, Tensor]] | None = None,
    update_state: Callable[[dict[str, Tensor], Mapping[str, float], Any], dict[str, Tensor]] | None = None,
    batch_statistics: Callable[[Any], bool] | None = None,
    supervised: Callable[[Any], bool] | None = None,
    figure: Figure | None = None,
    takes_margin: TakesMargin = "no",
) -> Callable[[FunctionT], FunctionT]:
    """Register the decorated loss function as an objective; the arguments are the fields of `Objective`."""

    def register(function: FunctionT) -> FunctionT:
        OBJECTIVES.add(
            Objective(
                name=name,
                function=function,
                options=options,
                score=score,
                origin=origin,
                needs=needs or Needs(),
                golden=golden,
                diagnostics=diagnostics,
                init_state=init_state,
                update_state=update_state,
                batch_statistics=batch_statistics,
                supervised=supervised,
                figure=figure or Figure(),
                takes_margin=takes_margin,
            )
        )
        return function

    return register


def of_edges(values: Float[Tensor, "B"], rows: Rows) -> Float[Tensor, "B"]:
    """Values to log (B,), with nan in rows without a weaker side: these are left out of the mean."""
    return values.masked_fill(~given("has_weaker", rows.has_weaker), torch.nan)


def positive(owner: str, **values: float) -> None:
    """Check option values in an options dataclass.

    Raises:
        ValueError: one is not a finite number above 0.
    """
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{owner}: {name} must be a finite number above 0, not {value}.")
