"""The files of images, by content: to people of a project that has them, and kept by their browsers for good."""

from typing import Annotated, Any

from fastapi import Path, Request, Response

from popmargin.label.store.records import ShownImage
from popmargin.label.web.view import person_of, refused, store_of

Digits = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="The hex digits of the image's name.")]
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/*": {}}},
    304: {"description": "The client's copy is the same."},
}


def address(root: str, image: ShownImage, *, reduced: bool) -> str:
    """The address of an image below `root`, the site's or the API's."""
    return f"{root}/images/{image.digits}{'/reduced' if reduced and image.reduced else ''}"


def whole_image(request: Request, digits: Digits) -> Response:
    """An image of the annotator's project, at full size."""
    return send_image(request, person_of(request).project.id, digits, reduced=False)


def reduced_image(request: Request, digits: Digits) -> Response:
    """A smaller copy of a large image, otherwise the image itself."""
    return send_image(request, person_of(request).project.id, digits, reduced=True)


def send_image(request: Request, project: int, digits: str, *, reduced: bool) -> Response:
    """An image of a project, if it has it and the browser's copy is another one."""
    found = store_of(request).image_file(project, f"image:{digits}", reduced=reduced)
    if found is None:
        raise refused(404, "refused_no_image")
    media_type, content = found
    headers = {"ETag": f'"{digits}{"-reduced" if reduced else ""}"'}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
