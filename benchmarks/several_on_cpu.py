"""What lets several CPU processes divide a model among them: for tests and for measuring memory."""

from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

import popmargin.models.sharding as sharding


def allow_fsdp_on_cpus() -> None:
    """accelerate gives FSDP to accelerators alone; all else of it works with gloo too."""
    start = AcceleratorState.__init__

    def start_with_fsdp(self: Any, *args: Any, **values: Any) -> None:
        start(self, *args, **values)
        if values.get("fsdp_plugin") is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, values["fsdp_plugin"]
            PartialState._shared_state["distributed_type"] = self.distributed_type

    AcceleratorState.__init__ = start_with_fsdp
    sharding.may_shard = lambda: True


def without_compiled_operations() -> None:
    """DeepSpeed would compile its exchange through shared memory, which takes minutes; gloo does the same."""
    import deepspeed.ops

    for name in deepspeed.ops.__compatible_ops__:
        deepspeed.ops.__compatible_ops__[name] = False
