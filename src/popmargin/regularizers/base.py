"""What a regularizer is: a pure function from log-probs or rewards to one term per row, added to any loss."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from torch import Tensor

from popmargin.objectives.base import Rows
from popmargin.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Regularizer:
    """A registered regularizer.

    Attributes:
        name: its name in configurations.
        function: `(logps, options) -> term (B,)`, nats; the run's `weight` multiplies it. One of rewards has
            `(rows, options)`.
        options: its frozen options dataclass.
        reference: whether it needs reference log-probs.
        diagnostics: `(logps, options) -> {name: (B,)}`, averaged over rows and logged.
        supervised: whether it is the negative log-likelihood of the chosen response.
        of: `policy`: it sees `Rows.logps`; `reward`: it sees the `Rows`, whose scores are a reward model's rewards.
    """

    name: str
    function: Callable[[Any, Any], Tensor]
    options: type[Any]
    reference: bool
    diagnostics: Callable[[Any, Any], dict[str, Tensor]] | None = None
    supervised: bool = False
    of: Literal["policy", "reward"] = "policy"

    def sees(self, rows: Rows) -> Any:
        """What of the rows the functions are given."""
        return rows if self.of == "reward" else rows.logps

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


REGULARIZERS: Registry[Regularizer] = Registry("regularizer", "popmargin.regularizers")

FunctionT = TypeVar("FunctionT", bound=Callable[..., Tensor])


def regularizer(
    name: str,
    *,
    options: type[Any],
    reference: bool,
    diagnostics: Callable[[Any, Any], dict[str, Tensor]] | None = None,
    supervised: bool = False,
    of: Literal["policy", "reward"] = "policy",
) -> Callable[[FunctionT], FunctionT]:
    """Register the decorated function as a regularizer; the arguments are the fields of `Regularizer`."""

    def register(function: FunctionT) -> FunctionT:
        REGULARIZERS.add(
            Regularizer(
                name=name,
                function=function,
                options=options,
                reference=reference,
                diagnostics=diagnostics,
                supervised=supervised,
                of=of,
            )
        )
        return function

    return register
