"""Cells that hold images: which columns do, and how a cell becomes an image's name, with its bytes or path kept."""

import base64
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from popmargin.data.images import (
    COLUMNS,
    MAX_PIXELS,
    SUFFIXES,
    ImageError,
    ImageFacts,
    examine,
    image_bytes,
    image_name,
    is_image_name,
    is_pillow,
    is_pixels,
)
from popmargin.data.validate import Draft, RowError
from popmargin.errors import DataError, counted

Row = Mapping[str, Any]
Stored = dict[str, Any]
"""An image as `datasets.Image` stores it: its bytes, or else its absolute path."""
RESPONSES = ("chosen", "rejected", "response_a", "response_b", "response", "responses")
"""Fields that may hold images or texts."""
ALWAYS = ("image", "image_0", "image_1")
"""Fields that hold images only."""
_SHOWN_SIZES = 5


@dataclass
class ImageCells:
    """Reads cells with images.

    Attributes:
        folder: where relative paths start.
        max_pixels: the most pixels that an image may have.
        found: name -> the image, of the rows read since it was last emptied.
        facts: name -> what its header says, of all images.
        uneven: number of preferences whose two images differ in size.
    """

    folder: Path = Path()
    max_pixels: int = MAX_PIXELS
    found: dict[str, Stored] = field(default_factory=dict[str, Stored])
    facts: dict[str, ImageFacts] = field(default_factory=dict[str, ImageFacts])
    uneven: int = 0

    def read(self, value: object, column: str, *, what: str = "", name: str | None = None) -> str:
        """The name of a cell's image, which can be decoded.

        Args:
            value: bytes, a path, `{bytes, path}` or a `PIL.Image.Image`.
            column: our name of its column.
            what: how messages call it, if not after its column.
            name: the image's name, if the data say which it is.

        Raises:
            RowError: it is missing, no image, broken or too large.
        """
        try:
            stored = self._stored(value)
            data = image_bytes(stored, name=name)
            found = name or image_name(data)
            if found not in self.facts:
                self.facts[found] = examine(data, max_pixels=self.max_pixels)
        except ImageError as error:
            message = f"{what}: {error.message}" if what else error.message
            raise RowError(error.kind, message, error.remedy, column=column) from error
        self.found.setdefault(found, stored)
        return found

    def _stored(self, value: object) -> Stored:
        """A cell as `{bytes, path}`, with an absolute path only where there are no bytes."""
        fields = cast(Row, value) if isinstance(value, Mapping) else {}
        data = fields.get("bytes") if fields else value
        if isinstance(data, bytes | bytearray | memoryview):
            path = fields.get("path")
            return {"bytes": bytes(data), "path": Path(path).name if isinstance(path, str) and path else None}
        path = fields.get("path") if fields else value
        if not isinstance(path, str) or not path.strip():
            if path is None or (isinstance(path, str) and not path):
                raise ImageError("missing_image", "the image is missing.", "write a path or bytes, or drop the row.")
            return {"bytes": image_bytes(path), "path": None}
        if path.startswith("data:image/"):
            return {"bytes": _of_data_uri(path), "path": None}
        if "://" in path:
            raise ImageError("missing_image", f"'{path}' is an address.", "download the image, and write its path.")
        place = Path(path).expanduser()
        return {"bytes": None, "path": str((self.folder / place).absolute())}

    def put_beside(self, draft: Draft) -> None:
        """Put the two images of a preference beside their names, among the fields of its row.

        Of a draft whose responses have been exchanged they are in the old order: fields are exchanged later.
        """
        names = [draft["chosen"], draft["rejected"]]
        self.uneven += self.facts[names[0]].size != self.facts[names[1]].size
        images = [self.found[name] for name in (reversed(names) if draft.get("turned") else names)]
        draft["fields"] = draft.get("fields", {}) | dict(zip(COLUMNS, images, strict=True))

    def notes(self) -> list[str]:
        """Sentences on the images: sizes in pixels, animations."""
        if not self.facts:
            return []
        sizes = Counter(facts.size for facts in self.facts.values()).most_common()
        shown = ", ".join(f"{width} × {height} ({count})" for (width, height), count in sizes[:_SHOWN_SIZES])
        more = f", … and {counted(len(sizes) - _SHOWN_SIZES, 'other size')}" if len(sizes) > _SHOWN_SIZES else ""
        notes = [f"{counted(len(self.facts), 'distinct image')}, width × height in pixels: {shown}{more}"]
        if self.uneven:
            notes.append(
                f"pairs whose two images differ in size: {self.uneven}; they cannot share noise, so set the task's size"
            )
        animated = sum(facts.frames > 1 for facts in self.facts.values())
        if animated:
            notes.append(f"animated images, of which the first frame is used: {animated}")
        return notes


def _of_data_uri(text: str) -> bytes:
    """The bytes of an image in a text such as "data:image/png;base64,iVBO…"."""
    head, comma, body = text.partition(",")
    remedy = "write base64 after 'data:image/png;base64,', or the image's path."
    if not comma or not head.endswith(";base64"):
        raise ImageError("not_an_image", f"the data URI '{head[:40]}' is not in base64.", remedy)
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:
        raise ImageError("broken_image", f"the data URI '{head[:40]}' is broken ({error}).", remedy) from error


def is_stored(value: object) -> bool:
    """Whether a cell is an image in itself: bytes, `{bytes, path}`, a `PIL.Image.Image`, pixels or a data URI."""
    if isinstance(value, bytes | bytearray | memoryview) or is_pillow(value) or is_pixels(value):
        return True
    if isinstance(value, str):
        return value.startswith("data:image/")
    return isinstance(value, Mapping) and bool(value) and set(cast(Row, value)) <= {"bytes", "path"}


def image_fields(rows: Sequence[Row], names: Mapping[str, str], folder: Path) -> frozenset[str]:
    """Which of our fields hold images, by the first rows.

    Bytes and `{bytes, path}` are images; so are texts of which most end like image files, if one of them is there;
    names of images are, if the data hold these. What does not fit is reported row by row later.

    Args:
        rows: the first rows.
        names: our field -> the source's column.
        folder: where relative paths start.

    Raises:
        DataError: texts that all end like image files, none of which is there.
    """
    cells = {name: _cells(rows, names[name], name) for name in RESPONSES if name in names}
    found = {name for name in ALWAYS if name in names}
    found |= {name for name in cells if _mostly(is_stored, cells[name])}
    found |= {name for name in cells if _mostly(is_image_name, cells[name]) and _have_images(rows, names[name], name)}
    paths = {name for name in cells if _mostly(_is_path, cells[name])}
    if any(
        _is_path(cell) and (folder / Path(cast(str, cell)).expanduser()).is_file() for n in paths for cell in cells[n]
    ):
        found |= paths
    elif not found and paths and all(map(_is_path, (cell for of_field in cells.values() for cell in of_field))):
        name = min(paths)
        raise DataError(
            f"the column '{names[name]}' names image files, and none of the first ones is there ('{cells[name][0]}'; "
            f"relative paths start at {folder.absolute()}). Remedy: correct the paths, or move the images there; write "
            "texts that are only file names as messages."
        )
    couples = [{"chosen", "rejected"}, {"response_a", "response_b"}]
    return frozenset(found.union(*(couple & names.keys() for couple in couples if couple & found)))


def _mostly(check: Callable[[object], bool], cells: Sequence[object]) -> bool:
    return sum(map(check, cells)) * 2 > len(cells)


def _is_path(cell: object) -> bool:
    return isinstance(cell, str) and "\n" not in cell and cell.strip().lower().endswith(SUFFIXES)


def _cells(rows: Sequence[Row], column: str, name: str) -> list[object]:
    """What a field holds in the first rows, without missing values; for lists, their items' images or texts."""
    cells = [row.get(column) for row in rows]
    if name == "responses":
        lists = [cast(list[object], cell) for cell in cells if isinstance(cell, list)]
        cells = [_item(item) for items in lists for item in items]
    return [cell for cell in cells if cell is not None and not (isinstance(cell, str) and not cell)]


def _item(item: object) -> object:
    if not isinstance(item, Mapping) or is_stored(item):
        return item
    fields = cast(Row, item)
    held = [fields.get("image"), *(fields[name] for name in ("text", "response", "path") if name in fields)]
    return next((value for value in held if value is not None and not (isinstance(value, str) and not value)), None)


def _have_images(rows: Sequence[Row], column: str, name: str) -> bool:
    """Whether images stand beside their names, as `Preferences.save` writes them."""
    return name != "responses" and any(row.get(beside(column)) is not None for row in rows)


def beside(column: str) -> str:
    """The column with the images that a column names.

    Example:
        >>> beside("chosen")
        'chosen_image'
    """
    return f"{column}_image"
