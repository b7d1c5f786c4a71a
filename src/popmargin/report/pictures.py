"""Pictures in a report: thumbnails inside the page, so that it stays one file, and their grid."""

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

from popmargin.data.images import decode, encode_png, pillow
from popmargin.report.metrics import DASH, number
from popmargin.report.results import ArmResult, StudyResults

LARGEST = 256
"""Height and width of a picture in the page, pixels; larger ones are reduced."""
TINY = 128
"""Pictures below this are drawn with square pixels, not blurred."""
MAX_ROWS = 12


@dataclass(frozen=True)
class Picture:
    """One picture of the grid.

    Attributes:
        source: a data URI.
        width, height: of the file in the page, pixels.
        alt: what it is, in words.
        captions: the reward and the further rewards, by name, as text.
    """

    source: str
    width: int
    height: int
    alt: str
    captions: tuple[tuple[str, str], ...]

    @property
    def tiny(self) -> bool:
        return max(self.width, self.height) <= TINY


@dataclass(frozen=True)
class PictureRow:
    """One prompt, with the picture of the reference policy and of every arm; None where there is none."""

    prompt: str
    cells: list[Picture | None]


def thumbnail(file: bytes) -> dict[str, Any]:
    """An image for a report: `source` (a data URI), its `width` and `height`, and whether it was `reduced`.

    Images of at most `LARGEST` pixels keep every pixel (PNG); larger ones are reduced, and stored as JPEG.

    Args:
        file: the image's file.

    Example:
        >>> import numpy as np
        >>> small = thumbnail(encode_png(np.zeros((8, 8, 3), np.uint8)))
        >>> small["source"][:22], small["width"], small["reduced"]
        ('data:image/png;base64,', 8, False)
    """
    pixels = decode(file)
    height, width = pixels.shape[:2]
    if max(height, width) <= LARGEST:
        return _stored("png", encode_png(pixels), width, height, reduced=False)
    image = pillow().fromarray(pixels)
    image.thumbnail((LARGEST, LARGEST))
    written = io.BytesIO()
    image.save(written, "JPEG", quality=85)
    return _stored("jpeg", written.getvalue(), image.width, image.height, reduced=True)


def _stored(kind: str, data: bytes, width: int, height: int, *, reduced: bool) -> dict[str, Any]:
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return {"source": source, "width": width, "height": height, "reduced": reduced}


def picture_rows(study: StudyResults) -> tuple[list[PictureRow], int]:
    """The same prompts side by side, and the number of rows that are not shown.

    Args:
        study: an arm's k-th image of a prompt stands in the k-th row of that prompt.
    """
    columns = [("Reference policy", study.reference_samples), *((_label(arm), arm.samples) for arm in study.arms)]
    rows: dict[tuple[str, int], list[Picture | None]] = {}
    for place, (label, samples) in enumerate(columns):
        seen: dict[str, int] = {}
        for sample in samples:
            prompt = str(sample.get("prompt", ""))
            seen[prompt] = seen.get(prompt, 0) + 1
            if "image" in sample:
                row = rows.setdefault((prompt, seen[prompt]), [None] * len(columns))
                row[place] = _picture(sample, prompt, label, study.reward or "reward")
    listed = [PictureRow(prompt, cells) for (prompt, _), cells in rows.items()]
    return listed[:MAX_ROWS], max(0, len(listed) - MAX_ROWS)


def any_reduced(study: StudyResults) -> bool:
    """Whether a picture is smaller in the page than it was sampled."""
    samples = [*study.reference_samples, *(sample for arm in study.arms for sample in arm.samples)]
    return any(sample.get("image", {}).get("reduced") for sample in samples)


def _label(arm: ArmResult) -> str:
    return arm.label or arm.name


def _picture(sample: dict[str, Any], prompt: str, label: str, reward: str) -> Picture:
    image = sample["image"]
    scores = {reward: sample.get("reward"), **sample.get("also", {})}
    captions = tuple((name.replace("_", " "), _score(value)) for name, value in scores.items())
    alt = f"{prompt}, by {label}, {captions[0][0]} {captions[0][1]}"
    return Picture(image["source"], image["width"], image["height"], alt, captions)


def _score(value: object) -> str:
    if not isinstance(value, int | float) or math.isnan(value):
        return DASH
    return number(float(value), 2 if abs(value) < 100 else 1)
