"""Several models around one set of weights in memory."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


def shared_copy(model: Any, *, apart: nn.Module | None = None) -> Any:
    """A copy of a model's modules around the same parameters, which are not copied.

    An adapter put on the copy does not touch the model, so that this is the adapted model without its adapter, in the
    same memory. Dropout, hooks, and layers that are compiled or replaced belong to one of the two; buffers, which
    modules may write to, are copied.

    Args:
        model: its parameters must stay as they are, as those under an adapter do.
        apart: a part of it whose parameters are copied.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> other = shared_copy(model, apart=model[1])
        >>> other[0] is model[0], other[0].weight is model[0].weight, other[1].weight is model[1].weight
        (False, True, False)
    """
    own = set[int]() if apart is None else {id(parameter) for parameter in apart.parameters()}
    kept = {id(parameter): parameter for parameter in model.parameters() if id(parameter) not in own}
    return copy.deepcopy(model, kept)


def copy_to_merge(model: Any) -> Any:
    """A copy of a model with parameters of its own, on the same values until they are replaced, not written to."""
    pairs = {id(parameter): nn.Parameter(parameter.detach(), requires_grad=False) for parameter in model.parameters()}
    return copy.deepcopy(model, pairs)


def outline(model: Any) -> Any:
    """A copy of a model with the shapes of its parameters and no values: they are on the meta device.

    Example:
        >>> outline(nn.Linear(2, 3)).weight
        Parameter containing:
        tensor(..., device='meta', size=(3, 2))
    """
    pairs = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, pairs)


def weight_bytes(models: Iterable[nn.Module]) -> int:
    """Bytes of the parameters of some models; those that several share count once.

    Example:
        >>> model = nn.Linear(2, 3)
        >>> weight_bytes([model, shared_copy(model)])
        36
    """
    storages = {
        storage.data_ptr(): storage.nbytes()
        for model in models
        for storage in (parameter.untyped_storage() for parameter in model.parameters())
    }
    return sum(storages.values())
