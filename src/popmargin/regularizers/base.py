"""Regularizers: pure functions from log-probs or rewards to one term per row, added to any loss."""

import inspect
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

from torch import Tensor

from popmargin.objectives.base import Needs, Rows
from popmargin.registry import Registry, decorator


@dataclass(frozen=True)
class Regularizer:
    """A registered regularizer.

    Attributes:
        name: its name in configurations.
        function: `(logps, options) -> term (B,)`, nats; the run's `weight` multiplies it. A regularizer of rewards or
            rows takes `(rows, options)`.
        options: its frozen options dataclass.
        reference: whether it needs reference log-probs.
        diagnostics: `(logps, options) -> {name: (B,)}`, averaged over rows and logged.
        supervised: whether it is the negative log-likelihood of the chosen response.
        of: `policy`: it sees `Rows.logps`; `reward`: it sees the `Rows`, whose scores are a reward model's rewards;
            `rows`: it sees the `Rows` of any model.
        needs: the data columns it reads, `Needs(columns=…)`; only with `reward` or `rows`.
    """

    name: str
    function: Callable[[Any, Any], Tensor]
    _: KW_ONLY
    options: type[Any]
    reference: bool
    diagnostics: Callable[[Any, Any], dict[str, Tensor]] | None = None
    supervised: bool = False
    of: Literal["policy", "reward", "rows"] = "policy"
    needs: Needs = field(default_factory=Needs)

    def sees(self, rows: Rows) -> Any:
        """The part of the rows passed to the functions."""
        return rows.logps if self.of == "policy" else rows

    def requires(self, options: Any) -> frozenset[str]:
        """What a task must provide, by name; see `Objective.requires`."""
        of = {"policy": {"logp"}, "reward": {"reward"}, "rows": set[str]()}[self.of]
        return frozenset({*of, *({"reference"} if self.reference else ()), *self.needs.provided})

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


REGULARIZERS: Registry[Regularizer] = Registry("regularizer", "popmargin.regularizers")
regularizer = decorator(REGULARIZERS, Regularizer)
"""Registers the decorated function: `@regularizer("name", options=…, reference=…)` and the fields of `Regularizer`.

Example:
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, kw_only=True)
    ... class ShortOptions:
    ...     nats_a_token: float = 0.01
    >>> @regularizer("short", options=ShortOptions, reference=False)
    ... def short(logps, options: ShortOptions):
    ...     return options.nats_a_token * logps.chosen_tokens
    >>> REGULARIZERS.get("short").options()
    ShortOptions(nats_a_token=0.01)
"""
