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


def sum_of_all(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes; every process must call this."""
    if are_several():
        torch.distributed.all_reduce(value)
    return value


def largest_of_all(number: int) -> int:
    """The largest number of any process; every process must call this."""
    if not are_several():
        return number
    numbers: list[Any] = [None] * process_count()
    torch.distributed.all_gather_object(numbers, number)
    return max(numbers)


def is_divided(model: nn.Module) -> bool:
    """Whether each process holds a part of a model's weights, so that all must make each forward pass together."""
    return any(isinstance(parameter, DTensor) or hasattr(parameter, "ds_tensor") for parameter in model.parameters())


def give_up_gathered(model: nn.Module) -> None:
    """Have a divided model hold only this process's parts: after a forward pass some weights are still whole."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    for parameter in model.parameters():
        zero3: Any = getattr(parameter, "_z3_optimizer", None)
        if zero3 is not None:
            zero3.parameter_offload.partition_all_parameters()
            break


def own_part(value: Tensor) -> Tensor:
    """What this process holds of a weight or gradient, detached: all of it, or its part, flat where ZeRO-3 cuts it."""
    if isinstance(value, DTensor):
        return value.to_local().detach()
    cut: Any = value
    if not hasattr(cut, "ds_tensor"):
        return value.detach()
    return cut.ds_tensor.detach()[: len(_own_range(cut.ds_numel))]


def zero3_will_cut() -> bool:
    """Whether this process trains with DeepSpeed's ZeRO-3, which cuts weights that are whole until training begins."""
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    return bool(is_deepspeed_zero3_enabled())


def flat_part(full: Tensor) -> Shaped[Tensor, " N"]:
    """This process's part of a tensor that every process has whole, as ZeRO-3 cuts it.

    Example:
        >>> flat_part(torch.ones(2, 3)).shape  # alone, it is all of it
        torch.Size([6])
    """
    mine = _own_range(full.numel())
    return full.detach().flatten()[mine.start : mine.stop].clone()


def from_flat_parts(part: Shaped[Tensor, " N"], shape: torch.Size) -> Tensor:
    """The whole of a tensor that was cut by `flat_part`; every process must call this."""
    if not are_several():
        return part.view(shape)
    size = -(-shape.numel() // process_count())
    padded = torch.nn.functional.pad(part, (0, size - len(part)))
    parts = [torch.empty_like(padded) for _ in range(process_count())]
    torch.distributed.all_gather(parts, padded)
    return torch.cat(parts)[: shape.numel()].view(shape)


def _own_range(count: int) -> range:
    """The elements of a flat tensor that are this process's: equal parts, of which the last ones may be shorter."""
    size = -(-count // process_count())
    start = min(size * process_number(), count)
    return range(start, min(start + size, count))


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
