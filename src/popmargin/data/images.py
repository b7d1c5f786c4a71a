"""Images: their names, reading them within limits, as pixels, as PNG. Pillow is imported where it is used."""

import hashlib
import io
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import UInt8

from popmargin.bounds import MOST_PIXELS
from popmargin.errors import DataError, a_kind, counted, import_extra
from popmargin.safe_reading import MOST_WHOLE, odd_kind

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 2**25
"""Largest image that is decoded unless a run sets another limit: 33.5 million pixels, 100 MB as RGB."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
"""How the names of image files end."""
COLUMNS = ("chosen_image", "rejected_image")
"""Columns of preferences with their images: `{bytes, path}`, as `datasets.Image` stores them."""
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")  # others, such as EPS, start programs
_PREFIX = "image:"
_DIGITS = 32
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


class ImageError(DataError):
    """An image that cannot be used.

    Args:
        kind: short name, as in `RowProblem`: "missing_image", "empty_image", "not_an_image", "broken_image",
            "large_image", "changed_image".
        message: what is wrong, a sentence.
        remedy: what to do, a sentence.
        where: the row and column, if known.

    Example:
        >>> decode(b"<html>")
        Traceback (most recent call last):
        popmargin.data.images.ImageError: the file is a web page, not an image. Remedy: download the image again.
    """

    def __init__(self, kind: str, message: str, remedy: str, *, where: str = "") -> None:
        place = f"{where}: " if where else ""
        super().__init__(f"{place}{message} Remedy: {remedy}")
        self.kind = kind
        self.message = message
        self.remedy = remedy

    def at(self, where: str) -> "ImageError":
        """The same error, with its place."""
        return ImageError(self.kind, self.message, self.remedy, where=where)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image's header says; width and height in pixels, as it is shown.

    Attributes:
        format: such as "PNG".
        frames: more than 1 if it is animated; then only the first frame is used.
    """

    format: str
    width: int
    height: int
    frames: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height


def image_name(data: bytes) -> str:
    """The text that stands for an image as a response: equal for equal files.

    Example:
        >>> image_name(b"")
        'image:e3b0c44298fc1c149afbf4c8996fb924'
    """
    return _PREFIX + hashlib.sha256(data).hexdigest()[:_DIGITS]


def is_image_name(text: object) -> bool:
    """Whether a response is the name of an image.

    Example:
        >>> is_image_name(image_name(b"")), is_image_name("image: a cat")
        (True, False)
    """
    if not isinstance(text, str) or len(text) != len(_PREFIX) + _DIGITS or not text.startswith(_PREFIX):
        return False
    return set(text.removeprefix(_PREFIX)) <= set("0123456789abcdef")


def is_pillow(value: object) -> bool:
    """Whether a value is a `PIL.Image.Image`, found out without importing Pillow."""
    return hasattr(value, "save") and hasattr(value, "convert")


def is_pixels(value: object) -> bool:
    """Whether a value is an array of pixels: three dimensions, or two of them for grey."""
    return isinstance(value, np.ndarray) and value.ndim in (2, 3)


def image_bytes(image: object, *, name: str | None = None, where: str = "") -> bytes:
    """The bytes of an image's file.

    Args:
        image: bytes, a path, `{"bytes": …, "path": …}` (bytes come first), or a `PIL.Image.Image` or RGB pixels (H, W,
            3) as uint8, which become PNG.
        name: the image's name, if it is known: then the bytes must be that image's.
        where: the row and column, for messages.

    Raises:
        ImageError: there is no such file, it is empty, or it is another image than `name` says.
    """
    data = _given_bytes(image, where)
    if not data:
        named = f" {image}" if isinstance(image, str | Path) else ""
        raise ImageError("empty_image", f"the image{named} has no bytes.", "save or download it again.", where=where)
    if name is not None and image_name(data) != name:
        held = cast("Mapping[str, Any]", image).get("path") if isinstance(image, Mapping) else None
        message = f"the image {held or ''} has changed since it was read: it is {image_name(data)}, not {name}."
        remedy = "load the preferences from their source again, or bring the old file back."
        raise ImageError("changed_image", message.replace("  ", " "), remedy, where=where)
    return data


def _given_bytes(image: object, where: str) -> bytes:
    if isinstance(image, Mapping):
        fields = cast(Mapping[str, object], image)
        image = fields.get("bytes") if fields.get("bytes") is not None else fields.get("path")
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | Path) and str(image):
        return _file_bytes(Path(image).expanduser(), where)
    if is_pillow(image):
        return encode_png(_as_rgb(cast("Image.Image", image)))
    if is_pixels(image):
        return _png_of_pixels(cast(np.ndarray, image), where)
    held = "missing" if image is None or (isinstance(image, str) and not image) else a_kind(image)
    remedy = 'write a path, bytes or {"bytes": …, "path": …}.'
    raise ImageError("missing_image", f"the image is {held}.", remedy, where=where)


def _png_of_pixels(pixels: np.ndarray, where: str) -> bytes:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3 or 0 in pixels.shape:
        message = f"the image is an array of {pixels.dtype} of shape {pixels.shape}."
        remedy = "give RGB pixels from 0 to 255, (height, width, 3), as uint8; or bytes, or a path."
        raise ImageError("not_an_image", message, remedy, where=where)
    return encode_png(pixels)


def _file_bytes(path: Path, where: str) -> bytes:
    try:
        kind = odd_kind(path)
        if kind is not None:
            raise ValueError(f"it is {kind}, not a file")
        if path.stat().st_size > MOST_WHOLE:
            raise ValueError(f"it has more than {MOST_WHOLE:,} bytes")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        message = f"the image {path} cannot be read ({said})."
        raise ImageError("missing_image", message, "check the path and the file.", where=where) from error


def examine(data: bytes, *, max_pixels: int = MAX_PIXELS, where: str = "") -> ImageFacts:
    """The same, after decoding all of it once; a JPEG at an eighth of its size, which finds the same faults sooner.

    Raises:
        ImageError: as `decode`.
    """
    with _opened(data, max_pixels, where) as image, _decoding(where):
        facts = _facts(image)
        image.draft("RGB", (max(image.width // 8, 1), max(image.height // 8, 1)))
        image.load()
        _refuse_floats(image)
        return facts


def inspect(data: bytes, *, max_pixels: int = MAX_PIXELS, where: str = "") -> ImageFacts:
    """What an image's header says; nothing is decoded.

    Args:
        data: the bytes of its file.
        max_pixels: the most pixels that it may have, width times height.

    Raises:
        ImageError: it is not an image of a known format, or too large.
    """
    with _opened(data, max_pixels, where) as image:
        return _facts(image)


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, where: str = "") -> UInt8[np.ndarray, "H W 3"]:
    """An image as RGB pixels, 0 to 255, (H, W, 3).

    It is turned as its EXIF orientation says; what is transparent becomes white; 16 bits become 8; grey, palette and
    CMYK become RGB without a colour profile; of an animation, the first frame is used.

    Args:
        data: the bytes of its file.
        max_pixels: the most pixels that it may have; checked in the header, before anything is decoded.

    Raises:
        ImageError: it is not an image, broken or truncated, or too large.

    Example:
        >>> decode(encode_png(np.full((2, 3, 3), 7, np.uint8))).shape
        (2, 3, 3)
    """
    with _opened(data, max_pixels, where) as image, _decoding(where):
        return _as_rgb(image)


def encode_png(pixels: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """RGB pixels (H, W, 3) as the bytes of a PNG file; equal pixels give equal bytes with the same version of Pillow.

    Example:
        >>> encode_png(np.zeros((2, 2, 3), np.uint8))[1:4]
        b'PNG'
    """
    file = io.BytesIO()
    pillow().fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=6)
    return file.getvalue()


def pillow() -> Any:
    """The module `PIL.Image`.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    return import_extra("PIL.Image", "images")


@contextmanager
def _opened(data: bytes, max_pixels: int, where: str) -> "Generator[Image.Image]":
    """An image whose header was read and whose size is within the limit; it is not decoded yet."""
    module = pillow()
    module.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's own limit and of odd metadata: ours are errors, or nothing
        try:
            image = module.open(io.BytesIO(data), formats=[name for name in _FORMATS if name in module.OPEN])
        except module.DecompressionBombError as error:
            message = f"the image has more than {MOST_PIXELS:,} pixels, which Pillow does not open."
            raise ImageError("large_image", message, "reduce the image, or remove the row.", where=where) from error
        except Exception as error:  # decoders raise many unrelated classes
            raise _no_image(data, where) from error
        with image:
            width, height = image.size
            if width * height > max_pixels:
                message = f"the image has {width} × {height} pixels; the limit is {max_pixels:,}."
                remedy = f"reduce the image, or raise max_image_pixels (at most {MOST_PIXELS:,})."
                raise ImageError("large_image", message, remedy, where=where)
            yield image


@contextmanager
def _decoding(where: str) -> Generator[None]:
    """Whatever decoding raises becomes an error in words."""
    try:
        yield
    except ImageError as error:
        raise error.at(where) from None
    except Exception as error:  # decoders raise many unrelated classes
        message = f"the image is broken or truncated ({_said(error)})."
        raise ImageError("broken_image", message, "save or download it again.", where=where) from error


def _no_image(data: bytes, where: str) -> ImageError:
    start = data[:64].lstrip().lower()
    if not data:
        return ImageError("empty_image", "the image has no bytes.", "save or download it again.", where=where)
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        held = "a web page" if b"<svg" not in data[:1024].lower() else "an SVG drawing"
        remedy = "download the image again." if held == "a web page" else "save it as PNG."
        return ImageError("not_an_image", f"the file is {held}, not an image.", remedy, where=where)
    message = f"the {counted(len(data), 'byte')} are no image that Pillow can read."
    remedy = f"save it as {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}."
    return ImageError("not_an_image", message, remedy, where=where)


def _facts(image: "Image.Image") -> ImageFacts:
    width, height = image.size
    if _orientation(image) in _TURNED:
        width, height = height, width
    try:
        frames = int(getattr(image, "n_frames", 1))
    except Exception:  # a broken later frame, which nobody reads
        frames = 1
    return ImageFacts(str(image.format), width, height, frames)


def _orientation(image: "Image.Image") -> int:
    """The EXIF orientation, 1 if there is none; of the header alone, so that nothing is decoded."""
    if "exif" not in image.info or image.format == "TIFF":  # Pillow turns TIFF itself
        return 1
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # broken metadata does not make a broken image
        return 1


def _as_rgb(image: "Image.Image") -> np.ndarray:
    module = pillow()
    turned = _orientation(image)
    image.load()
    _refuse_floats(image)
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255 instead of scaling
        grey = np.asarray(image).astype(np.float64)
        scale = 257.0 if image.mode != "I" or grey.max(initial=0) <= 65535 else (2**32 - 1) / 255
        image = module.fromarray(np.clip(np.rint(grey / scale), 0, 255).astype(np.uint8))
    elif image.has_transparency_data:
        front = image.convert("RGBA")
        image = module.new("RGBA", front.size, (255, 255, 255, 255))
        image.alpha_composite(front)
    pixels = np.array(image.convert("RGB"), dtype=np.uint8)
    return np.ascontiguousarray(_upright(pixels, turned))


def _refuse_floats(image: "Image.Image") -> None:
    if image.mode == "F":
        remedy = "save it with 8 or 16 bits per channel."
        raise ImageError("not_an_image", "the image has floating-point pixels, of unknown range.", remedy)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W, 3) turned and mirrored as an EXIF orientation, 1 to 8, says."""
    if orientation in _TURNED:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _said(error: Exception) -> str:
    return str(error).strip().rstrip(".").split("\n")[0][:80] or type(error).__name__
