"""What a token selector is: a pure function from token log-probs to token weights.

Axis suffixes: N completion tokens of a batch (all responses, one after the other), S responses.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from jaxtyping import Bool, Float, Int
from torch import Tensor

from popmargin.registry import Registry


@dataclass(frozen=True, kw_only=True)
class TokenRows:
    """The completion tokens of a batch, as a selector sees them; detached.

    Attributes:
        logps: log-prob of every token under the policy (N,), nats.
        reference_logps: the same under the run's reference (N,), nats.
        scoring_logps: the same under the selector's own reference (`tokens.reference`); the run's where there is none.
        response: the response that a token belongs to (N,), 0 … S−1.
        is_chosen: whether a response is the chosen one of its preference (S,).
    """

    logps: Float[Tensor, "N"]
    reference_logps: Float[Tensor, "N"]
    scoring_logps: Float[Tensor, "N"]
    response: Int[Tensor, "N"]
    is_chosen: Bool[Tensor, "S"]


@dataclass(frozen=True, kw_only=True)
class TokenSelector:
    """A registered token selector.

    Attributes:
        name: its name in configurations.
        function: `(tokens, options) -> weights (N,)`; a weight of 1 keeps a token, 0 leaves it out.
        options: its frozen options dataclass.
    """

    name: str
    function: Callable[[TokenRows, Any], Tensor]
    options: type[Any]

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


TOKEN_SELECTORS: Registry[TokenSelector] = Registry("token_selector", "popmargin.tokens")

FunctionT = TypeVar("FunctionT", bound=Callable[..., Tensor])


def token_selector(name: str, *, options: type[Any]) -> Callable[[FunctionT], FunctionT]:
    """Register the decorated function as a token selector; the arguments are the fields of `TokenSelector`."""

    def register(function: FunctionT) -> FunctionT:
        TOKEN_SELECTORS.add(TokenSelector(name=name, function=function, options=options))
        return function

    return register
