"""Emoji of 32 × 32 pixels with prompts, the larger of the two shipped sets of pictures."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float64, UInt8

from popmargin.data.images import decode, image_bytes
from popmargin.errors import DataError

SIZE = 32
CATEGORY = "Smileys & Emotion"
"""What the model `demo-emoji` draws: faces and hearts."""


@dataclass(frozen=True)
class Emoji:
    """Pictures of one category.

    Attributes:
        prompts: such as "noto red apple" (n,), each once.
        pixels: from 0 to 255, on white.
    """

    prompts: list[str]
    pixels: UInt8[np.ndarray, "n 32 32 3"]

    def __len__(self) -> int:
        return len(self.prompts)


def emoji_path() -> Path:
    """The Parquet file: prompt, style, name, category, license, and the image as `{bytes, path}`, PNG.

    Example:
        >>> import pyarrow.parquet as pq
        >>> pq.read_table(emoji_path())["prompt"][0].as_py()
        'noto 1st place medal'
    """
    return Path(__file__).parent / "emoji32.parquet"


@functools.cache
def load_emoji() -> Emoji:
    """The shipped pictures that the model `demo-emoji` is trained on.

    Example:
        >>> len(load_emoji()), load_emoji().prompts[0]
        (340, 'noto alien')
    """
    rows = pq.read_table(emoji_path(), columns=["prompt", "category", "image"]).to_pylist()
    kept = [row for row in rows if row["category"] == CATEGORY]
    return Emoji([row["prompt"] for row in kept], np.stack([decode(image_bytes(row["image"])) for row in kept]))


def as_pixels(images: Sequence[Any]) -> Float64[np.ndarray, "n 32 32 3"]:
    """Pictures (`PIL.Image.Image`) as numbers from 0 to 1.

    Raises:
        DataError: one is not of 32 × 32 pixels.
    """
    for number, image in enumerate(images):
        if image.size != (SIZE, SIZE):
            width, height = image.size
            raise DataError(
                f"Picture {number} has {width} × {height} pixels, the emoji {SIZE} × {SIZE}. Remedy: use the emoji's "
                "rewards with the model demo-emoji only."
            )
    pixels = [np.asarray(image.convert("RGB"), np.uint8) for image in images]
    return np.stack(pixels).astype(np.float64) / 255 if pixels else np.zeros((0, SIZE, SIZE, 3))
