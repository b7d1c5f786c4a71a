"""The base model of the image demo: a small U-Net that draws coloured digits, trained in about a minute.

It is a pipeline folder of diffusers without a VAE, so that its latents are the pixels, from -1 to 1:
`DiffusionPipeline.from_pretrained(folder, vae=None)("red 3", guidance_scale=1, output_type="latent")` draws one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from popmargin.demo.images.digits import COLOURS, SIZE, coloured, load_digits
from popmargin.demo.images.small_base import EMPTY_PROMPTS, made_once, train, untrained

RECIPE = 1
"""Raise it when anything here changes what is trained: models are cached by it."""
STEPS, BATCH, LEARNING_RATE, SEED = 1200, 64, 4e-3, 0
_WORDS = 4


def digits_base_path() -> Path:
    """The folder of the base model; trained at the first call, with a progress bar, and kept in POPMARGIN_CACHE.

    Raises:
        MissingExtraError: diffusers is not installed.
    """

    def make() -> Any:
        pipeline = untrained_pipeline()
        train_base(pipeline, progress=True)
        return pipeline

    return made_once(f"demo-digits-{RECIPE}", make)


def untrained_pipeline(seed: int = SEED) -> Any:
    """The pipeline with random weights: U-Net of 0.5 M parameters, a token for each colour and digit."""
    unet = {
        "sample_size": SIZE,
        "block_out_channels": (16, 48),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    return untrained(unet, [*COLOURS, *map(str, range(10))], _WORDS, seed)


def train_base(pipeline: Any, *, steps: int = STEPS, seed: int = SEED, progress: bool = False) -> list[float]:
    """Train U-Net and text encoder on the shipped digits in random colours, one prompt in ten empty.

    Args:
        pipeline: of `untrained_pipeline`, changed in place.
        steps: of 64 pictures each.
        seed: of pictures, colours, times and noise.
        progress: show a progress bar.

    Returns:
        The loss of each step, the mean squared error of v.
    """
    title = "demo-digits: training the base model, once" if progress else ""
    pictures = _batches(np.random.default_rng(seed))
    return train(pipeline, pictures, steps=steps, rate=LEARNING_RATE, seed=seed, title=title)


def _batches(numbers: np.random.Generator) -> Iterator[tuple[Tensor, list[str]]]:
    """Pictures (B, 3, 8, 8) from -1 to 1, and their prompts, without end."""
    digits, names = load_digits(), list(COLOURS)
    while True:
        rows, colours = numbers.integers(len(digits), size=BATCH), numbers.integers(len(names), size=BATCH)
        chosen = [names[place] for place in colours]
        empty = numbers.random(BATCH) < EMPTY_PROMPTS
        prompts = [
            "" if drop else f"{name} {digit}"
            for drop, name, digit in zip(empty, chosen, digits.labels[rows], strict=True)
        ]
        yield torch.from_numpy(coloured(digits.light[rows], chosen)).float().movedim(-1, 1) * 2 - 1, prompts
