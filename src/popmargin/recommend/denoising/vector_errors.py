"""How far a predicted vector is from an item's: the errors ℓ of PreferDiff.

Axis suffixes: B rows, D dimensions.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from popmargin.errors import ConfigError, did_you_mean

VectorError = Literal["squared_cosine", "cosine", "mse"]
VECTOR_ERRORS: tuple[VectorError, ...] = ("squared_cosine", "cosine", "mse")
_TINY = 1e-8  # no vector has a direction below this length


def vector_error(kind: str, target_BD: Float[Tensor, "B D"], predicted_BD: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
    """The error of each row (B,).

    `squared_cosine`, as published: (1 − cos)². `cosine`: 1 − cos. `mse`: the squared difference, its mean over
    dimensions.

    Args:
        kind: which error.
        target_BD: the item's vectors.
        predicted_BD: the denoiser's.

    Raises:
        ConfigError: an unknown error.

    Example:
        >>> a, b = torch.tensor([[1.0, 2.0, 2.0]]), torch.tensor([[2.0, 0.0, 1.0]])
        >>> [round(vector_error(kind, a, b).item(), 6) for kind in ("squared_cosine", "cosine", "mse")]
        [0.162986, 0.403715, 2.0]
    """
    if kind not in VECTOR_ERRORS:
        raise ConfigError(f"There is no error '{kind}'. {did_you_mean(kind, VECTOR_ERRORS)}")
    if kind == "mse":
        return (target_BD - predicted_BD).square().mean(dim=1)
    apart_B = 1 - torch.nn.functional.cosine_similarity(target_BD, predicted_BD, dim=1, eps=_TINY)
    return apart_B.square() if kind == "squared_cosine" else apart_B
