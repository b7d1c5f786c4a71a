"""Whether a picture still shows its prompt: which digit by kernel ridge regression on real ones, which colour by light.

Nothing is stored: solving for the weights takes a tenth of a second.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from popmargin.demo.images.digits import COLOURS, as_pixels, load_digits, read_prompt

_GAMMA = 3.2  # of the kernel exp(-γ·‖a − b‖²), between digits of unit norm
_RIDGE = 0.1


def prompt_kept(prompts: Sequence[object], images: Sequence[Any]) -> list[float]:
    """1 for each picture with its prompt's digit in its prompt's colour, otherwise 0.

    Args:
        prompts: such as "red 3".
        images: `PIL.Image.Image` of 8 × 8 pixels.

    Raises:
        DataError: another prompt, or another size.
    """
    asked = [read_prompt(prompt) for prompt in prompts]
    pixels = as_pixels(images)
    shown = zip(colour_of(pixels), digit_of(pixels.max(-1)), strict=True)
    return [float(found == wanted) for found, wanted in zip(shown, asked, strict=True)]


def digit_of(light: Float64[np.ndarray, "n 8 8"]) -> list[int]:
    """The digit that each picture's light is most like, however bright it is."""
    known, weights = _fitted()
    return np.argmax(_kernel(_unit(light), known) @ weights, axis=1).tolist() if len(light) else []


def colour_of(pixels: Float64[np.ndarray, "n 8 8 3"]) -> list[str]:
    """The colour nearest to that of each picture's light as a whole; bright pixels count more."""
    total = (pixels * pixels.max(-1, keepdims=True)).sum((1, 2))
    whole = total / np.maximum(total.max(-1, keepdims=True), 1e-9)
    names, known = list(COLOURS), np.array(list(COLOURS.values()), np.float64)
    return [names[place] for place in ((whole[:, None] - known) ** 2).sum(-1).argmin(-1)]


@functools.cache
def _fitted() -> tuple[Float64[np.ndarray, "n 64"], Float64[np.ndarray, "n 10"]]:
    digits = load_digits()
    known = _unit(digits.light)
    targets = np.eye(10)[digits.labels] * 2 - 1
    return known, np.linalg.solve(_kernel(known, known) + _RIDGE * np.eye(len(known)), targets)


def _unit(light: np.ndarray) -> np.ndarray:
    flat = light.reshape(len(light), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.exp(_GAMMA * (2 * a @ b.T - (a * a).sum(1)[:, None] - (b * b).sum(1)))


def confusion(labels: Int64[np.ndarray, " n"], found: Sequence[int]) -> Int64[np.ndarray, "10 10"]:
    """How often each digit (row) is taken for each (column)."""
    table = np.zeros((10, 10), np.int64)
    np.add.at(table, (labels, np.asarray(found)), 1)
    return table
