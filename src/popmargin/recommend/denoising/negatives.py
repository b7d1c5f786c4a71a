"""Negative vectors of a batch: the other rows' targets.

Axis suffixes: B rows, D dimensions, K negatives of a row.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from popmargin.errors import ConfigError, did_you_mean

Negatives = Literal["centroid", "hardest", "random"]
NEGATIVES: tuple[Negatives, ...] = ("centroid", "hardest", "random")


def other_targets(targets_B: Int[Tensor, " B"]) -> Bool[Tensor, "B B"]:
    """Which targets of the batch may be negatives of which row: those of other items.

    Another user's row with the same target is masked too: the target is not its own negative (ours).

    Example:
        >>> other_targets(torch.tensor([7, 8, 7])).tolist()
        [[False, True, False], [True, False, True], [False, True, False]]
    """
    return targets_B[:, None] != targets_B[None, :]


def negative_vectors(
    kind: str,
    targets_B: Int[Tensor, " B"],
    vectors_BD: Float[Tensor, "B D"],
    *,
    count: int = 1,
    predicted_BD: Float[Tensor, "B D"] | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Float[Tensor, "B K D"], Bool[Tensor, " B"]]:
    """Negatives of every row, and which rows have any.

    `centroid`, as published (but for the mask): the mean of the other targets' vectors. Of 255 random vectors it is
    nearly zero and nearly the same for all rows. `hardest` (ours): the other target whose vector has the largest inner
    product with the prediction, which is how items are ranked. `random` (ours): K other targets, drawn with
    replacement.

    Args:
        kind: see above.
        targets_B: item numbers.
        vectors_BD: their vectors.
        predicted_BD: the denoiser's prediction for each row, for `hardest`; it gets no gradient from the choice.
        count: K of `random`.
        generator: random numbers of `random`.

    Returns:
        The negatives, zeros for rows without any (all targets of the batch are the same, as with one row), and a mask.

    Raises:
        ConfigError: an unknown kind, or a count below 1.

    Example:
        >>> vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        >>> found, some = negative_vectors("centroid", torch.tensor([7, 8, 7]), vectors)
        >>> found[:, 0].tolist(), some.tolist()
        ([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], [True, True, True])
    """
    if kind not in NEGATIVES or count < 1:
        raise ConfigError(f"negatives are '{kind}', {count} of them. {did_you_mean(kind, NEGATIVES)}")
    allowed_BB = other_targets(targets_B)
    some_B = allowed_BB.any(dim=1)
    if kind == "centroid":
        weights_BB = allowed_BB.to(vectors_BD.dtype)
        return ((weights_BB @ vectors_BD) / weights_BB.sum(dim=1, keepdim=True).clamp(min=1))[:, None], some_B
    if kind == "hardest":
        if predicted_BD is None:
            raise ConfigError("negatives: 'hardest' needs the predictions.")
        products_BB = predicted_BD.detach() @ vectors_BD.detach().T
        places_BK = products_BB.masked_fill(~allowed_BB, -torch.inf).argmax(dim=1, keepdim=True)
    else:
        weights_BB = torch.where(some_B[:, None], allowed_BB, torch.ones_like(allowed_BB)).to(torch.float32)
        places_BK = torch.multinomial(weights_BB, count, replacement=True, generator=generator)
    return vectors_BD[places_BK] * some_B[:, None, None], some_B
