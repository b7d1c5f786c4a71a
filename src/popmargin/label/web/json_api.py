"""A small JSON API next to the pages, for custom clients: the same store, the same rules, a bearer token."""

from typing import Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from popmargin.data.conversation import Text
from popmargin.data.tools import said
from popmargin.errors import DataError
from popmargin.label.store.records import Assignment, Project, ShownImage
from popmargin.label.web.criteria_answers import choices_on, said_on
from popmargin.label.web.forms import Choices, Confidence, Note, RequestKey, Revision, RowId
from popmargin.label.web.image_routes import RESPONSES, Digits, address, whole_image
from popmargin.label.web.screen import Side, choice_of, known_choice, known_choices, said_grade, screen_of
from popmargin.label.web.view import person_of, store_of, times_of, unread_guidelines
from popmargin.label.web.wording import Choice

_bearer = HTTPBearer(auto_error=False, description="The token from an annotator's link.")


class Refusal(BaseModel):
    """Why nothing was done."""

    error: str


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "The body cannot be read."},
    401: {"model": Refusal, "description": "Missing or invalid token."},
    404: {"model": Refusal, "description": "This annotator has no such task."},
    409: {"model": Refusal, "description": "The store rejects this answer."},
    422: {"model": Refusal, "description": "The request does not match the schema."},
}
_IMAGE: dict[int | str, dict[str, Any]] = {
    **RESPONSES,
    401: ERRORS[401],
    404: {"model": Refusal, "description": "The project has no such image."},
    422: {"model": Refusal, "description": "These are not 32 hex digits."},
}
BARE: dict[int | str, dict[str, Any]] = {401: ERRORS[401]}
bearer = Depends(_bearer)
"""The guard has already refused requests without a session; this documents it in OpenAPI."""
router = APIRouter(prefix="/api", dependencies=[bearer])


class ImageOut(BaseModel):
    """An image: where it is, at full size, and how large it is in pixels.

    Ask for it with the same token. It never changes, so it can be kept.
    """

    url: str
    width: int
    height: int


class ResponseOut(BaseModel):
    """A response; `preferred` is null where the annotator is not told, `image` where the response is a text.

    The text of an image is its name.
    """

    text: str | list[dict[str, str]]
    preferred: bool | None
    image: ImageOut | None


class SideOut(BaseModel):
    """One side of the screen; `columns` are those of the data that the project shows, by name."""

    prompt: str | list[dict[str, str]]
    responses: list[ResponseOut]
    columns: dict[str, str]


class CriterionOut(BaseModel):
    """One of several questions about a task."""

    name: str
    question: str


class Task(BaseModel):
    """A task as it stands on the screen; one that asks for a rating from 1 to `scale` has no right side.

    In a ranking, `left` is pair 1, `right` pair 2, and `more` are the others; an answer is their order, such as
    "2>1>3", that with the largest difference first. `revision` counts the answers so far. With `criteria`, an answer
    has `choices` by their names, and `choice` is that on the first of them.
    """

    assignment: int
    number: int
    kind: Literal["preference", "pop", "rating", "rank"]
    left: SideOut
    right: SideOut | None
    more: list[SideOut]
    scale: int | None
    choice: Choice | None
    revision: int
    criteria: list[CriterionOut]
    choices: dict[str, Choice]


class ProgressOut(BaseModel):
    """How far the project and this annotator are."""

    items: int
    labels_wanted: int
    labels_done: int
    leased: int
    own_done: int
    own_skipped: int
    own_left: int
    own_given: int


class GuidelinesOut(BaseModel):
    """A version of the guidelines, as Markdown."""

    version: int
    text: str


class Next(BaseModel):
    """The open task; null when there is nothing left.

    `guidelines` are there until they are acknowledged: show them before the task.
    """

    task: Task | None
    guidelines: GuidelinesOut | None


class Acknowledged(BaseModel):
    """The version of the guidelines that the annotator has read."""

    model_config = ConfigDict(extra="forbid")

    version: RowId


class Answer(BaseModel):
    """An answer as shown on the screen.

    In a project with criteria, `choices` has one on each of them, in place of `choice`. With the task's `revision`, an
    answer that was given elsewhere since then is not replaced but reported (409).
    """

    model_config = ConfigDict(extra="forbid")

    assignment: RowId
    choice: Choice | None = None
    choices: Choices = Field(default_factory=dict)
    request: RequestKey
    note: Note = ""
    confidence: Confidence = None
    revision: Revision = None


class Saved(BaseModel):
    """The label as it is stored; `known` is the known answer to a training item, to be shown to the annotator.

    With criteria it is that on the first, and `known_choices` has those on the others, by name.
    """

    label: int
    assignment: int
    revision: int
    known: Choice | None
    known_choices: dict[str, Choice] = Field(default_factory=dict)


@router.get("/next", responses=BARE)
def next_task(request: Request) -> Next:
    """The annotator's open task: the same one until it is answered."""
    return next_of(request, store_of(request).next_assignment(person_of(request).annotator.id))


@router.post("/guidelines", responses=ERRORS)
def acknowledge(request: Request, read: Acknowledged) -> Acknowledged:
    """Say that the annotator has read a version of the guidelines; the labels from now on are under it."""
    store_of(request).acknowledge(person_of(request).annotator.id, read.version)
    return read


@router.post("/labels", responses=ERRORS)
def save_label(request: Request, answer: Answer) -> Saved:
    """Save an answer. Send it again with the same `request` after a failure: nothing is saved twice."""
    person = person_of(request)
    store = store_of(request)
    try:
        found = store.assignment(person.annotator.id, answer.assignment)
    except DataError as error:
        raise HTTPException(404, str(error)) from error
    verdict, wrong, criteria = said_on(person.project, found, answer.choice, answer.choices)
    label = store.record(
        person.annotator.id,
        found.id,
        verdict,
        request=answer.request,
        wrong=wrong,
        confidence=answer.confidence,
        note=answer.note,
        seen=answer.revision,
        grade=None if answer.choice is None else said_grade(answer.choice),
        criteria=criteria,
        **times_of(found, store.now()),
    )
    after = store.assignment(person.annotator.id, found.id) if found.training else found
    known, others = known_choice(after), known_choices(after)
    return Saved(
        label=label.id, assignment=label.assignment, revision=label.revision, known=known, known_choices=others
    )


@router.post("/undo", responses=BARE)
def undo(request: Request) -> Next:
    """Withdraw the newest answer; its task is the open one again. Null when there was nothing to withdraw."""
    return next_of(request, store_of(request).undo(person_of(request).annotator.id))


@router.get("/progress", responses=BARE)
def progress(request: Request) -> ProgressOut:
    """How far the project and this annotator are."""
    person = person_of(request)
    found = store_of(request).progress(person.project.id, person.annotator.id)
    return ProgressOut(**{name: getattr(found, name) for name in ProgressOut.model_fields})


@router.get("/images/{digits}", responses=_IMAGE, response_class=Response)
def image(request: Request, digits: Digits) -> Response:
    """An image of the annotator's project at full size, by the digits of its name."""
    return whole_image(request, digits)


def next_of(request: Request, assignment: Assignment | None) -> Next:
    """The answer with a task, and with guidelines that are not acknowledged."""
    person = person_of(request)
    unread = unread_guidelines(person)
    text = GuidelinesOut(version=person.project.guidelines_version, text=person.project.guidelines) if unread else None
    return Next(task=None if assignment is None else task_of(request, assignment, person.project), guidelines=text)


def task_of(request: Request, assignment: Assignment, project: Project) -> Task:
    """An assignment as it stands on the screen."""
    screen, root = screen_of(assignment), f"{request.scope.get('root_path', '')}/api"
    return Task(
        assignment=assignment.id,
        number=assignment.number,
        kind=assignment.kind,
        left=_side(screen.left, root),
        right=None if screen.right is None else _side(screen.right, root),
        more=[_side(side, root) for side in screen.more],
        scale=project.scale if assignment.kind == "rating" else None,
        choice=choice_of(assignment),
        revision=assignment.revision,
        criteria=[CriterionOut(name=one.name, question=one.question) for one in project.criteria],
        choices=choices_on(project, assignment) if project.criteria else {},
    )


def _side(side: Side, root: str) -> SideOut:
    responses = [
        ResponseOut(text=text_of(r.text), preferred=r.preferred, image=_image(r.image, root)) for r in side.responses
    ]
    return SideOut(prompt=text_of(side.prompt), responses=responses, columns=dict(side.columns))


def _image(image: ShownImage | None, root: str) -> ImageOut | None:
    if image is None:
        return None
    return ImageOut(url=address(root, image, reduced=False), width=image.width, height=image.height)


def text_of(text: Text) -> str | list[dict[str, str]]:
    """A text, or what each turn of a conversation says."""
    return text if isinstance(text, str) else [{"role": turn["role"], "content": said(turn)} for turn in text]
