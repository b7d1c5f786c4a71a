"""Token selectors: pure functions from token log-probs to token weights.

Axis suffixes: N completion tokens of a batch (all responses, one after the other), S responses.
"""

import inspect
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from popmargin.registry import Registry, decorator
from popmargin.user_code import running


@dataclass(frozen=True, kw_only=True)
class TokenRows:
    """The completion tokens of a batch, as a selector sees them; detached.

    Attributes:
        logps: log-prob of every token under the policy (N,), nats.
        reference_logps: the same under the run's reference (N,), nats.
        scoring_logps: the same under the selector's own reference (`tokens.reference`), or the run's if there is none.
        response: the response that a token belongs to (N,), 0 … S−1.
        is_chosen: whether a response is the chosen one of its preference (S,).
    """

    logps: Float[Tensor, "N"]
    reference_logps: Float[Tensor, "N"]
    scoring_logps: Float[Tensor, "N"]
    response: Int[Tensor, "N"]
    is_chosen: Bool[Tensor, "S"]


@dataclass(frozen=True)
class TokenSelector:
    """A registered token selector.

    Attributes:
        name: its name in configurations.
        function: `(tokens, options) -> weights (N,)`; a weight of 1 keeps a token, 0 drops it.
        options: its frozen options dataclass.
    """

    name: str
    function: Callable[[TokenRows, Any], Tensor]
    _: KW_ONLY
    options: type[Any]

    def requires(self, options: Any) -> frozenset[str]:
        """What a task must provide, by name: log-probs per token, also from a reference."""
        return frozenset({"tokens", "reference"})

    def weights(self, tokens: TokenRows, options: Any) -> Tensor:
        """The function's weights for some tokens (N,); errors in user code name file and line.

        Raises:
            RunError: it failed.
        """
        with running(f"token selector '{self.name}'"):
            return self.function(tokens, options)

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


TOKEN_SELECTORS: Registry[TokenSelector] = Registry("token_selector", "popmargin.tokens")
token_selector = decorator(TOKEN_SELECTORS, TokenSelector)
"""Registers the decorated function: `@token_selector("name", options=…)` and the fields of `TokenSelector`.

Example:
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, kw_only=True)
    ... class SureOptions:
    ...     nats: float = 0.1
    >>> @token_selector("unsure", options=SureOptions)
    ... def unsure(tokens: TokenRows, options: SureOptions):
    ...     return (tokens.logps < -options.nats).float()
    >>> TOKEN_SELECTORS.get("unsure").name
    'unsure'
"""
