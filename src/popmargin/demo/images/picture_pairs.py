"""Preferences between a base model's own pictures: of two to a prompt, the one with more of something is chosen."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from popmargin.data.images import encode_png, image_name
from popmargin.data.load import load_preferences
from popmargin.demo.images.digits import as_pictures
from popmargin.demo.images.small_base import demo_cache, draw, only_one, quiet_diffusers
from popmargin.errors import import_extra

Amount = Callable[[np.ndarray], np.ndarray]
"""The reward (n,) of pictures (n, H, W, 3), from 0 to 255."""


def pairs_once(name: str, base: Callable[[], Path], make: Callable[[Any], list[dict[str, Any]]]) -> Path:
    """The preferences as Parquet in POPMARGIN_CACHE; drawn at the first call.

    Args:
        name: of the file.
        base: the folder of the base model.
        make: rows from its pipeline.

    Raises:
        MissingExtraError: diffusers is not installed.
    """
    diffusers: Any = import_extra("diffusers", "images")
    path, folder = demo_cache() / name, base()
    with only_one(path):
        if not path.is_file():
            with quiet_diffusers():
                pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, vae=None)
            load_preferences(make(pipeline), bad_rows="drop").save(path)
    return path


def own_pairs(
    pipeline: Any, prompts: Sequence[str], amount: Amount, *, kind: str, seed: int, progress: bool = False
) -> list[dict[str, Any]]:
    """Rows of preferences with the rewards as ratings.

    Two pictures with the same reward are a tie, which `load_preferences` reports.

    Args:
        pipeline: of the base model.
        prompts: one a pair.
        amount: the reward.
        kind: `digits` or `emoji`, which ids begin with.
        seed: of the noise.
        progress: show a progress bar.
    """
    both: list[np.ndarray] = []
    for side in tqdm(range(2), desc=f"demo-{kind}: drawing pairs of pictures, once", disable=not progress):
        both.append(as_pictures(draw(pipeline, prompts, seed=2 * seed + side)))
    amounts = [amount(side).tolist() for side in both]
    rows: list[dict[str, Any]] = []
    for number, prompt in enumerate(prompts):
        files = [encode_png(side[number]) for side in both]
        responses = [
            {"text": image_name(file), "image": file, "rating": values[number]}
            for file, values in zip(files, amounts, strict=True)
        ]
        rows.append({"id": f"{kind}-{number}", "prompt": prompt, "responses": responses})
    return rows
