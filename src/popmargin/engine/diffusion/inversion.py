"""Inversion: the noise from which a model's own deterministic way leads to an image (SmPO, Lu et al. 2025).

From x_0 through levels 0 < s_1 < … < s_n = t, without gradient and guidance: with ε̂ at z,

    z' = a'·(z − s·ε̂)/a + s'·ε̂.

ReNoise refines a step once: ε̂₂ at z', then the step again from z with (ε̂ + ε̂₂)/2. The noise that the loss then predicts
is τ = (x̃_t − a_t·x_0)/s_t.

Axis suffixes: B images, K levels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from popmargin.engine.diffusion.predictions import Levels
from popmargin.engine.diffusion.schedules import CLEAN, Schedule, spread

Predict = Callable[[Tensor, Tensor], Tensor]
"""ε̂ of noisy images (B, …) at times (B,)."""


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """How images are inverted.

    Attributes:
        steps: at most this many; images at a time below it take fewer, but at least one.
        renoise: refine every step once.
        renoise_time: the time of the second prediction: that of the `earlier` level, as in the authors' code, or of
            the `later` one.
        grid: `exact` levels end at the time of the loss; `published` ones at the last point of diffusers' inverse DDIM
            grid that is not above it, so that times below the second point are hardly inverted.
    """

    steps: int
    renoise: bool = True
    renoise_time: Literal["earlier", "later"] = "earlier"
    grid: Literal["exact", "published"] = "exact"


def inversion_levels(
    times_B: Int[Tensor, "B"], count: int, steps: int, grid: Literal["exact", "published"] = "exact"
) -> Int[Tensor, "K B"]:
    """The levels of each image's way, from `CLEAN` to its last one (steps + 1, B); a level twice means no step.

    Args:
        times_B: times of the loss.
        count: T.
        steps: at most this many.
        grid: see `Inversion`.

    Example:
        >>> inversion_levels(torch.tensor([999, 1, 0]), 1000, 5).T.tolist()
        [[-1, 199, 399, 599, 799, 999], [-1, -1, 0, 0, 1, 1], [-1, -1, -1, 0, 0, 0]]
        >>> inversion_levels(torch.tensor([999, 399, 200]), 1000, 5, "published").T.tolist()
        [[-1, 1, 201, 401, 601, 801], [-1, 1, 201, 201, 201, 201], [-1, 1, 1, 1, 1, 1]]
    """
    numbers_K = torch.arange(steps + 1, device=times_B.device)[:, None]
    if grid == "exact":
        return torch.div(numbers_K * (times_B + 1) * 2 + steps, 2 * steps, rounding_mode="floor") + CLEAN
    points_K = (numbers_K - 1) * (count // steps) + 1
    last_B = torch.div(times_B - 1, count // steps, rounding_mode="floor").clamp(min=0) * (count // steps) + 1
    return torch.where(numbers_K == 0, torch.full_like(last_B, CLEAN), torch.minimum(points_K, last_B))


def ddim_step(
    images: Float[Tensor, "B ..."], noise: Float[Tensor, "B ..."], before: Levels, after: Levels
) -> Float[Tensor, "B ..."]:
    """Images moved from one level to another along predicted noise: a'·(z − s·ε̂)/a + s'·ε̂."""
    clean = (images - spread(before.noise, images) * noise) / spread(before.signal, images)
    return spread(after.signal, images) * clean + spread(after.noise, images) * noise


@torch.no_grad()
def invert(
    images: Float[Tensor, "B ..."], times_B: Int[Tensor, "B"], predict: Predict, schedule: Schedule, how: Inversion
) -> Float[Tensor, "B ..."]:
    """x̃_t of images, each at its own time.

    Args:
        images: x_0.
        times_B: times of the loss.
        predict: ε̂ of noisy images at times.
        schedule: the model's.
        how: steps and refinement.
    """
    levels_K = inversion_levels(times_B, len(schedule), how.steps, how.grid)
    for earlier_B, later_B in pairwise(levels_K):
        before, after = Levels(*schedule.levels(earlier_B)), Levels(*schedule.levels(later_B))
        noise = predict(images, earlier_B.clamp(min=0))
        moved = ddim_step(images, noise, before, after)
        if how.renoise:
            time_B = earlier_B if how.renoise_time == "earlier" else later_B
            again = predict(moved, time_B.clamp(min=0))
            moved = ddim_step(images, (noise + again) / 2, before, after)
        images = torch.where(spread((later_B > earlier_B).double(), images) > 0, moved, images)
    return images


def inverted_noise(
    inverted: Float[Tensor, "B ..."], images: Float[Tensor, "B ..."], levels: Levels
) -> Float[Tensor, "B ..."]:
    """τ, the noise with which x̃_t = a·x_0 + s·τ."""
    return (inverted - spread(levels.signal, images) * images) / spread(levels.noise, images)
