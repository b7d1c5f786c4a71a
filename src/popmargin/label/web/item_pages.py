"""Pages of a lead who looks through the items of a project: a list with a search, and one item with all its labels."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException, Query, Request, Response

from popmargin.errors import DataError
from popmargin.label.language.page_texts import ENGLISH, shipped
from popmargin.label.store.browse import BrowsedItem, GivenLabel, ItemState
from popmargin.label.store.records import Assignment, Project, Shown
from popmargin.label.web.admin import led_projects, named_project
from popmargin.label.web.forms import RowId, Search
from popmargin.label.web.image_routes import Digits, send_image
from popmargin.label.web.screen import choice_for, screen_of
from popmargin.label.web.view import page, store_of
from popmargin.label.web.wording import words_of

router = APIRouter(prefix="/admin")
PAGE_ITEMS = 50
STATES: dict[ItemState, str] = {
    "open": "open",
    "done": "done",
    "disputed": "people disagree",
    "skipped": "skipped by somebody",
    "notes": "with notes",
}
After = Annotated[int, Query(ge=0, le=2**53 - 1)]


@router.get("/items")
def items(
    request: Request,
    project: RowId | None = None,
    state: ItemState | None = None,
    q: Search = "",
    after: After = 0,
) -> Response:
    """Items in their order, fifty a page."""
    found = named_project(request, project)
    shown = store_of(request).browse(found.id, state=state, words=q, after=after, limit=PAGE_ITEMS)
    asked = {"project": found.id, **({"state": state} if state else {}), **({"q": q} if q else {})}
    return page(
        request,
        "items.html.j2",
        projects=led_projects(request),
        project=found,
        rows=[(one, screen_task(one), said_of(one, found)) for one in shown.items],
        states=STATES,
        state=state,
        q=q,
        after=after,
        full=len(shown.items) == PAGE_ITEMS,
        following=None if shown.last is None else urlencode({**asked, "after": shown.last}),
        asked=urlencode(asked),
    )


@router.get("/items/{item}")
def one_item(
    request: Request, item: RowId, project: RowId | None = None, state: ItemState | None = None, q: Search = ""
) -> Response:
    """One item: its texts in the order of the data, all its columns, and everybody's labels."""
    found = named_project(request, project)
    try:
        one = store_of(request).browsed(found.id, item)
    except DataError as error:
        raise HTTPException(404, str(error)) from error
    task = screen_task(one)
    asked = {"project": found.id, **({"state": state} if state else {}), **({"q": q} if q else {})}
    return page(
        request,
        "item.html.j2",
        projects=led_projects(request),
        project=found,
        item=one,
        screen=screen_of(task),
        words=words_of(one.kind, images=one.images is not None, wording=found.wording),
        labels=said_of(one, found),
        known={name: _words(one, found, verdict, None, None) for name, verdict in one.gold.items()},
        preferences=task.preferences,
        asked=urlencode(asked),
    )


@router.get("/images/{number}/{digits}")
def item_image(request: Request, number: RowId, digits: Digits) -> Response:
    """An image of a project, at full size."""
    return send_image(request, named_project(request, number).id, digits, reduced=False)


def screen_task(found: BrowsedItem) -> Assignment:
    """An item as if it were shown to somebody in the order of the data."""
    return Assignment(
        id=0,
        item=found.id,
        kind=found.kind,
        annotator=0,
        first=found.first,
        second=found.second,
        shown=Shown(
            swap_pairs=False, swap_first=False, swap_second=False, order=tuple(range(1, len(found.ranked) + 2))
        ),
        expires_at=None,
        state="done",
        label=None,
        number=0,
        response=found.response,
        images=found.images,
        others=found.ranked,
    )


def said_of(found: BrowsedItem, project: Project) -> list[tuple[GivenLabel, str]]:
    """Every label with its answer in words, sides named in the order of the data."""
    said: list[tuple[GivenLabel, str]] = []
    for one in found.labels:
        if one.verdict is not None:
            words = _words(found, project, one.verdict, one.wrong, one.grade)
        else:
            words = {"skipped": "skipped", "leased": "open now"}.get(one.state, "none")
        said.append((one, words))
    return said


def _words(found: BrowsedItem, project: Project, verdict: Any, wrong: Any, grade: int | None) -> str:
    choice = choice_for(screen_task(found), verdict, wrong)
    if choice is None:
        return str(verdict)
    words = words_of(found.kind, images=found.images is not None, wording=project.wording)[choice]
    return words if grade is None else f"{words}, {shipped(ENGLISH).said(f'grade_{grade}')}"
