"""How much of an item's vector is left at each time: the schedules of noise, and the grids that sampling uses.

Axis suffixes: T times, B rows, D dimensions, G grid points.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from popmargin.errors import ConfigError, did_you_mean

Schedule = Literal["linear", "scaled", "cosine"]
Grid = Literal["trained", "published"]
SCHEDULES: tuple[Schedule, ...] = ("linear", "scaled", "cosine")
_FIRST, _LAST = 1e-4, 0.02  # β of the linear schedule
_LARGEST = 0.999  # β of the cosine schedule, as its authors clip it


def signal_shares(schedule: str, steps: int) -> Float[Tensor, " T"]:
    """ᾱ of every time: the share of the variance that is still signal, fp64.

    `linear`, as published: β from 1e-4 to .02 whatever the number of steps, so that with 2,000 steps half of them carry
    nearly no signal. `scaled`: the same β times 1000 / steps, so that the last ᾱ is that of 1,000 steps. `cosine`:
    cos²((t + .008) / 1.008 · π/2) (Nichol & Dhariwal 2021).

    Args:
        schedule: its name.
        steps: T.

    Raises:
        ConfigError: an unknown schedule, or fewer than two steps.

    Example:
        >>> [round(share, 6) for share in signal_shares("linear", 2000)[[99, 999]].tolist()]
        [0.942425, 0.006161]
    """
    if schedule not in SCHEDULES:
        raise ConfigError(f"There is no schedule '{schedule}'. {did_you_mean(schedule, SCHEDULES)}")
    if steps < 2:
        raise ConfigError(f"A schedule needs two steps or more, not {steps}.")
    if schedule == "cosine":
        ends = torch.arange(steps + 1, dtype=torch.float64) / steps
        whole = torch.cos((ends + 0.008) / 1.008 * math.pi / 2).square()
        betas = (1 - whole[1:] / whole[:-1]).clamp(max=_LARGEST)
    else:
        scale = 1000 / steps if schedule == "scaled" else 1.0
        betas = torch.linspace(scale * _FIRST, scale * _LAST, steps, dtype=torch.float64)
        if betas[-1] >= 1:
            raise ConfigError(f"The schedule 'scaled' needs more than {math.ceil(1000 * _LAST)} steps, not {steps}.")
    return torch.cumprod(1 - betas, dim=0)


def noised(
    vectors_BD: Float[Tensor, "B D"], noise_BD: Float[Tensor, "B D"], shares_B: Float[Tensor, " B"]
) -> Float[Tensor, "B D"]:
    """x_t = √ᾱ·x_0 + √(1 − ᾱ)·ε.

    Example:
        >>> noised(torch.tensor([[2.0]]), torch.tensor([[1.0]]), torch.tensor([0.36])).tolist()
        [[2.0]]
    """
    shares_B1 = shares_B[:, None].to(vectors_BD.dtype)
    return shares_B1.sqrt() * vectors_BD + (1 - shares_B1).sqrt() * noise_BD


@dataclass(frozen=True)
class SamplingGrid:
    """The times at which sampling calls the network, from the earliest to the noisiest.

    Attributes:
        times: what the network is told (G,).
        shares: ᾱ at these times (G,), fp64.
    """

    times: Int[Tensor, " G"]
    shares: Float[Tensor, " G"]


def sampling_grid(shares_T: Float[Tensor, " T"], points: int = 20, kind: str = "trained") -> SamplingGrid:
    """Evenly spaced times.

    `trained`, the default: 99, 199, …, 1999 for 20 points of 2,000 steps; the network gets the time whose ᾱ is used, as
    in training. `published`: 0, 100, …, 2000 (one point more); the network is told time 100·i but the noise is that of
    100·i − 1 (of time 0 for i = 0), and 2000 lies beyond what it was trained on. (We read the note's "0 for i = 0" as
    the time whose ᾱ is used.)

    Args:
        shares_T: ᾱ of every time.
        points: intervals of the grid; they must divide the steps.
        kind: see above.

    Raises:
        ConfigError: an unknown kind, or points that do not divide the steps.

    Example:
        >>> shares = signal_shares("linear", 2000)
        >>> [sampling_grid(shares, kind=kind).times[[0, 1, -1]].tolist() for kind in ("trained", "published")]
        [[99, 199, 1999], [0, 100, 2000]]
    """
    if kind not in ("trained", "published"):
        raise ConfigError(f"There is no grid '{kind}'. {did_you_mean(kind, ('trained', 'published'))}")
    steps = len(shares_T)
    if points < 1 or steps % points:
        raise ConfigError(f"{points} points do not divide {steps} steps. Give a divisor, such as {_divisor(steps)}.")
    if kind == "trained":
        times = torch.arange(1, points + 1) * (steps // points) - 1
        return SamplingGrid(times, shares_T[times])
    times = torch.arange(points + 1) * (steps // points)
    return SamplingGrid(times, shares_T[(times - 1).clamp(min=0)])


def _divisor(steps: int) -> int:
    return next(points for points in range(min(20, steps), 0, -1) if steps % points == 0)
