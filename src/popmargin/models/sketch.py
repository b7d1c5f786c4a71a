"""Models of the right shapes, made from configurations alone: on fake tensors they take no memory."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from popmargin.errors import RunError
from popmargin.models.adapter_files import find_adapter
from popmargin.models.path import resolve_path
from popmargin.models.quiet import quiet_loading
from popmargin.models.refusals import FAILURES, reason


def sketch_pretrained(auto: Any, path: str, *, dtype: torch.dtype, **options: Any) -> Any:
    """A model of the shapes of a folder's or hub id's, to be made under a `FakeTensorMode`; for an adapter, its base.

    Args:
        auto: one of transformers' Auto classes.
        path: a folder, a hub id, or `demo`.
        dtype: of the weights.
        options: settings to change in its configuration.

    Raises:
        RunError: its configuration cannot be read, or transformers has no such class for it.
    """
    from transformers import AutoConfig
    from transformers.initialization import no_init_weights

    adapter = find_adapter(path)
    if adapter is not None and adapter.base != path:
        return sketch_pretrained(auto, adapter.base, dtype=dtype, **options)
    try:
        with quiet_loading(), no_init_weights():
            config = AutoConfig.from_pretrained(resolve_path(path), trust_remote_code=False, **options)
            model = auto.from_config(config, dtype=dtype, trust_remote_code=False)
        model.tie_weights()
    except FAILURES as error:
        raise RunError(f"Cannot read the configuration of '{path}': {reason(error)}") from error
    return model


class AdaptedLayer(nn.Module):
    """A linear layer with a LoRA adapter, as far as memory is concerned."""

    def __init__(self, base: nn.Module, rank: int) -> None:
        super().__init__()
        weight: Any = base.weight
        turned = not isinstance(base, nn.Linear)  # the layout of transformers' Conv1D
        into, out = weight.shape if turned else weight.shape[::-1]
        self.base_layer = base.requires_grad_(False)
        self.lora_A, self.lora_B = nn.Linear(into, rank, bias=False), nn.Linear(rank, out, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        """The layer's output and the adapter's."""
        result: Tensor = self.base_layer(values)
        return result + self.lora_B(self.lora_A(values.to(self.lora_A.weight.dtype))) * 2.0


def sketch_adapter(model: Any, names: Collection[str], rank: int, layers: Collection[int] | None = None) -> Any:
    """The model with all of its weights frozen, and adapters in fp32.

    Args:
        model: changed in place.
        names: last names of the layers that are adapted.
        rank: of the adapters.
        layers: numbers of the blocks that are adapted; None for all.
    """
    model.requires_grad_(False)
    for name, module in list(model.named_modules()):
        parent, _, last = name.rpartition(".")
        numbers = [int(part) for part in name.split(".") if part.isdigit()]
        if last in names and hasattr(module, "weight") and (layers is None or not {*layers}.isdisjoint(numbers)):
            setattr(model.get_submodule(parent), last, AdaptedLayer(module, rank))
    return model
