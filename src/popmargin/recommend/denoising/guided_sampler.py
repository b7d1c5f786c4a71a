"""Sampling of item vectors: deterministic steps (DDIM) with guidance, and noise that is fixed for each user.

Axis suffixes: B rows, D dimensions, G grid points.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from popmargin.recommend.denoising.noise_levels import SamplingGrid

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From x_t (B, D), states (B, D) and times (B,) to x̂_0 (B, D)."""


def guided(
    predict: Predict,
    noised_BD: Float[Tensor, "B D"],
    states_BD: Float[Tensor, "B D"],
    null_D: Float[Tensor, " D"],
    times_B: Int[Tensor, " B"],
    guidance: float,
) -> Float[Tensor, "B D"]:
    """x̂_0 = (1 + w)·f(x, h, t) − w·f(x, ∅, t): the state counts more; with w = 0 the null state is not asked."""
    with_state_BD = predict(noised_BD, states_BD, times_B)
    if guidance == 0:
        return with_state_BD
    without_BD = predict(noised_BD, null_D.expand_as(states_BD), times_B)
    return (1 + guidance) * with_state_BD - guidance * without_BD


def sample_vectors(
    predict: Predict,
    states_BD: Float[Tensor, "B D"],
    null_D: Float[Tensor, " D"],
    noise_BD: Float[Tensor, "B D"],
    grid: SamplingGrid,
    *,
    guidance: float = 2.0,
) -> Float[Tensor, "B D"]:
    """The next item's vectors, from noise.

    From the noisiest grid point on, x ← √ᾱ'·x̂_0 + √(1 − ᾱ')·ε̂ with ε̂ = (x − √ᾱ·x̂_0) / √(1 − ᾱ) and ᾱ' of the next
    point; the prediction at the last point is the result. Rows do not depend on each other.

    Args:
        predict: the denoiser.
        states_BD: of the histories.
        null_D: the null state.
        noise_BD: x at the noisiest point.
        grid: when the denoiser is asked.
        guidance: w.

    Example:
        >>> from popmargin.recommend.denoising.noise_levels import sampling_grid, signal_shares
        >>> grid = sampling_grid(signal_shares("linear", 2000))
        >>> always = lambda noised, states, times: states  # a denoiser that has learned h
        >>> sample_vectors(always, torch.ones(1, 2), torch.zeros(2), torch.randn(1, 2), grid, guidance=2.0).tolist()
        [[3.0, 3.0]]
    """
    x_BD = noise_BD
    predicted_BD = x_BD
    for point in range(len(grid.times) - 1, -1, -1):
        times_B = grid.times[point].to(x_BD.device).expand(len(x_BD))
        predicted_BD = guided(predict, x_BD, states_BD, null_D, times_B, guidance)
        if point:
            share, following = float(grid.shares[point]), float(grid.shares[point - 1])
            noise_BD = (x_BD - share**0.5 * predicted_BD) / (1 - share) ** 0.5
            x_BD = following**0.5 * predicted_BD + (1 - following) ** 0.5 * noise_BD
    return predicted_BD


def fixed_noise(users: Sequence[str], dimension: int, *, seed: int = 0, draw: int = 0) -> Float[Tensor, "B D"]:
    """Normal noise that depends only on user, seed and number of the draw, not on the batch.

    Example:
        >>> both, one = fixed_noise(["ann", "bob"], 3), fixed_noise(["bob"], 3)
        >>> torch.equal(both[1:], one), torch.equal(one, fixed_noise(["bob"], 3, draw=1))
        (True, False)
    """
    rows: list[np.ndarray] = []
    for user in users:
        key = hashlib.blake2b(f"{seed}\x1f{draw}\x1f{user}".encode(), digest_size=16).digest()
        bits = np.random.Philox(key=np.frombuffer(key, dtype=np.uint64))
        rows.append(np.random.Generator(bits).standard_normal(dimension, dtype=np.float32))
    return torch.from_numpy(np.stack(rows)) if rows else torch.zeros(0, dimension)
