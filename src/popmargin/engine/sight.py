"""What a token of a layer sees, read from the rule of the model's mask, at positions that no trial reaches.

A window or chunk shows only in rows longer than it, often thousands of tokens. transformers builds masks from
rules, functions of two positions, so a rule can be evaluated at any positions without a forward pass over them. A
model's own attention obeys the mask, not its other arguments; in some models only the mask has the window.
"""

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Rule = Callable[[Any, Any, Any, Any], Any]
"""Whether a query sees a key, by batch row, head, and the positions of both."""

_FARTHEST = 2**17  # tokens: larger windows have no effect
_TAG = "popmargin_sight"


@dataclass(frozen=True)
class Sight:
    """Which tokens of its own sequence a token sees: all up to itself, unless one of these is set.

    Attributes:
        window: only this many, itself included.
        chunk: only those in its own chunk of this many tokens.
    """

    window: int | None = None
    chunk: int | None = None

    def within(self, length: int) -> "Sight":
        """The same for sequences of a given length, without limits that they do not reach."""
        return Sight(*(None if limit is None or limit >= length else limit for limit in (self.window, self.chunk)))

    def first(self, position: int) -> int:
        """The first position that is seen from another."""
        of_window = 0 if self.window is None else max(0, position - self.window + 1)
        return of_window if self.chunk is None else max(of_window, position // self.chunk * self.chunk)


class Watch:
    """The sights of attention layers in a forward pass of one row; None if a layer's could not be determined.

    Attributes:
        sights: by layer.
        changed: the class of a layer whose mask was not made from a rule, or does not alone decide what its tokens
            see; empty if there is none.
    """

    def __init__(self) -> None:
        self.sights: dict[nn.Module, Sight | None] = {}
        self.changed = ""

    def note(self, module: nn.Module, mask: Tensor | None, *, is_causal: bool) -> None:
        """Record the mask that a layer receives; `is_causal` says what no mask means."""
        sight = getattr(mask, _TAG, None) if mask is not None else (Sight() if is_causal else None)
        if mask is not None and not hasattr(mask, _TAG):
            self.changed = type(module).__name__
        known = self.sights.setdefault(module, sight)
        self.sights[module] = sight if known == sight else None  # called twice, with different masks


_watch: list[Watch] = []


@contextlib.contextmanager
def watching() -> Generator[Watch]:
    """A context in which layers with our attention record what their masks let them see."""
    watch = Watch()
    _watch.append(watch)
    try:
        yield watch
    finally:
        _watch.remove(watch)


def current_watch() -> Watch | None:
    """The watch of the current forward pass, if any."""
    return _watch[-1] if _watch else None


def tagged(mask: Tensor | None, rule: Rule | None) -> Tensor | None:
    """The mask with its rule's sight attached; a model that builds another mask from it loses the sight."""
    if mask is not None and rule is not None:
        setattr(mask, _TAG, sight_of(rule, mask.device))
    return mask


def sight_of(rule: Rule, device: torch.device | None = None) -> Sight | None:
    """What a rule lets tokens see; None if it is not everything, a window or chunks.

    Args:
        rule: evaluated at some hundred positions up to 131,072, with all keys of each.
        device: of any tensors that the rule holds; the CPU if not given.
    """
    if _looks_tokens_up(rule):
        return None

    def first_seen(position: int) -> int | None:
        return _first_seen(rule, position, device)

    low, high = 0, _FARTHEST  # the first position that does not see all
    if first_seen(high) in (0, None):
        low = high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if first_seen(middle) == 0 else (low, middle)
    start = first_seen(high)
    sight = Sight()
    if start:
        sight = Sight(window=high) if start == 1 else Sight(chunk=high)
    near = {0, 1, 2, 3, high - 1, high, high + 1, 2 * high - 1, 2 * high, 2 * high + 1}
    powers = {2**power + step for power in range(2, 18) for step in (-1, 0, 1)}
    asked = sorted(place for place in near | powers if 0 <= place <= _FARTHEST)
    return sight if all(first_seen(place) == sight.first(place) for place in asked) else None


def _first_seen(rule: Rule, position: int, device: torch.device | None) -> int | None:
    """The first key seen from a position; None unless that and all up to the position are seen, and none after."""
    zero, query = torch.zeros(1, dtype=torch.long, device=device), torch.tensor([position], device=device)
    keys = torch.arange(position + 3, device=device)
    try:
        seen = torch.as_tensor(rule(zero, zero, query, keys)).expand(len(keys)).bool()
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return None
    places = seen.nonzero().flatten()
    first = int(places[0]) if len(places) else -1
    return first if len(places) == position + 1 - first and int(places[-1]) == position else None


def _looks_tokens_up(rule: Any) -> bool:
    """Whether a rule indexes a tensor by position; it then cannot be evaluated beyond the current tokens."""
    held: list[Any] = [cell.cell_contents for cell in getattr(rule, "__closure__", None) or ()]
    for value in held:
        parts: Any = value if isinstance(value, tuple | list) else (value,)
        for part in parts:
            if isinstance(part, Tensor):
                if part.numel() > 1:
                    return True
            elif callable(part) and _looks_tokens_up(part):
                return True
    return False
