"""What a forward pass keeps for the backward pass, counted without a model: on fake tensors, which have only shapes.

Axis suffix T: tokens of a row.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from popmargin.engine.logps import autocast
from popmargin.engine.trial import without_adapter

_SHORT, _LONG = 64, 128  # tokens: two lengths tell what grows with a row from what does not


@dataclass(frozen=True)
class Growing:
    """Bytes that grow with the tokens of a row.

    Attributes:
        fixed: bytes whatever the tokens, such as bf16 copies of the weights, which autocast keeps until the backward
            pass.
        per_token: further bytes for each token.
    """

    fixed: float = 0.0
    per_token: float = 0.0

    def at(self, tokens: int) -> int:
        """Bytes with this many tokens.

        Example:
            >>> Growing(100, 2.5).at(4)
            110
        """
        return round(self.fixed + self.per_token * tokens)

    @staticmethod
    def through(short: float, long: float) -> "Growing":
        """From the bytes of two lengths."""
        slope = (long - short) / (_LONG - _SHORT)
        return Growing(max(short - slope * _SHORT, 0.0), slope)


@dataclass(frozen=True)
class Activations:
    """What layers keep for the backward pass.

    Attributes:
        whole: all of them.
        layer: the largest layer alone.
        outside: what is outside of the layers, such as embeddings and the last norm.
        inputs: the inputs of all layers: with gradient checkpointing these are kept, and one layer is computed again.
    """

    whole: Growing
    layer: Growing
    outside: Growing
    inputs: Growing

    def at(self, tokens: int, *, checkpointing: bool) -> int:
        """Bytes for a row of this many tokens."""
        if not checkpointing:
            return self.whole.at(tokens)
        return self.outside.at(tokens) + self.inputs.at(tokens) + self.layer.at(tokens)


@dataclass
class _Count:
    """Distinct storages that autograd keeps, by the layer that is running."""

    weights: set[int]
    kept: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    of_layer: dict[int | None, int] = field(default_factory=dict[int | None, int])
    inputs: int = 0
    layer: int | None = None

    def keep(self, value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        place = storage._cdata  # pyright: ignore[reportPrivateUsage] (fake storages have no address)
        if place not in self.weights and place not in self.kept:
            self.kept[place] = value
            self.of_layer[self.layer] = self.of_layer.get(self.layer, 0) + storage.nbytes()
        return value


def count_activations(model: Any, precision: str) -> Activations:
    """What a model's layers keep, from two short forward passes; attention is taken as linear in the tokens.

    Args:
        model: on fake tensors, under their mode, with or without an adapter.
        precision: fp32 or bf16.

    Raises:
        RuntimeError, TypeError, ValueError …: a model that looks at the values of its tensors, as some experts do.
    """
    base = without_adapter(model)
    assert base is not None, "a transformers model"
    count = getattr(base.config.get_text_config(), "num_hidden_layers", None)
    lists = [child for child in base.base_model.children() if isinstance(child, nn.ModuleList)]
    layers = next((list(found) for found in lists if len(found) == count), [])
    short, long = (_pass(model, base, layers, tokens, precision) for tokens in (_SHORT, _LONG))

    def growing(of: Callable[[_Count], float]) -> Growing:
        return Growing.through(of(short), of(long))

    per_layer = [
        growing(lambda found, n=number: found.of_layer.get(n, 0))  # pyright: ignore[reportUnknownLambdaType]
        for number in range(len(layers))
    ]
    return Activations(
        whole=growing(lambda found: sum(found.of_layer.values())),
        layer=max(per_layer, key=lambda layer: layer.at(1024), default=Growing()),
        outside=growing(lambda found: found.of_layer.get(None, 0)),
        inputs=growing(lambda found: found.inputs),
    )


def _pass(model: Any, base: Any, layers: list[nn.Module], tokens: int, precision: str) -> _Count:
    count = _Count({p.untyped_storage()._cdata for p in model.parameters()})  # pyright: ignore[reportPrivateUsage]
    handles: list[Any] = []
    for number, layer in enumerate(layers):

        def enter(_: nn.Module, given: tuple[Any, ...], number: int = number) -> None:
            count.layer = number
            count.inputs += sum(value.nbytes for value in given[:1] if isinstance(value, Tensor))

        def leave(*_: Any) -> None:
            count.layer = None

        handles += [layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave)]
    ids_T = torch.zeros(1, tokens, dtype=torch.long)
    try:
        with warnings.catch_warnings(), saved_tensors_hooks(count.keep, lambda value: value):
            warnings.simplefilter("ignore")
            with autocast(torch.device("cpu"), precision):
                base.base_model(input_ids=ids_T, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return count
