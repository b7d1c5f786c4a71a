"""Exact rewards of pictures of 32 × 32 pixels, and how far a picture is from the emoji that its prompt names.

Each is a function (prompts, images) -> floats, to be named in a configuration:
`evaluation.reward: popmargin.demo.images.emoji_rewards:redness`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from popmargin.demo.images.emoji import as_pixels, load_emoji
from popmargin.errors import DataError


def redness(prompts: Sequence[object], images: Sequence[Any]) -> list[float]:
    """How much more red a picture has than green and blue, the mean of max(0, R − (G + B)/2) from 0 to 1; 0 for white.

    Example:
        >>> from PIL import Image
        >>> redness(["noto red heart"] * 2, [Image.new("RGB", (32, 32), colour) for colour in ("red", "white")])
        [1.0, 0.0]
    """
    return redness_of(as_pixels(images)).tolist()


def redness_of(pixels: Float64[np.ndarray, "n 32 32 3"]) -> Float64[np.ndarray, " n"]:
    """The redness of pictures from 0 to 1."""
    return np.maximum(pixels[..., 0] - pixels[..., 1:].mean(-1), 0).mean((1, 2))


def symmetry(prompts: Sequence[object], images: Sequence[Any]) -> list[float]:
    """Minus the mean difference between a picture and its mirror image: 0 if left and right are equal.

    Example:
        >>> from PIL import Image
        >>> symmetry(["noto red heart"], [Image.new("RGB", (32, 32), "red")])
        [0.0]
    """
    pixels = as_pixels(images)
    return (0.0 - np.abs(pixels - pixels[:, :, ::-1]).mean((1, 2, 3))).tolist()


def fidelity(prompts: Sequence[object], images: Sequence[Any]) -> list[float]:
    """Minus the distance to the emoji that the prompt names: 0 for that emoji.

    The distance is the root of the mean squared difference of all channels, from 0 to 1. Ours.

    Raises:
        DataError: a prompt that names none, or another size.
    """
    emoji = load_emoji()
    places = {prompt: place for place, prompt in enumerate(emoji.prompts)}
    for prompt in prompts:
        if prompt not in places:
            raise DataError(
                f"The prompt {str(prompt)[:40]!r} names none of the {len(emoji)} emoji that demo-emoji draws. Remedy: "
                f"ask for one, such as {emoji.prompts[0]!r}, or use another reward."
            )
    real = emoji.pixels[[places[str(prompt)] for prompt in prompts]] / 255.0
    return (0.0 - np.sqrt(((real - as_pixels(images)) ** 2).mean((1, 2, 3)))).tolist()
