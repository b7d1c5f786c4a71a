"""Images of preferences as a store keeps them: the file itself and, where needed, what browsers show in its place.

People must judge the pixels that training reads (`popmargin.data.images.decode`). For most files a browser shows just
those. Of the others it is given a PNG file of them.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass

from popmargin.bounds import MOST_PIXELS
from popmargin.data.images import (
    COLUMNS,
    decode,
    encode_png,
    image_bytes,
    inspect,
    is_image_name,
    pillow,
)
from popmargin.data.schema import Preferences
from popmargin.errors import DataError

BATCH_BYTES = 2**24
"""About as many bytes are stored in one transaction, so that people who label at the same time need not wait."""
LARGE = 2048 * 2048
"""With more pixels, pages first show a smaller copy: four decoded images must fit into the memory of a phone."""
REDUCED_SIDE = 1600
"""The longer side of that copy in pixels."""
_ROWS = 32
_MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif", "BMP": "image/bmp"}
"""Formats that every browser shows; AVIF and TIFF are converted."""


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """An image as the store keeps it.

    Attributes:
        name: `image:` and 32 hex digits.
        media_type: of `converted` if there is one, otherwise of `content`.
        width: in pixels, as it is shown.
        height: the same.
        content: the bytes of its file, unchanged.
        converted: a PNG file with the pixels that training reads, if a browser would show others: of animations,
            transparent images, 16-bit or CMYK colours, and formats that not every browser knows.
        reduced: a smaller PNG file, if the image is large.
    """

    name: str
    media_type: str
    width: int
    height: int
    content: bytes
    converted: bytes | None
    reduced: bytes | None

    @property
    def size(self) -> int:
        """Bytes in the store."""
        return sum(len(part) for part in (self.content, self.converted, self.reduced) if part)


def stored_image(data: bytes, name: str, *, where: str = "") -> StoredImage:
    """An image from the bytes of its file.

    Raises:
        ImageError: it is not an image, broken, or too large.
    """
    facts = inspect(data, max_pixels=MOST_PIXELS, where=where)
    as_it_is = facts.format in _MEDIA_TYPES and facts.frames == 1 and _shown_alike(data, facts.format)
    large = facts.width * facts.height > LARGE
    pixels = None if as_it_is and not large else decode(data, max_pixels=MOST_PIXELS, where=where)
    reduced = None
    if large and pixels is not None:
        share = REDUCED_SIDE / max(facts.size)
        size = (max(1, round(facts.width * share)), max(1, round(facts.height * share)))
        module = pillow()
        file = io.BytesIO()
        module.fromarray(pixels).resize(size, module.Resampling.LANCZOS).save(file, "PNG")
        reduced = file.getvalue()
    return StoredImage(
        name=name,
        media_type=_MEDIA_TYPES[facts.format] if as_it_is else "image/png",
        width=facts.width,
        height=facts.height,
        content=data,
        converted=None if as_it_is or pixels is None else encode_png(pixels),
        reduced=reduced,
    )


def _shown_alike(data: bytes, format: str) -> bool:
    """Whether a browser shows the pixels that `decode` gives; from the header."""
    with pillow().open(io.BytesIO(data)) as image:
        turned = format != "JPEG" and "exif" in image.info and image.getexif().get(0x0112, 1) != 1
        return image.mode in ("1", "L", "P", "RGB") and not image.has_transparency_data and not turned


def images_of(preferences: Preferences) -> Iterator[list[StoredImage]]:
    """Every distinct image of preferences, about `BATCH_BYTES` at a time.

    Raises:
        ImageError: one cannot be read, or is another one than the response says; it names row and column.
        DataError: a response is not the name of an image.
    """
    known: set[str] = set()
    batch: list[StoredImage] = []
    source, row = preferences.report.source, 0
    for rows in preferences.batches("id", "chosen", "rejected", *COLUMNS, size=_ROWS):
        for place, key in enumerate(rows["id"]):
            for column in COLUMNS:
                side = column.removesuffix("_image")
                name, where = rows[side][place], f"{source}: row {row} (id '{key}'), column '{column}'"
                if not is_image_name(name):
                    raise DataError(
                        f"{where}: there are images, but '{side}' does not name one. Load the preferences from their "
                        "source again, all responses being images."
                    )
                if name in known:
                    continue
                known.add(name)
                batch.append(stored_image(image_bytes(rows[column][place], name=name, where=where), name, where=where))
            row += 1
        if sum(one.size for one in batch) >= BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch
