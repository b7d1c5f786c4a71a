"""Preferences between pictures of the base model: of two to a prompt, the one with more ink is chosen."""

from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from popmargin.data.images import encode_png, image_name
from popmargin.data.load import load_preferences
from popmargin.demo.images.digit_base import RECIPE as BASE
from popmargin.demo.images.digit_base import demo_cache, digits_base_path, draw_digits, only_one, quiet_diffusers
from popmargin.demo.images.digits import as_pictures, digit_prompts
from popmargin.errors import import_extra

RECIPE = 1
PAIRS, SEED = 840, 1
"""Of pairs (twelve for each prompt), and of their noise."""


def digits_data_path() -> Path:
    """The preferences as Parquet; drawn at the first call, with a progress bar, and kept in POPMARGIN_CACHE.

    Raises:
        MissingExtraError: diffusers is not installed.
    """
    diffusers: Any = import_extra("diffusers", "images")
    path = demo_cache() / f"demo-digits-{BASE}-pairs-{RECIPE}.parquet"
    base = digits_base_path()
    with only_one(path):
        if not path.is_file():
            with quiet_diffusers():
                pipeline = diffusers.DiffusionPipeline.from_pretrained(base, vae=None)
            load_preferences(digit_pairs(pipeline, pairs=PAIRS, progress=True), bad_rows="drop").save(path)
    return path


def digit_pairs(pipeline: Any, *, pairs: int = PAIRS, seed: int = SEED, progress: bool = False) -> list[dict[str, Any]]:
    """Rows of preferences with the amounts of ink as ratings; the prompts take turns.

    Two pictures with the same amount are a tie, which `load_preferences` reports.

    Args:
        pipeline: of the base model.
        pairs: how many.
        seed: of the noise.
        progress: show a progress bar.
    """
    prompts = [prompt for _ in range(-(-pairs // 70)) for prompt in digit_prompts()][:pairs]
    both: list[np.ndarray] = []
    for side in tqdm(range(2), desc="demo-digits: drawing pairs of pictures, once", disable=not progress):
        both.append(as_pictures(draw_digits(pipeline, prompts, seed=2 * seed + side)))
    rows: list[dict[str, Any]] = []
    for number, prompt in enumerate(prompts):
        files = [encode_png(side[number]) for side in both]
        amounts = [float(side[number].max(-1).mean() / 255) for side in both]
        responses = [
            {"text": image_name(file), "image": file, "rating": amount}
            for file, amount in zip(files, amounts, strict=True)
        ]
        rows.append({"id": f"digits-{number}", "prompt": prompt, "responses": responses})
    return rows
