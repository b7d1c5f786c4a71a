"""What scores the weaker side of a PoP edge: an averaged policy, the policy itself, or a bank of past gaps."""

import contextlib
from collections.abc import Generator
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from popmargin.errors import RunError


@runtime_checkable
class Target(Protocol):
    """A source of target gaps; its state is saved with every checkpoint."""

    @property
    def forward(self) -> Literal["all", "others", "none"]:
        """Which weaker sides need a forward pass of their own: all, those the policy does not score, or none."""
        ...

    def scoring(self) -> contextlib.AbstractContextManager[None]:
        """A context in which the model's forward pass is the target's."""
        ...

    def recall(self, preferences: Int[Tensor, "P"]) -> Float[Tensor, "P"] | None:
        """Remembered gaps of preferences (P,), nats; None for a target that scores."""
        ...

    def observe(self, preferences: Int[Tensor, "P"], gaps: Float[Tensor, "P"]) -> None:
        """Take note of the policy's detached gaps (P,), nats, of the preferences just scored."""
        ...

    def step(self) -> None:
        """Follow the policy; called once after every optimizer step."""
        ...

    def distance(self) -> float:
        """How far the target is behind the policy; 0 when it is the policy."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Tensors to save with a checkpoint."""
        ...

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take up the state of a checkpoint."""
        ...


class PolicyTarget:
    """The detached policy itself: no second network, no memory."""

    forward: Literal["all", "others", "none"] = "others"

    def scoring(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def recall(self, preferences: Int[Tensor, "P"]) -> Float[Tensor, "P"] | None:
        return None

    def observe(self, preferences: Int[Tensor, "P"], gaps: Float[Tensor, "P"]) -> None:
        """Nothing is remembered."""

    def step(self) -> None:
        """The policy needs no following."""

    def distance(self) -> float:
        return 0.0

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """There is no state."""


class EMATarget:
    """A Polyak-averaged copy of the trained weights, θ_target ← τ·θ_target + (1 − τ)·θ, kept in fp32.

    Only weights that are trained are copied: with LoRA, the adapter. In bf16 an average with τ = 0.99 would hardly
    move, so the copy is fp32 whatever the model's dtype.

    Args:
        model: the policy, not wrapped for distributed training.
        decay: τ, once per optimizer step.
    """

    forward: Literal["all", "others", "none"] = "all"

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._average = {name: p.detach().clone().float() for name, p in self._trained.items()}

    @contextlib.contextmanager
    def scoring(self) -> Generator[None]:
        own = {name: parameter.data for name, parameter in self._trained.items()}
        try:
            for name, parameter in self._trained.items():
                parameter.data = self._average[name].to(parameter.dtype)
            yield
        finally:
            for name, parameter in self._trained.items():
                parameter.data = own[name]

    def recall(self, preferences: Int[Tensor, "P"]) -> Float[Tensor, "P"] | None:
        return None

    def observe(self, preferences: Int[Tensor, "P"], gaps: Float[Tensor, "P"]) -> None:
        """Scores are the network's own."""

    @torch.no_grad()
    def step(self) -> None:
        for name, parameter in self._trained.items():
            self._average[name].lerp_(parameter.detach().float(), 1 - self._decay)

    @torch.no_grad()
    def distance(self) -> float:
        """‖θ − θ_target‖, L2 over all trained weights."""
        squares = [(p.float() - self._average[name]).square().sum() for name, p in self._trained.items()]
        return float(torch.stack(squares).sum().sqrt())

    def state(self) -> dict[str, Tensor]:
        return {f"ema.{name}": tensor for name, tensor in self._average.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        missing = [name for name in self._average if f"ema.{name}" not in state]
        if missing:
            raise RunError(f"The checkpoint has no averaged weights for '{missing[0]}' and {len(missing) - 1} others.")
        for name, tensor in self._average.items():
            tensor.copy_(state[f"ema.{name}"])


class MarginBank:
    """A running average of each preference's own gap, updated whenever it is scored (ours; no second network).

    g_i ← τ·g_i + (1 − τ)·Δ_i after every optimizer step in which preference i was scored; a preference that was not
    scored yet has the gap of the start model (0 for log-ratios). Staleness is the price: a gap is as old as its
    preference's last turn. Within a step nothing changes, so that micro-batches and processes do not matter.

    Args:
        start: gaps of all preferences under the start model (N,), nats.
        decay: τ; 0 keeps the latest gap.
    """

    forward: Literal["all", "others", "none"] = "none"

    def __init__(self, start: Float[Tensor, "N"], decay: float) -> None:
        self._decay = decay
        self._gaps = start.clone().float()
        self._change = torch.zeros(())
        self._seen: list[tuple[Tensor, Tensor]] = []

    def scoring(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def recall(self, preferences: Int[Tensor, "P"]) -> Float[Tensor, "P"] | None:
        self._gaps = self._gaps.to(preferences.device)
        return self._gaps[preferences]

    def observe(self, preferences: Int[Tensor, "P"], gaps: Float[Tensor, "P"]) -> None:
        self._seen.append((preferences, gaps.float()))

    def step(self) -> None:
        numbers, values = _from_all_processes(self._seen)
        self._seen = []
        self._gaps = self._gaps.to(values.device)
        old = self._gaps[numbers]  # a preference scored twice in a step has the same gap, and counts once
        self._change = (values - old).abs().mean()
        self._gaps[numbers] = torch.lerp(values, old, self._decay)

    def distance(self) -> float:
        """Mean |Δ − g| of the preferences scored last, nats."""
        return float(self._change)

    def state(self) -> dict[str, Tensor]:
        return {"bank": self._gaps}

    def load_state(self, state: dict[str, Tensor]) -> None:
        if state["bank"].shape != self._gaps.shape:
            raise RunError(
                f"The checkpoint's margin bank holds {len(state['bank'])} preferences, this run {len(self._gaps)}."
            )
        self._gaps = state["bank"].clone()


def _from_all_processes(seen: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    numbers, values = torch.cat([part for part, _ in seen]), torch.cat([part for _, part in seen])
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return numbers, values
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, (numbers.cpu(), values.cpu()))
    both = [torch.cat([part[side] for part in parts]).to(values.device) for side in (0, 1)]
    return both[0], both[1]
