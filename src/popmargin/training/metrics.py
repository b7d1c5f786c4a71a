"""Training metrics: weighted by rows, summed on the device, read when they are logged."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor


class MeanMetrics:
    """Means of named per-row values over everything added since the last reading."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add values of any number of rows, one tensor (rows,) per name."""
        for name, tensor in values.items():
            total = tensor.detach().double().sum()
            self._sums[name] = self._sums[name] + total if name in self._sums else total
            self._counts[name] = self._counts.get(name, 0) + tensor.numel()

    def read(self) -> dict[str, float]:
        """The means over all processes since the last reading; starts anew."""
        names = sorted(self._sums)
        if not names:
            return {}
        sums = torch.stack([self._sums[name] for name in names])
        counts = [float(self._counts[name]) for name in names]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            table = torch.stack([sums, sums.new_tensor(counts)])
            torch.distributed.all_reduce(table)
            sums, counts = table[0], table[1].tolist()
        self._sums, self._counts = {}, {}
        return {
            name: (total / count if count else math.nan)
            for name, total, count in zip(names, sums.tolist(), counts, strict=True)
        }


def finish_means(means: Mapping[str, float]) -> dict[str, float]:
    """Means as they are logged: `x_square` beside `x_mean` becomes the standard deviation `x_std`, alone it stays."""
    result = dict(means)
    for name in means:
        stem = name.removesuffix("_square")
        if name.endswith("_square") and f"{stem}_mean" in means:
            variance = result.pop(name) - result[f"{stem}_mean"] ** 2
            result[f"{stem}_std"] = math.sqrt(max(variance, 0.0))
    return result
