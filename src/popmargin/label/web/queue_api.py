"""JSON API of an annotator's queues: own answers to look at again, skipped tasks, and disputed items to choose from."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict

from popmargin.label.store.records import State
from popmargin.label.web.forms import RowId
from popmargin.label.web.json_api import BARE, ERRORS, Next, Task, bearer, next_of, task_of, text_of
from popmargin.label.web.view import person_of, store_of

router = APIRouter(prefix="/api", dependencies=[bearer])
_ROWS = 50
_READ: dict[int | str, dict[str, Any]] = {401: ERRORS[401], 422: ERRORS[422]}


class QueueOut(BaseModel):
    """A page of tasks, newest first; `older` is the next page's `before`, null on the last."""

    tasks: list[Task]
    older: int | None


class DisputedOut(BaseModel):
    """An item on which people disagree."""

    item: int
    prompts: list[str | list[dict[str, str]]]
    votes: int


class Wanted(BaseModel):
    """Which queue: `mine`, answers that can be changed, or `skipped`; and which page of it."""

    model_config = ConfigDict(extra="forbid")

    which: Literal["mine", "skipped"] = "mine"
    before: RowId | None = None


class Resumed(BaseModel):
    """The skipped task to open."""

    model_config = ConfigDict(extra="forbid")

    assignment: RowId


class Chosen(BaseModel):
    """The disputed item to decide."""

    model_config = ConfigDict(extra="forbid")

    item: RowId


@router.get("/queue", responses=_READ)
def queue(request: Request, wanted: Annotated[Wanted, Query()]) -> QueueOut:
    """The annotator's own answers, which `POST /api/labels` changes, or the tasks that they skipped."""
    person = person_of(request)
    states: tuple[State, ...] = ("done",) if wanted.which == "mine" else ("skipped",)
    rows = store_of(request).history(person.annotator.id, limit=_ROWS, before=wanted.before, states=states)
    return QueueOut(
        tasks=[task_of(request, row, person.project) for row in rows],
        older=rows[-1].id if len(rows) == _ROWS else None,
    )


@router.post("/resume", responses=ERRORS)
def resume(request: Request, skipped: Resumed) -> Next:
    """Open a skipped task: it is the next one."""
    store, who = store_of(request), person_of(request).annotator.id
    store.resume(who, skipped.assignment)
    return next_of(request, store.next_assignment(who))


@router.get("/disputed", responses=BARE)
def disputed(request: Request) -> list[DisputedOut]:
    """The first items that wait for an adjudicator; none for others."""
    person = person_of(request)
    found = store_of(request).disputed_items(person.project.id, _ROWS) if person.annotator.adjudicator else []
    return [
        DisputedOut(item=one.item, prompts=[text_of(text) for text in one.prompts], votes=one.votes) for one in found
    ]


@router.post("/decide", responses=ERRORS)
def decide(request: Request, chosen: Chosen) -> Next:
    """Open a disputed item for an adjudicator: it is the next one."""
    store, who = store_of(request), person_of(request).annotator.id
    store.take_disputed(who, chosen.item)
    return next_of(request, store.next_assignment(who))
