"""Exact rewards of pictures of 8 × 8 pixels, and how far a picture is from real digits.

Each is a function (prompts, images) -> floats, to be named in a configuration:
`evaluation.reward: popmargin.demo.images.digit_rewards:ink`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from popmargin.demo.images.digits import as_pixels, coloured, load_digits, read_prompt


def ink(prompts: Sequence[object], images: Sequence[Any]) -> list[float]:
    """The mean light of a picture, from 0 to 1; a pixel's light is that of its brightest channel.

    Example:
        >>> from PIL import Image
        >>> ink(["red 3"], [Image.new("RGB", (8, 8), (255, 0, 0))])
        [1.0]
    """
    return as_pixels(images).max(-1).mean((1, 2)).tolist()


def red_share(prompts: Sequence[object], images: Sequence[Any]) -> list[float]:
    """The share of a picture's light that is red, from 0 to 1, whatever its prompt; 0 for a black one.

    Example:
        >>> from PIL import Image
        >>> red_share(["cyan 3"], [Image.new("RGB", (8, 8), (255, 255, 0))])
        [0.5]
    """
    light = as_pixels(images).sum((1, 2))
    return (light[:, 0] / np.maximum(light.sum(1), 1e-9)).tolist()


def symmetry(prompts: Sequence[object], images: Sequence[Any]) -> list[float]:
    """Minus the mean difference in light between a picture and its mirror image: 0 if left and right are equal.

    Example:
        >>> from PIL import Image
        >>> symmetry(["red 3"], [Image.new("RGB", (8, 8), (255, 0, 0))])
        [0.0]
    """
    light = as_pixels(images).max(-1)
    return (0.0 - np.abs(light - light[:, :, ::-1]).mean((1, 2))).tolist()


def fidelity(prompts: Sequence[object], images: Sequence[Any]) -> list[float]:
    """Minus the distance to the nearest real digit of the prompt, in its colour: 0 for one of these.

    The distance is the root of the mean squared difference of all channels, from 0 to 1. Ours.

    Raises:
        DataError: another prompt, or another size.
    """
    digits, pixels = load_digits(), as_pixels(images)
    found: list[float] = []
    for prompt, image in zip(prompts, pixels, strict=True):
        colour, digit = read_prompt(prompt)
        light = digits.light[digits.labels == digit]
        real = coloured(light, [colour] * len(light))
        found.append(0.0 - float(np.sqrt(((real - image) ** 2).mean((1, 2, 3)).min())))
    return found


def background(prompts: Sequence[object], images: Sequence[Any]) -> list[float]:
    """Minus the mean light where the shipped digits have next to none, the left and the right column. Ours.

    Example:
        >>> from PIL import Image
        >>> background(["red 3"], [Image.new("RGB", (8, 8), (255, 0, 0))])
        [-1.0]
    """
    return (0.0 - as_pixels(images).max(-1)[:, :, [0, -1]].mean((1, 2))).tolist()
