"""Peak memory of a stretch of work."""

import gc
import resource
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch._C._profiler import _EventType  # pyright: ignore[reportPrivateUsage]
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.tensor import DTensor


def reset_peak() -> None:
    """Restart the measurement, if the system allows it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # then the peak is of the whole process


def peak_megabytes() -> float:
    """Peak memory since `reset_peak`: of the GPU if there is one, otherwise resident memory of the process, in MB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


class TensorPeak:
    """The most bytes of tensors that are alive at once in some work on the CPU; `bytes` after it.

    Counted are the tensors that Python knew before, and what PyTorch's allocator gives and takes back in this thread.

    Example:
        >>> with TensorPeak() as peak:
        ...     values = [torch.zeros(1000) for _ in range(5)]
        >>> 20_000 <= peak.bytes - peak.before < 30_000
        True
    """

    before: int = 0
    bytes: int = 0

    def __enter__(self) -> "TensorPeak":
        self.before = live_bytes()
        self._profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
        self._profile.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._profile.__exit__(kind, error, trace)
        profiler: Any = self._profile.profiler
        self.bytes = self.before + most_alive(_allocations(profiler.kineto_results.experimental_event_tree()))


def most_alive(allocations: Iterable[tuple[int, int]]) -> int:
    """The most bytes alive at once, beyond what there was before.

    What another thread takes back is not seen: gloo's threads do that with what they have sent. So memory that is
    handed out again at an address has been taken back before.

    Args:
        allocations: in the order of time, the address and how many bytes were handed out; negative where taken back.

    Example:
        >>> most_alive([(1, 10), (2, 5), (1, -10), (2, 8), (3, -4)])
        15
    """
    alive: dict[int, int] = {}
    total = most = 0
    for address, size in allocations:
        if size > 0:
            total += size - alive.get(address, 0)
            alive[address] = size
        else:
            total -= alive.pop(address, -size)
        most = max(most, total)
    return most


def _allocations(roots: Iterable[Any]) -> list[tuple[int, int]]:
    """Address and size of each, in the order of time, from the profiler's tree of events."""
    found: list[tuple[int, int, int]] = []
    left = list(roots)
    while left:
        event = left.pop()
        left += event.children
        if event.tag == _EventType.Allocation:
            found.append((event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size))
    return [(address, size) for _, address, size in sorted(found, key=lambda each: each[0])]


def live_bytes() -> int:
    """Bytes of all tensors in main memory that Python knows; those that share memory count once.

    Of a divided tensor, this process's part counts, which is a tensor of its own.
    """
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [each for each in gc.get_objects() if isinstance(each, torch.Tensor)]
        tensors = [tensor for tensor in found if not isinstance(tensor, (FakeTensor, DTensor))]
        storages = [tensor.untyped_storage() for tensor in tensors if tensor.device.type == "cpu"]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
