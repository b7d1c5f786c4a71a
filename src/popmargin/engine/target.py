"""What scores the weaker side of a PoP edge: an averaged policy, the policy itself, or a bank of past gaps."""

import contextlib
from collections.abc import Generator, Mapping
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from popmargin.engine.processes import (
    divided_like,
    flat_part,
    from_all_processes,
    from_flat_parts,
    give_up_gathered,
    own_part,
    process_number,
    sum_of_all,
    whole,
    zero3_will_cut,
)
from popmargin.errors import RunError, counted


@runtime_checkable
class Target(Protocol):
    """A source of target gaps. Its state is saved with every checkpoint."""

    @property
    def forward(self) -> Literal["all", "others", "none"]:
        """Which weaker sides need their own forward pass: all, those the policy does not score, or none."""
        ...

    def scoring(self) -> contextlib.AbstractContextManager[None]:
        """A context in which the model's forward pass is the target's."""
        ...

    def recall(self, preferences: Int[Tensor, "P"]) -> Float[Tensor, "P"] | None:
        """Remembered gaps of preferences (P,), nats; None for a target that scores."""
        ...

    def observe(self, preferences: Int[Tensor, "P"], gaps: Float[Tensor, "P"]) -> None:
        """Record the policy's detached gaps (P,), nats, of the preferences just scored."""
        ...

    def step(self) -> None:
        """Follow the policy; called once after every optimizer step."""
        ...

    def distance(self) -> float:
        """How far the target lags behind the policy; 0 if it is the policy."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Tensors to save with a checkpoint."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state from a checkpoint."""
        ...


class PolicyTarget:
    """The detached policy itself: no second network, no memory."""

    forward: Literal["all", "others", "none"] = "others"

    def scoring(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def recall(self, preferences: Int[Tensor, "P"]) -> Float[Tensor, "P"] | None:
        return None

    def observe(self, preferences: Int[Tensor, "P"], gaps: Float[Tensor, "P"]) -> None:
        """There are no remembered gaps."""

    def step(self) -> None:
        """The policy is its own target."""

    def distance(self) -> float:
        return 0.0

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """There is no state."""


class EMATarget:
    """A Polyak-averaged copy of the trained weights, θ_target ← τ·θ_target + (1 − τ)·θ, kept in fp32.

    Only weights that are trained are copied: with LoRA, the adapter. In bf16 an average with τ = 0.99 would hardly
    move, so the copy is fp32 whatever the model's dtype. If the model is divided later, every process keeps the average
    of its own parts: of FSDP's once there are some, and of those that ZeRO-3 will cut from the start.

    Args:
        model: the policy, whole or divided by FSDP2, not wrapped for distributed training.
        decay: τ, once per optimizer step.
    """

    forward: Literal["all", "others", "none"] = "all"

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._cut = zero3_will_cut()
        give_up_gathered(model)
        trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        self._shapes = {name: value.shape for name, value in trained.items()}
        self._average = {name: (flat_part(value) if self._cut else value.clone()).float()
                         for name, value in trained.items()}  # fmt: skip

    def _pairs(self) -> list[tuple[nn.Parameter, Tensor]]:
        """Trained weights and their averages; of a divided weight, the average of this process's part."""
        pairs: list[tuple[nn.Parameter, Tensor]] = []
        for name, parameter in self._model.named_parameters():
            if name not in self._average:
                continue
            average = self._average[name]
            if isinstance(parameter, DTensor) and not isinstance(average, DTensor):  # sharded since
                average = self._average[name] = distribute_tensor(average, parameter.device_mesh, parameter.placements)
            pairs.append((parameter, own_part(average)))
        return pairs

    @property
    def _is_divided(self) -> bool:
        return self._cut or any(isinstance(average, DTensor) for average in self._average.values())

    @contextlib.contextmanager
    def scoring(self) -> Generator[None]:
        give_up_gathered(self._model)
        pairs = self._pairs()
        divided = self._is_divided
        own = [own_part(p).clone() if divided else p.data for p, _ in pairs]
        exchange = self._write if divided else self._swap
        try:
            exchange([average for _, average in pairs])
            yield
        finally:
            exchange(own)

    def _swap(self, values: list[Tensor]) -> None:
        for (parameter, _), value in zip(self._pairs(), values, strict=True):
            parameter.data = value.to(parameter.dtype)

    def _write(self, values: list[Tensor]) -> None:
        """In place: whatever gathers parts refers to their storage."""
        give_up_gathered(self._model)
        for (parameter, _), value in zip(self._pairs(), values, strict=True):
            own_part(parameter).copy_(value)

    def recall(self, preferences: Int[Tensor, "P"]) -> Float[Tensor, "P"] | None:
        return None

    def observe(self, preferences: Int[Tensor, "P"], gaps: Float[Tensor, "P"]) -> None:
        """Scores come from the network itself."""

    @torch.no_grad()
    def step(self) -> None:
        for parameter, average in self._pairs():
            average.lerp_(own_part(parameter).float(), 1 - self._decay)

    @torch.no_grad()
    def take(self) -> None:
        """Give the model the averaged weights for good."""
        give_up_gathered(self._model)
        for parameter, average in self._pairs():
            own_part(parameter).copy_(average)

    @torch.no_grad()
    def distance(self) -> float:
        """‖θ − θ_target‖, L2 over all trained weights."""
        squares = [(own_part(parameter).float() - average).square().sum() for parameter, average in self._pairs()]
        total = torch.stack(squares).sum()
        if self._is_divided:
            total = sum_of_all(total)
        return float(total.sqrt())

    def state(self) -> dict[str, Tensor]:
        """The averaged weights; of divided ones, gathered one at a time, in the first process alone."""
        self._pairs()  # weights may have been sharded since
        state: dict[str, Tensor] = {}
        for name, tensor in self._average.items():
            gathered = from_flat_parts(tensor, self._shapes[name]) if self._cut else whole(tensor)
            if not self._is_divided:
                state[f"ema.{name}"] = gathered
            elif process_number() == 0:
                state[f"ema.{name}"] = gathered.cpu()
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        missing = [name for name in self._average if f"ema.{name}" not in state]
        if missing:
            raise RunError(f"The checkpoint has no averaged weights for '{missing[0]}' and {len(missing) - 1} others.")
        for name, tensor in self._average.items():
            value = state[f"ema.{name}"]
            if isinstance(tensor, DTensor):
                tensor.to_local().copy_(divided_like(value.to(tensor.device), tensor).to_local())
            else:
                tensor.copy_(flat_part(value) if self._cut else value)


class MarginBank:
    """A running average of each preference's own gap, updated whenever it is scored (ours; no second network).

    g_i ← τ·g_i + (1 − τ)·Δ_i after every optimizer step in which preference i was scored; a preference that was not
    scored yet has the gap of the start model (0 for log-ratios). The price is staleness: a gap is as old as the last
    time its preference was scored. Nothing changes within a step, so micro-batches and processes do not matter.

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
        numbers, values = (from_all_processes(torch.cat(side)) for side in zip(*self._seen, strict=True))
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

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if state["bank"].shape != self._gaps.shape:
            raise RunError(
                f"The checkpoint's margin bank has {counted(len(state['bank']), 'preference')}, but this run has "
                f"{len(self._gaps)}."
            )
        self._gaps = state["bank"].clone()
