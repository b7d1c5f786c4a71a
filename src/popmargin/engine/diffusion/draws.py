"""The times and the noise of pairs of images: of each pair alone, whatever it is batched with.

A pair's draw depends on a seed and the pair's key. So a pair has the same draw in a batch of any size, in any process,
in a resumed run, and under every model: policy, reference and target. Both images of a pair share time and noise.

Axis suffix P: pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Draws:
    """What is drawn for some pairs.

    Attributes:
        times: (P,), whole numbers from 0 on.
        chosen: noise of the chosen images (P, …).
        rejected: noise of the rejected images (P, …); that of the chosen ones unless it is drawn independently.
        empty: pairs with the empty prompt (P,).
    """

    times: Int[Tensor, "P"]
    chosen: Float[Tensor, "P ..."]
    rejected: Float[Tensor, "P ..."]
    empty: Bool[Tensor, "P"]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How pairs are drawn.

    Attributes:
        times: T; times are uniform over 0 … T − 1.
        shape: of an image.
        independent: other noise for the rejected image.
        one_time: the same time for all pairs that are drawn with one seed.
        empty: share of pairs with the empty prompt.
    """

    times: int
    shape: tuple[int, ...]
    independent: bool = False
    one_time: bool = False
    empty: float = 0.0


def pair_key(name: str) -> int:
    """The key of a pair, from its id: 63 bits.

    Example:
        >>> pair_key("p001") == pair_key("p001"), pair_key("p001") == pair_key("p002")
        (True, False)
    """
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1


def draw(
    keys: Sequence[int] | np.ndarray, seed: int, drawing: Drawing, *, part: tuple[int | np.ndarray, int] | None = None
) -> Draws:
    """Times and noise of pairs.

    Args:
        keys: of the pairs (P,).
        seed: one for each optimizer step; any for draws that stay the same.
        drawing: how they are drawn.
        part: (k, K) draws times from the k-th of K equal parts of all times, with noise of its own: together, K draws
            cover all times evenly. k is one number, or one for each pair (P,). None draws from all.

    Example:
        >>> drawing = Drawing(times=1000, shape=(2,))
        >>> both, alone = draw([7, 8], 0, drawing), draw([8], 0, drawing)
        >>> torch.equal(both.chosen[1:], alone.chosen), torch.equal(both.chosen, both.rejected)
        (True, True)
    """
    place, parts = part or (0, 1)
    places = np.broadcast_to(place, len(keys))
    numbers = torch.empty(len(keys), 2, dtype=torch.float64)
    noise = torch.empty(len(keys), 1 + drawing.independent, *drawing.shape)
    for row, key in enumerate(keys):
        random = _generator(seed, int(key), int(places[row]), parts)
        numbers[row] = torch.rand(2, generator=random, dtype=torch.float64)
        noise[row] = torch.randn(noise.shape[1:], generator=random)
    if drawing.one_time:
        numbers[:, 0] = torch.rand((), generator=_generator(seed, parts), dtype=torch.float64)
    share = (numbers[:, 0] + torch.from_numpy(places.copy())) / parts
    times = (share * drawing.times).long().clamp(max=drawing.times - 1)
    return Draws(times, noise[:, 0], noise[:, -1], numbers[:, 1] < drawing.empty)


def _generator(*numbers: int) -> torch.Generator:
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def one_of(keys: Sequence[int] | np.ndarray, seed: int, count: int) -> np.ndarray:
    """For each pair (P,), which of `count` fixed draws is used with this seed."""
    return np.array([np.random.default_rng((seed, int(key))).integers(count) for key in keys], dtype=np.int64)
