"""Values that several processes agree on, and where a model computes that they share."""

from typing import Any, TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

_T = TypeVar("_T")


def are_several() -> bool:
    """Whether this process has been connected with others."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def process_number() -> int:
    """This process among those that work together; 0 for the first one, and for one alone."""
    return torch.distributed.get_rank() if are_several() else 0


def process_count() -> int:
    """How many processes are connected; 1 for one alone."""
    return torch.distributed.get_world_size() if are_several() else 1


def from_all_processes(values: Shaped[Tensor, "N"]) -> Shaped[Tensor, "..."]:
    """The values of all processes, one process after the other, on this one's device; their numbers may differ.

    Args:
        values: of this process; every process must call this.
    """
    if not are_several():
        return values
    parts: list[Any] = [None] * process_count()
    torch.distributed.all_gather_object(parts, values.cpu())
    return torch.cat(parts).to(values.device)


def from_first_process(value: _T) -> _T:
    """What the first process has; every process must call this."""
    if not are_several():
        return value
    box: list[Any] = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def largest_of_all(number: int) -> int:
    """The largest number of any process; every process must call this."""
    if not are_several():
        return number
    numbers: list[Any] = [None] * process_count()
    torch.distributed.all_gather_object(numbers, number)
    return max(numbers)


def is_divided(model: nn.Module) -> bool:
    """Whether each process holds a part of a model's weights, so that all must make each forward pass together."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def give_up_gathered(model: nn.Module) -> None:
    """Have a divided model hold only this process's parts: after a forward pass some weights are still whole."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(tensor: Tensor) -> Tensor:
    """All values of a tensor; if it is divided among processes, every one of them must call this."""
    if not isinstance(tensor, DTensor):
        return tensor.detach()
    here: Any = tensor.detach().to(tensor.device_mesh.device_type)  # parts may wait in main memory
    return here.full_tensor()


def divided_like(full: Tensor, pattern: DTensor) -> DTensor:
    """This process's part of a tensor that every process has whole, divided as another one is.

    The part has a storage of its own, so the whole tensor can be freed.
    """
    part = distribute_tensor(full, pattern.device_mesh, pattern.placements, src_data_rank=None)
    local = part.to_local().clone()
    return DTensor.from_local(
        local, pattern.device_mesh, pattern.placements, run_check=False, shape=pattern.shape, stride=pattern.stride()
    )


def place_of(model: nn.Module) -> torch.device:
    """The device on which a model computes; its weights may wait elsewhere (CPU offload)."""
    first = next(model.parameters())
    if not isinstance(first, DTensor) or first.device.type == first.device_mesh.device_type:
        return first.device
    return torch.device(first.device_mesh.device_type, torch.accelerator.current_device_index())
