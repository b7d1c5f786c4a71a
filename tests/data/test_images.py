"""Images are named after their bytes, checked before they are decoded, and decoded to RGB whatever their kind."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from popmargin.data.images import (
    ImageError,
    decode,
    encode_png,
    examine,
    image_bytes,
    image_name,
    inspect,
    is_image_name,
)

RED, WHITE = (255, 0, 0), (255, 255, 255)
PIXELS = np.arange(3 * 4 * 3, dtype=np.uint8).reshape(3, 4, 3) * 5


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with hardly any data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_png_keeps_every_pixel_and_equal_pixels_have_one_name() -> None:
    data = encode_png(PIXELS)
    np.testing.assert_array_equal(decode(data), PIXELS)
    assert image_name(data) == image_name(encode_png(PIXELS.copy()))
    assert image_name(data) != image_name(encode_png(PIXELS[:, ::-1]))
    assert is_image_name(image_name(data))
    assert not any(is_image_name(text) for text in ("image:", "image:" + "g" * 32, image_name(data) + "0", None, 3))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_pixels_and_size_as_pillow_does(orientation: int) -> None:
    image = Image.fromarray(PIXELS)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "TIFF", "JPEG", "WEBP"):
        data = saved(image, kind, exif=exif)
        shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
        np.testing.assert_array_equal(decode(data), shown)
        assert inspect(data).size == examine(data).size == (shown.shape[1], shown.shape[0])


def test_transparency_lies_on_white() -> None:
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    clear.putpixel((0, 0), (255, 0, 0, 255))
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([255, 0, 0, 0, 0, 0])
    palette.putpixel((0, 0), 0)
    keyed = Image.new("RGB", (2, 2), (0, 0, 0))
    keyed.putpixel((0, 0), RED)
    images = (
        saved(clear),
        saved(clear, "WEBP", lossless=True),
        saved(palette, transparency=1),
        saved(palette, "GIF", transparency=1),
        saved(palette, transparency=b"\xff\x00"),
        saved(keyed, transparency=(0, 0, 0)),
    )
    for data in images:
        pixels = decode(data)
        assert tuple(pixels[0, 0]) == RED
        assert tuple(pixels[1, 1]) == WHITE


def test_half_transparent_is_mixed_with_white() -> None:
    pixels = decode(saved(Image.new("RGBA", (1, 1), (0, 0, 0, 128))))
    assert abs(int(pixels[0, 0, 0]) - 127) <= 1


def test_modes_become_rgb_of_the_same_colour() -> None:
    grey = np.array([[0, 32768, 65535]], np.uint16)
    np.testing.assert_array_equal(decode(saved(Image.fromarray(grey)))[0, :, 0], [0, 128, 255])
    np.testing.assert_array_equal(decode(saved(Image.fromarray(grey), "TIFF"))[0, :, 1], [0, 128, 255])
    cmyk = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    assert tuple(decode(saved(cmyk, "TIFF"))[0, 0]) == RED
    assert abs(decode(saved(cmyk, "JPEG")).astype(int)[0, 0] - RED).max() < 6
    assert tuple(decode(saved(Image.new("1", (2, 2), 1)))[0, 0]) == WHITE
    assert tuple(decode(saved(Image.new("LA", (2, 2), (0, 0))))[0, 0]) == WHITE
    with pytest.raises(ImageError, match="floating-point pixels"):
        decode(saved(Image.new("F", (2, 2), 0.5), "TIFF"))


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (3, 2), colour) for colour in (RED, (0, 0, 255))]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert inspect(data).frames == 2
    assert tuple(decode(data)[0, 0]) == RED


@pytest.mark.parametrize("size", [(100_000, 100_000), (20_000, 8_000), (5, 2)])
def test_too_large_is_refused_by_its_header(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims beyond Pillow's limit, within its warning, and within ours: no pixel is decoded of any."""
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    for read in (inspect, decode):
        with pytest.raises(ImageError, match="pixels") as error:
            read(claiming(*size), max_pixels=9, where="a.jsonl:3, column 'chosen'")
        assert error.value.kind == "large_image"
        assert str(error.value).startswith("a.jsonl:3, column 'chosen': the image has ")


def test_the_limit_itself_is_allowed() -> None:
    assert decode(encode_png(PIXELS), max_pixels=12).shape == (3, 4, 3)
    with pytest.raises(ImageError, match=r"4 × 3 pixels; the limit is 11\."):
        decode(encode_png(PIXELS), max_pixels=11)


BROKEN = {
    "truncated JPEG": (saved(Image.effect_noise((64, 64), 50), "JPEG")[:-700], "broken_image", "truncated"),
    "truncated PNG": (saved(Image.effect_noise((64, 64), 50))[:-900], "broken_image", "truncated"),
    "no pixels": (claiming(64, 64), "broken_image", "broken"),
    "zero bytes": (b"", "empty_image", "no bytes"),
    "web page": (b"\n<!DOCTYPE html><html>404</html>", "not_an_image", "web page"),
    "drawing": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "not_an_image", "SVG"),
    "text": (b"image:0123", "not_an_image", "10 bytes"),
    "PostScript, which would start a program": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not_an_image", "no image"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_image_says_so(name: str) -> None:
    data, kind, message = BROKEN[name]
    with pytest.raises(ImageError, match=message) as error:
        decode(data, where="row 2")
    assert error.value.kind == kind
    assert str(error.value).startswith("row 2: ")
    assert "Remedy: " in str(error.value)


def test_bytes_come_from_bytes_paths_structs_and_pillow(tmp_path: Path) -> None:
    data, path = encode_png(PIXELS), tmp_path / "named.jpg"  # the content counts, not the suffix
    path.write_bytes(data)
    given: tuple[Any, ...] = (data, bytearray(data), path, str(path), Image.fromarray(PIXELS))
    given += ({"bytes": data, "path": None}, {"bytes": None, "path": str(path)}, {"path": str(path)})
    for image in given:
        assert image_bytes(image) == data
    assert image_bytes({"bytes": data, "path": "no/such/file"}) == data


def test_a_missing_empty_or_changed_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for image, kind in (({"path": str(path)}, "missing_image"), ({}, "missing_image"), (3, "missing_image")):
        with pytest.raises(ImageError) as error:
            image_bytes(image, where="row 1")
        assert error.value.kind == kind
    path.write_bytes(b"")
    with pytest.raises(ImageError, match="no bytes"):
        image_bytes(path)
    path.write_bytes(encode_png(PIXELS))
    name = image_name(path.read_bytes())
    assert image_bytes({"path": str(path)}, name=name)
    path.write_bytes(encode_png(PIXELS[::-1]))
    with pytest.raises(ImageError, match=r"a\.png has changed since it was read"):
        image_bytes({"path": str(path)}, name=name)
