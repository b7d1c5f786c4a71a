"""Preferences between pictures of the emoji's base model: of two to a prompt, the one with more red is chosen."""

from pathlib import Path
from typing import Any

import numpy as np

from popmargin.demo.images.emoji import load_emoji
from popmargin.demo.images.emoji_base import RECIPE as BASE
from popmargin.demo.images.emoji_base import emoji_base_path
from popmargin.demo.images.emoji_rewards import redness_of
from popmargin.demo.images.picture_pairs import own_pairs, pairs_once

RECIPE = 1
PAIRS, SEED = 340, 1
"""Of pairs (one for each prompt), and of their noise."""


def emoji_data_path() -> Path:
    """The preferences as Parquet; drawn at the first call, with a progress bar, and kept in POPMARGIN_CACHE.

    Raises:
        MissingExtraError: diffusers is not installed.
    """

    def make(pipeline: Any) -> list[dict[str, Any]]:
        return emoji_pairs(pipeline, pairs=PAIRS, progress=True)

    return pairs_once(f"demo-emoji-{BASE}-pairs-{RECIPE}.parquet", emoji_base_path, make)


def emoji_pairs(pipeline: Any, *, pairs: int = PAIRS, seed: int = SEED, progress: bool = False) -> list[dict[str, Any]]:
    """Rows of preferences with the redness as ratings, for prompts spread evenly over all.

    Args:
        pipeline: of the base model.
        pairs: how many, at most one for each prompt.
        seed: of the noise.
        progress: show a progress bar.
    """
    known = load_emoji().prompts
    prompts = [known[place] for place in np.linspace(0, len(known) - 1, pairs).astype(int)]
    return own_pairs(pipeline, prompts, _redness, kind="emoji", seed=seed, progress=progress)


def _redness(pictures: np.ndarray) -> np.ndarray:
    return redness_of(pictures / 255.0)
