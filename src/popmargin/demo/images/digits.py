"""Coloured digits: 1,797 handwritten digits of 8 × 8 pixels in seven colours on black, with prompts such as "red 3"."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from popmargin.errors import DataError

SIZE = 8
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "cyan": (0, 1, 1),
    "magenta": (1, 0, 1),
    "white": (1, 1, 1),
}
"""Name -> red, green and blue, as shares of full light."""
_HELD_OUT = 5
_FILE = Path(__file__).parent / "digits8.npz"


@dataclass(frozen=True)
class Digits:
    """Handwritten digits.

    Attributes:
        light: (n, 8, 8), from 0 (background) to 1.
        labels: (n,), 0 to 9.
    """

    light: Float64[np.ndarray, "n 8 8"]
    labels: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.labels)


@functools.cache
def load_digits(*, held_out: bool = False) -> Digits:
    """The shipped digits: four in five to train on, or every fifth, held out for the classifier's test.

    Example:
        >>> len(load_digits()), len(load_digits(held_out=True))
        (1437, 360)
    """
    with np.load(_FILE) as file:
        light, labels = file["images"] / 16.0, file["labels"].astype(np.int64)
    chosen = (np.arange(len(labels)) % _HELD_OUT == 0) == held_out
    return Digits(light[chosen], labels[chosen])


def digit_prompts() -> list[str]:
    """The 70 prompts: every colour with every digit.

    Example:
        >>> digit_prompts()[:2], len(digit_prompts())
        (['red 0', 'red 1'], 70)
    """
    return [f"{colour} {digit}" for colour, digit in itertools.product(COLOURS, range(10))]


def read_prompt(prompt: object) -> tuple[str, int]:
    """Colour and digit of a prompt.

    Raises:
        DataError: it is not one of `digit_prompts`.

    Example:
        >>> read_prompt("red 3")
        ('red', 3)
    """
    colour, _, digit = prompt.strip().partition(" ") if isinstance(prompt, str) else ("", "", "")
    if colour not in COLOURS or digit not in map(str, range(10)):
        raise DataError(
            f"The prompt {str(prompt)[:40]!r} is not a colour and a digit, such as 'red 3'. Remedy: ask for one of "
            f"{', '.join(COLOURS)} and a digit, or use another reward."
        )
    return colour, int(digit)


def coloured(light: Float64[np.ndarray, "n 8 8"], colours: Sequence[str]) -> Float64[np.ndarray, "n 8 8 3"]:
    """Digits in their colours, from 0 to 1.

    Example:
        >>> coloured(np.ones((1, 8, 8)), ["cyan"])[0, 0, 0].tolist()
        [0.0, 1.0, 1.0]
    """
    return light[..., None] * np.array([COLOURS[name] for name in colours], np.float64)[:, None, None]


def as_pixels(images: Sequence[Any]) -> Float64[np.ndarray, "n 8 8 3"]:
    """Pictures (`PIL.Image.Image`) as numbers from 0 to 1.

    Raises:
        DataError: one is not of 8 × 8 pixels.
    """
    for number, image in enumerate(images):
        if image.size != (SIZE, SIZE):
            width, height = image.size
            raise DataError(
                f"Picture {number} has {width} × {height} pixels, the digits {SIZE} × {SIZE}. Remedy: use the digits' "
                "rewards with the model demo-digits only."
            )
    pixels = [np.asarray(image.convert("RGB"), np.uint8) for image in images]
    return np.stack(pixels).astype(np.float64) / 255 if pixels else np.zeros((0, SIZE, SIZE, 3))


def as_pictures(pixels: Float64[np.ndarray, "n 8 8 3"]) -> UInt8[np.ndarray, "n 8 8 3"]:
    """Numbers from 0 to 1 as bytes from 0 to 255; what is outside is clipped."""
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
