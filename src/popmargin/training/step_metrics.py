"""Training metrics: weighted by rows, summed on the device, read when logged."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from popmargin.engine.processes import from_all_processes
from popmargin.errors import RunError


class MeanMetrics:
    """Means of named per-row values over everything added since the last reading; nan means that a row has no value."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor], weight: Tensor | None = None) -> None:
        """Add values of any number of rows, one tensor (rows,) per name; without weights (rows,) all count equally."""
        for name, tensor in values.items():
            known = ~tensor.isnan()
            if weight is None:
                both = torch.stack([tensor.detach().double().nansum(), known.sum().double()])
            else:
                both = torch.stack([(tensor.detach().double() * weight).nansum(), (known * weight.double()).sum()])
            self._sums[name] = self._sums[name] + both if name in self._sums else both

    def read(self) -> dict[str, float]:
        """The means over all processes since the last reading, for names with a value; then resets."""
        names = sorted(self._sums)
        if not names:
            return {}
        table = torch.stack([self._sums[name] for name in names])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(table)
        self._sums = {}
        return {name: total / count for name, (total, count) in zip(names, table.tolist(), strict=True) if count}


class RowValues:
    """Single values of rows over everything added since the last reading.

    Args:
        names: of the values, `Objective.every_row`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._parts: dict[str, list[Tensor]] = {name: [] for name in sorted(names)}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add values of any number of rows, one tensor (rows,) per name; others are passed over.

        Raises:
            RunError: a name has no value.
        """
        for name, parts in self._parts.items():
            if name not in values:
                raise RunError(
                    f"The objective declares every_row={name!r}, but its diagnostics have no '{name}' (they have "
                    f"{', '.join(values) or 'none'}): add it to them, or remove it from every_row."
                )
            parts.append(values[name].detach().double())

    def read(self) -> dict[str, Tensor]:
        """The values (N,) of all processes since the last reading, without nan, fp64 on the CPU; starts anew."""
        read: dict[str, Tensor] = {}
        for name, parts in self._parts.items():  # in the same order everywhere
            values = from_all_processes(torch.cat(parts)).cpu()
            read[name] = values[~values.isnan()]
            parts.clear()
        return read


def finish_means(means: Mapping[str, float]) -> dict[str, float]:
    """Means for the log: `x_square` with `x_mean` becomes the standard deviation `x_std`; alone it is unchanged.

    For the rows' weights also the effective sample size (Σw)²/Σw², as a share of the rows.
    """
    result = dict(means)
    for name in means:
        stem = name.removesuffix("_square")
        if name.endswith("_square") and f"{stem}_mean" in means:
            variance = result.pop(name) - result[f"{stem}_mean"] ** 2
            result[f"{stem}_std"] = math.sqrt(max(variance, 0.0))
    if means.get("weight_square"):
        result["weight_effective_share"] = means["weight_mean"] ** 2 / means["weight_square"]
    return result
