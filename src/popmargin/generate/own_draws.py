"""Random numbers that belong to one response, so that what is sampled does not depend on what else is in the batch.

Axis suffixes: B completions of a batch, V vocabulary, T tokens of the longest completion.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int
from torch import Tensor
from transformers import LogitsProcessor

from popmargin.generate.drawn import Drawn


def uniforms(seed: int, key: str, number: int, count: int) -> Float64[np.ndarray, " T"]:
    """The random numbers of one completion, uniform over [0, 1): one for each token, more for a longer limit.

    Args:
        seed: of the sampling.
        key: says which prompt it is, as `prompt_key` does.
        number: of the completion among those of the prompt.
        count: tokens of the longest completion.
    """
    return _generator(seed, key, number).random(count)


def noise(seed: int, key: str, number: int, shape: tuple[int, ...]) -> Float32[np.ndarray, "..."]:
    """The standard normal noise that one image begins as, of this shape; arguments as in `uniforms`.

    Example:
        >>> first, again = noise(0, "red 3", 1, (3, 2, 2)), noise(0, "red 3", 1, (3, 2, 2))
        >>> bool((first == again).all()), bool((first == noise(0, "red 3", 2, (3, 2, 2))).any())
        (True, False)
    """
    return _generator(seed, key, number).standard_normal(shape, dtype=np.float32)


def _generator(seed: int, key: str, number: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}\x1f{number}\x1f{key}".encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def token_probabilities(logits_BV: Float[Tensor, "B V"], drawn: Drawn) -> Float64[Tensor, "B V"]:
    """Probabilities of the next token under temperature, top-k and top-p, applied in this order.

    top-p keeps a token if those that are more likely hold less than p together.

    Args:
        logits_BV: of the model (B, V).
        drawn: the settings; its temperature is above 0.

    Example:
        >>> token_probabilities(torch.tensor([[2.0, 1.0, 0.0]]), Drawn(top_k=2)).round(decimals=3).tolist()
        [[0.731, 0.269, 0.0]]
    """
    scaled_BV = logits_BV.double() / drawn.temperature
    if drawn.top_k:
        least_B1 = scaled_BV.topk(min(drawn.top_k, scaled_BV.shape[-1])).values[:, -1:]
        scaled_BV = scaled_BV.masked_fill(scaled_BV < least_B1, -torch.inf)
    if drawn.top_p < 1:
        sorted_BV, order_BV = scaled_BV.sort(descending=True, stable=True)
        mass_BV = sorted_BV.softmax(-1)
        cut_BV = mass_BV.cumsum(-1) - mass_BV >= drawn.top_p
        scaled_BV = scaled_BV.masked_fill(torch.zeros_like(cut_BV).scatter(1, order_BV, cut_BV), -torch.inf)
    return scaled_BV.softmax(-1)


def choose_tokens(chances_BV: Float64[Tensor, "B V"], uniforms_B: Float64[Tensor, " B"]) -> Int[Tensor, " B"]:
    """The token at which the summed probabilities pass a row's random number (B,): a draw with these probabilities.

    Example:
        >>> choose_tokens(torch.tensor([[0.2, 0.0, 0.8]] * 2).double(), torch.tensor([0.1, 0.2]).double()).tolist()
        [0, 2]
    """
    sums_BV = chances_BV.cumsum(-1)
    wanted_B1 = uniforms_B[:, None] * sums_BV[:, -1:]
    found_B = torch.searchsorted(sums_BV, wanted_B1, right=True).squeeze(-1)
    return found_B.minimum((sums_BV < sums_BV[:, -1:]).sum(-1))  # rounding must not lead past the last possible one


class OwnDraws(LogitsProcessor):
    """Draws the next token of every row with the row's own random numbers, and leaves `generate` no other to take.

    Args:
        drawn: the settings.
        rows: random numbers (T,) of each row.
        start: tokens of the padded prompts.
        device: of the logits.
    """

    def __init__(self, drawn: Drawn, rows: Sequence[np.ndarray], start: int, device: torch.device) -> None:
        self._drawn = drawn
        self._uniforms_BT = torch.from_numpy(np.stack(rows)).to(device)
        self._start = start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        chances_BV = token_probabilities(scores, self._drawn)
        token_B = choose_tokens(chances_BV, self._uniforms_BT[:, input_ids.shape[1] - self._start])
        return torch.full_like(scores, -torch.inf).scatter(1, token_B[:, None], 0.0)
