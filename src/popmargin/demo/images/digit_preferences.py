"""Preferences between pictures of the digits' base model: of two to a prompt, the one with more ink is chosen."""

from pathlib import Path
from typing import Any

import numpy as np

from popmargin.demo.images.digit_base import RECIPE as BASE
from popmargin.demo.images.digit_base import digits_base_path
from popmargin.demo.images.digits import digit_prompts
from popmargin.demo.images.picture_pairs import own_pairs, pairs_once

RECIPE = 1
PAIRS, SEED = 840, 1
"""Of pairs (twelve for each prompt), and of their noise."""


def digits_data_path() -> Path:
    """The preferences as Parquet; drawn at the first call, with a progress bar, and kept in POPMARGIN_CACHE.

    Raises:
        MissingExtraError: diffusers is not installed.
    """

    def make(pipeline: Any) -> list[dict[str, Any]]:
        return digit_pairs(pipeline, pairs=PAIRS, progress=True)

    return pairs_once(f"demo-digits-{BASE}-pairs-{RECIPE}.parquet", digits_base_path, make)


def digit_pairs(pipeline: Any, *, pairs: int = PAIRS, seed: int = SEED, progress: bool = False) -> list[dict[str, Any]]:
    """Rows of preferences with the amounts of ink as ratings; the prompts take turns.

    Args:
        pipeline: of the base model.
        pairs: how many.
        seed: of the noise.
        progress: show a progress bar.
    """
    prompts = [prompt for _ in range(-(-pairs // 70)) for prompt in digit_prompts()][:pairs]
    return own_pairs(pipeline, prompts, _ink, kind="digits", seed=seed, progress=progress)


def _ink(pictures: np.ndarray) -> np.ndarray:
    return pictures.max(-1).mean((1, 2)) / 255
