"""Models divided among processes (FSDP2) as they are loaded, so that no device ever holds one whole.

The first process reads a model into its main memory, with its adapter; the others get its structure, without values.
Each then keeps its part of every weight, which the first process hands out one at a time.
"""

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_apply_ac, fsdp2_prepare_model
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments

from popmargin.engine.processes import divided_like, from_first_process, process_number
from popmargin.errors import PopmarginError

_M = TypeVar("_M", bound=nn.Module)
MAIN_MEMORY = torch.device("cpu")


@dataclass(frozen=True)
class Sharding:
    """How the processes of a run divide weights among them.

    Attributes:
        plugin: what was asked for, as accelerate reads it.
        device: where this process computes.
    """

    plugin: FullyShardedDataParallelPlugin
    device: torch.device

    @staticmethod
    def of(arguments: TrainingArguments) -> "Sharding | None":
        """What a run's arguments, or the configuration of `accelerate launch`, ask for; None for whole weights.

        FSDP1 and further kinds of parallelism are left to accelerate, which divides whole models.
        """
        asked: Any = arguments.fsdp_plugin_args
        launched = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
        further = os.environ.get("ACCELERATE_USE_PARALLELISM_CONFIG", "false").lower() == "true"
        if not (asked or launched) or further or not may_shard():
            return None
        plugin = FullyShardedDataParallelPlugin(**(asked or {}))
        if plugin.fsdp_version != 2:
            return None
        plugin.cpu_ram_efficient_loading = False  # which is done here, for any model and adapter
        return Sharding(plugin, arguments.device)

    def divide(
        self, load: Callable[[], _M], *, checkpointed: bool = False, seen: Callable[[_M], None] | None = None
    ) -> _M:
        """A model of which each process holds its part.

        Args:
            load: returns the model in main memory, as it is to be trained or used; called in the first process alone.
            checkpointed: whether its layers are to be recomputed in the backward pass, if the configuration says so.
            seen: is given the model before it is divided, without values.

        Raises:
            PopmarginError: it cannot be loaded; in every process.
        """
        source: Any = None
        told: Any = None
        if process_number() == 0:
            try:
                source = load()
                told = _without_values(source)
            except PopmarginError as error:
                told = error
        model = from_first_process(told)
        if isinstance(model, PopmarginError):
            raise model
        if seen is not None:
            seen(model)
        self._wrap(model, checkpointed=checkpointed)
        self._fill(model, source)
        return model

    def _wrap(self, model: nn.Module, *, checkpointed: bool) -> None:
        """Divide a model without values as accelerate divides one with values."""
        plugin = copy.copy(self.plugin)  # which notes the classes of a model's layers
        accelerator: Any = SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin), mixed_precision="no")
        plugin.set_auto_wrap_policy(model)
        if checkpointed and plugin.activation_checkpointing:
            fsdp2_apply_ac(accelerator, model)
        fsdp2_prepare_model(accelerator, model)

    def _fill(self, model: nn.Module, source: nn.Module | None) -> None:
        """Give a divided model its values; `source` has them in the first process."""
        offloaded = isinstance(self.plugin.cpu_offload, CPUOffloadPolicy)
        places = _places(model)
        values: list[Tensor | None] = [None] * len(places)
        if source is not None:
            values = [getattr(module, name) for module, name in (uses[0] for uses in _places(source))]
        for uses, value in zip(places, values, strict=True):
            module, name = uses[0]
            empty: Tensor = getattr(module, name)
            is_weight = isinstance(empty, nn.Parameter)
            part = self._part(empty, value).to(MAIN_MEMORY if offloaded and is_weight else self.device)
            new = nn.Parameter(part, requires_grad=empty.requires_grad) if is_weight else part
            for module, name in uses:  # tied weights stay one
                setattr(module, name, new)

    @torch.no_grad()
    def _part(self, empty: Tensor, value: Tensor | None) -> Tensor:
        """This process's part of a weight or buffer that the first process has."""
        full = torch.empty(empty.shape, dtype=empty.dtype, device=self.device)
        if value is not None:
            full.copy_(value.detach())
        if torch.distributed.is_initialized():
            torch.distributed.broadcast(full, src=0)
        if not isinstance(empty, DTensor):
            return full
        return divided_like(full, empty)


def may_shard() -> bool:
    """Whether accelerate shards here: it gives FSDP to accelerators alone."""
    return PartialState().distributed_type not in (DistributedType.NO, DistributedType.MULTI_CPU)


def _without_values(model: _M) -> _M:
    """The same model on the meta device; weights that are tied stay so."""
    known: dict[int, Any] = {}
    for parameter in model.parameters():
        known[id(parameter)] = nn.Parameter(
            torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad
        )
    for buffer in model.buffers():
        known[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, known)


def _places(model: nn.Module) -> list[list[tuple[nn.Module, str]]]:
    """Where each weight and buffer is used, in an order that all copies of a model share; several places if tied."""
    found: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        own = module.named_parameters(recurse=False, remove_duplicate=False)
        for name, value in (*own, *module.named_buffers(recurse=False, remove_duplicate=False)):
            found.setdefault(id(value), []).append((module, name))
    return list(found.values())
