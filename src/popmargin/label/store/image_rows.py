"""Images in the store: every distinct one once, and which projects show it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, func, select, text

from popmargin.errors import DataError
from popmargin.label.store.records import ShownImage
from popmargin.label.store.shown_images import StoredImage
from popmargin.label.store.sql_tables import image, project_image

_COLUMNS = ("name", "media_type", "width", "height", "reduced", "converted", "content")
# The same statement for both databases; a name says the content, so a row that is there already is the same.
_ADD = text(
    f"INSERT INTO image ({', '.join(_COLUMNS)}) VALUES ({', '.join(f':{name}' for name in _COLUMNS)}) "
    "ON CONFLICT (name) DO NOTHING"
)
_SHOW = text(
    "INSERT INTO project_image (project, image) SELECT :project, id FROM image WHERE name = :name "
    "ON CONFLICT (project, image) DO NOTHING"
)


def add_images(connection: Connection, number: int, images: Iterable[StoredImage]) -> None:
    """Store images for a project; those that the store has already are only shown in one more project."""
    # In the order of names, so that two transactions wait for each other in one direction.
    for one in sorted(images, key=lambda each: each.name):
        connection.execute(_ADD, {name: getattr(one, name) for name in _COLUMNS})
        connection.execute(_SHOW, {"project": number, "name": one.name})


def known_images(connection: Connection, names: Sequence[str]) -> dict[str, ShownImage]:
    """What is known of these images without reading them; an image that the store lacks is left out."""
    query = select(image.c.name, image.c.width, image.c.height, image.c.reduced.is_not(None).label("reduced"))
    rows = connection.execute(query.where(image.c.name.in_(names)))
    return {
        row.name: ShownImage(name=row.name, width=row.width, height=row.height, reduced=bool(row.reduced))
        for row in rows
    }  # fmt: skip


def image_file(connection: Connection, number: int, name: str, *, reduced: bool) -> tuple[str, bytes] | None:
    """The media type and the bytes that a browser is given for an image; None if the project does not have it."""
    whole = func.coalesce(image.c.converted, image.c.content)
    given = func.coalesce(image.c.reduced, whole) if reduced else whole
    row = connection.execute(
        select(image.c.media_type, image.c.reduced.is_not(None).label("smaller"), given.label("given"))
        .join_from(image, project_image, project_image.c.image == image.c.id)
        .where(image.c.name == name, project_image.c.project == number)
    ).one_or_none()
    if row is None:
        return None
    return "image/png" if reduced and row.smaller else row.media_type, bytes(row.given)


def image_contents(connection: Connection, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Name and file of each of these images, as they were imported.

    Raises:
        DataError: the store lacks one.
    """
    for name in names:
        content: Any = connection.execute(select(image.c.content).where(image.c.name == name)).scalar()
        if content is None:
            raise DataError(f"The store has no {name}, although its preferences name it. Restore a backup.")
        yield name, bytes(content)
