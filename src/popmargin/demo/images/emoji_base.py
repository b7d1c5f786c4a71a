"""The larger base model of the image demo: a U-Net of 2.1 M parameters that draws emoji of 32 × 32 pixels.

It is a pipeline folder of diffusers without a VAE, as that of the digits, and trains for some minutes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from popmargin.demo.images.emoji import SIZE, load_emoji
from popmargin.demo.images.small_base import EMPTY_PROMPTS, made_once, train, untrained

RECIPE = 1
"""Raise it when anything here changes what is trained: models are cached by it."""
STEPS, BATCH, LEARNING_RATE, SEED = 800, 16, 3e-3, 0


def emoji_base_path() -> Path:
    """The folder of the base model; trained at the first call, with a progress bar, and kept in POPMARGIN_CACHE.

    Raises:
        MissingExtraError: diffusers is not installed.
    """

    def make() -> Any:
        pipeline = untrained_emoji()
        train_emoji(pipeline, progress=True)
        return pipeline

    return made_once(f"demo-emoji-{RECIPE}", make)


def untrained_emoji(seed: int = SEED) -> Any:
    """The pipeline with random weights: a token for each word of the prompts."""
    prompts = [prompt.lower().split() for prompt in load_emoji().prompts]
    unet = {
        "sample_size": SIZE,
        "block_out_channels": (16, 48, 96),
        "down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    }
    words = sorted({word for prompt in prompts for word in prompt})
    return untrained(unet, words, 2 + max(map(len, prompts)), seed)


def train_emoji(pipeline: Any, *, steps: int = STEPS, seed: int = SEED, progress: bool = False) -> list[float]:
    """Train U-Net and text encoder on the shipped pictures, one prompt in ten empty.

    Args:
        pipeline: of `untrained_emoji`, changed in place.
        steps: of 16 pictures each.
        seed: of pictures, times and noise.
        progress: show a progress bar.

    Returns:
        The loss of each step, the mean squared error of v.
    """
    title = "demo-emoji: training the base model, once" if progress else ""
    pictures = _batches(np.random.default_rng(seed))
    return train(pipeline, pictures, steps=steps, rate=LEARNING_RATE, seed=seed, title=title)


def _batches(numbers: np.random.Generator) -> Iterator[tuple[Tensor, list[str]]]:
    """Pictures (B, 3, 32, 32) from -1 to 1, and their prompts, without end."""
    emoji = load_emoji()
    while True:
        rows, empty = numbers.integers(len(emoji), size=BATCH), numbers.random(BATCH) < EMPTY_PROMPTS
        prompts = ["" if drop else emoji.prompts[row] for row, drop in zip(rows, empty, strict=True)]
        yield torch.from_numpy(emoji.pixels[rows]).float().movedim(-1, 1) / 127.5 - 1, prompts
