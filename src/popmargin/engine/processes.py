"""Gathering values from several processes."""

from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor


def from_all_processes(values: Shaped[Tensor, "N"]) -> Shaped[Tensor, "..."]:
    """The values of all processes, one process after the other, on this one's device; their numbers may differ.

    Args:
        values: of this process; every process must call this.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, values.cpu())
    return torch.cat(parts).to(values.device)
