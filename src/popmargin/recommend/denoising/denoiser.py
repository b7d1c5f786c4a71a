"""The denoiser: from a noised vector, the state of a history and the time to the item's vector.

Axis suffixes: B rows, D dimensions.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from popmargin.errors import ConfigError


def time_features(times_B: Int[Tensor, " B"], dimension: int) -> Float[Tensor, "B D"]:
    """Sines and cosines of a time at frequencies from 1 down to 1e-4.

    Example:
        >>> time_features(torch.tensor([0]), 4).tolist()
        [[0.0, 0.0, 1.0, 1.0]]
    """
    half = dimension // 2
    rates = torch.exp(torch.arange(half, device=times_B.device) * (-math.log(10_000) / max(half - 1, 1)))
    angles = times_B[:, None].to(torch.float32) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Denoiser(nn.Module):
    """Predicts x_0 from [x_t, h, t].

    Args:
        dimension: D, even.
        hidden: widths of hidden layers (GELU); none is the public code's single linear map of 3·D numbers.

    Example:
        >>> denoiser = Denoiser(4)
        >>> denoiser(torch.zeros(2, 4), torch.zeros(2, 4), torch.tensor([0, 5])).shape
        torch.Size([2, 4])
    """

    def __init__(self, dimension: int, hidden: Sequence[int] = ()) -> None:
        super().__init__()
        if dimension % 2 or dimension < 2 or any(width < 1 for width in hidden):
            raise ConfigError(f"The dimension must be even and widths 1 or more, not {dimension} and {hidden}.")
        self.dimension = dimension
        self.time = nn.Sequential(nn.Linear(dimension, 2 * dimension), nn.GELU(), nn.Linear(2 * dimension, dimension))
        widths = (3 * dimension, *hidden, dimension)
        layers: list[nn.Module] = []
        for place, (into, out) in enumerate(itertools.pairwise(widths)):
            layers += [nn.GELU(), nn.Linear(into, out)] if place else [nn.Linear(into, out)]
        self.layers = nn.Sequential(*layers)

    def forward(
        self, noised_BD: Float[Tensor, "B D"], states_BD: Float[Tensor, "B D"], times_B: Int[Tensor, " B"]
    ) -> Float[Tensor, "B D"]:
        """The predicted vectors x̂_0."""
        time_BD = self.time(time_features(times_B, self.dimension).to(noised_BD.dtype))
        return self.layers(torch.cat([noised_BD, states_BD, time_BD], dim=1))
