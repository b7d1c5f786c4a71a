"""Objectives: pure functions from scores to one loss per row, with a declaration of what they need."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any, Literal

from torch import Tensor

from popmargin.objectives.rows import Logps as Logps
from popmargin.objectives.rows import Rows as Rows
from popmargin.objectives.rows import given as given
from popmargin.objectives.rows import of_edges as of_edges
from popmargin.registry import Registry, decorator, make_options

ScoreKind = Literal["log_ratio", "mean_log_ratio", "logp", "mean_logp"]
"""How a response is scored before β. log_ratio: Σ log π/π_ref (nats); logp: Σ log π; mean_…: divided by the token
count.

An explicit reward model supplies its reward instead of any of these: objectives see only numbers.
"""

Weaker = Literal["none", "target", "gradient"]
Origin = Literal["published", "baseline", "control", "ours"]
TakesMargin = Literal["yes", "own", "no"]
"""Whether the run's `margin` may be subtracted from the gap that an objective sees.

yes: its loss depends only on chosen − rejected; own: it has its own margin or target strength; no: it also depends on
something else, such as single scores or a soft label.
"""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a component needs beyond the scores of its rows.

    Attributes:
        edges: rows are PoP edges rather than preferences.
        weaker: what the component needs of an edge's weaker side: nothing, its gap as a constant target, or scores
            with gradient.
        columns: numbers of each preference by name, found in `Rows.columns`: columns of the data, or what the run's
            `signals` derive from them.
        margin: the column `margin`: a margin per preference from the data (reward units).
        soft_label: the column `soft_label`: the probability per preference that chosen is better.
        scale: the column `scale`: each preference's value on the strength scale of the run's PoP edges (reward units).
        reference: reference log-probs even if the score kind does not use them.
        whole_responses: the scores must cover whole responses, so token selectors are refused.
        absolute: scores count individually, not only their gaps, so reward models (whose rewards have no zero) are
            refused.
        provided: what else the task must provide, by name, e.g. `tokens`; see `Objective.requires`.

    Example:
        >>> both = Needs(columns=("votes",)) | Needs(margin=True)
        >>> both.columns, both.margin, both.edges
        (('margin', 'votes'), True, False)
    """

    edges: bool = False
    weaker: Weaker = "none"
    columns: tuple[str, ...] = ()
    margin: bool = False
    soft_label: bool = False
    scale: bool = False
    reference: bool = False
    whole_responses: bool = False
    absolute: bool = False
    provided: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("columns", "provided"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"Needs.{name} must be a tuple of names: ({getattr(self, name)!r},).")  # noqa: TRY004
        flags = ("margin", "soft_label", "scale")
        columns = (*(name for name in flags if getattr(self, name)), *self.columns)
        object.__setattr__(self, "columns", tuple(dict.fromkeys(columns)))
        for name in flags:  # two ways of saying the same
            object.__setattr__(self, name, name in columns)

    def __or__(self, other: "Needs") -> "Needs":
        """The union of both needs; for the weaker side, this one's need takes precedence."""
        both: dict[str, Any] = {
            field.name: getattr(self, field.name) or getattr(other, field.name) for field in fields(self)
        }
        both["weaker"] = other.weaker if self.weaker == "none" else self.weaker
        for name in ("columns", "provided"):
            both[name] = tuple(dict.fromkeys((*getattr(self, name), *getattr(other, name))))
        return Needs(**both)


@dataclass(frozen=True, kw_only=True)
class Golden:
    """A hand-computed case: values by field of `Rows` (lists), options, and the expected loss of every row.

    `chosen_tokens` and `rejected_tokens` among the values are those of `Rows.logps` (1 by default).

    Example:
        >>> case = Golden(rows={"chosen": [2.0], "rejected": [1.0]}, options={"beta": 0.1}, expected=[0.64439666])
        >>> sorted(case.rows)
        ['chosen', 'rejected']
    """

    rows: Mapping[str, list[float]]
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    state: Mapping[str, float] = field(default_factory=dict[str, float])
    expected: list[float]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """The documentation's figure of an objective: loss and gradient against the reward margin, one curve per value.

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


@dataclass(frozen=True)
class Objective:
    """A registered objective; `@objective` takes the same arguments.

    Attributes:
        name: its name in configurations.
        function: `(rows, options) -> loss (B,)`, pure and element-wise up to statistics of the batch.
        options: its frozen options dataclass.
        score: the score kind it uses, or a function from the options to it.
        origin: published, baseline, control or ours.
        needs: what it needs.
        golden: hand-computed cases, checked by the contract tests.
        diagnostics: `(rows, options) -> {name: (B,)}`, averaged over rows and logged.
        init_state: `(options) -> {name: tensor}`, state saved with checkpoints.
        update_state: `(state, mean diagnostics of the step, options) -> state`, called after every optimizer step.
        every_row: names of diagnostics that `update_state` gets as the values (N,) of all rows of the step, over all
            processes and in any order, in the place of their mean; fp64, on the CPU, without those that are nan.
        decoupling: `(options) -> λ`: `Rows.decoupled` is wanted, with policy and reference λ apart; 0 for not.
        batch_statistics: `(options) -> bool`: whether the loss of a row depends on the rows forwarded with it. All
            processes must then forward together, since `Rows.gather` waits for them.
        supervised: `(options) -> bool`: whether the loss includes the negative log-likelihood of the chosen response.
        token_counts: `(options) -> bool`: whether the loss reads the token counts in `Rows.logps`.
        figure: the figure on its documentation page.
        takes_margin: whether a margin can be subtracted from its gap.
    """

    name: str
    function: Callable[[Rows, Any], Tensor]
    _: KW_ONLY
    options: type[Any]
    score: ScoreKind | Callable[[Any], ScoreKind]
    origin: Origin
    needs: Needs = field(default_factory=Needs)
    golden: tuple[Golden, ...] = ()
    diagnostics: Callable[[Rows, Any], dict[str, Tensor]] | None = None
    init_state: Callable[[Any], dict[str, Tensor]] | None = None
    update_state: Callable[[dict[str, Tensor], Mapping[str, Any], Any], dict[str, Tensor]] | None = None
    every_row: tuple[str, ...] = ()
    decoupling: Callable[[Any], float] | None = None
    batch_statistics: Callable[[Any], bool] | None = None
    supervised: Callable[[Any], bool] | None = None
    token_counts: Callable[[Any], bool] | None = None
    figure: Figure = field(default_factory=Figure)
    takes_margin: TakesMargin = "no"

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def section(self, title: str) -> str:
        """A section of the function's docstring as one line (`Use`, `Watch`, `Noise`); empty if it has none."""
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

    def requires(self, options: Any) -> frozenset[str]:
        """What a task must provide, by name: the score kind, `reference` for the zero or the log-probs of a reference.

        `log_ratio` by itself only needs gaps, which reward models have too.
        """
        reference = {"reference"} if self.needs.reference or self.needs.absolute else set[str]()
        decoupled = {"decoupled"} if self.decoupling_of(options) else set[str]()
        return frozenset({self.score_kind(options), *reference, *decoupled, *self.needs.provided})

    def decoupling_of(self, options: Any) -> float:
        """λ of the de-coupled log-probs that it wants; 0 for none."""
        return 0.0 if self.decoupling is None else self.decoupling(options)

    def uses_batch_statistics(self, options: Any) -> bool:
        """Whether the loss of a row depends on the rows forwarded with it."""
        return self.batch_statistics is not None and self.batch_statistics(options)

    def uses_token_counts(self, options: Any) -> bool:
        """Whether the loss reads the token counts in `Rows.logps`."""
        return self.token_counts is not None and self.token_counts(options)

    def is_supervised(self, options: Any) -> bool:
        """Whether the loss includes the negative log-likelihood of the chosen response."""
        return self.supervised is not None and self.supervised(options)


OBJECTIVES: Registry[Objective] = Registry("objective", "popmargin.objectives")
objective = decorator(OBJECTIVES, Objective)
"""Registers a function: `@objective("name", options=…, score=…, origin=…)` and the fields of `Objective`.

Example:
    >>> from dataclasses import dataclass
    >>> from torch import tensor
    >>> @dataclass(frozen=True, kw_only=True)
    ... class SquareOptions:
    ...     beta: float = 0.1
    >>> @objective("square", options=SquareOptions, score="log_ratio", origin="ours")
    ... def square(rows: Rows, options: SquareOptions):
    ...     return (1 - options.beta * rows.gap) ** 2
    >>> square(Rows(chosen=tensor([5.0]), rejected=tensor([0.0])), SquareOptions()).tolist()
    [0.25]
"""


def positive(owner: str, **values: float) -> None:
    """Check option values in an options dataclass.

    Raises:
        ValueError: one is not a finite number above 0.
    """
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{owner}: {name} must be a finite number above 0, not {value}.")
