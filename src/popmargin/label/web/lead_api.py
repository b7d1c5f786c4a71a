"""The lead's JSON API: projects, rows, people, settings and the report, for programs with a token of their own."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from popmargin.data.questions import Kind
from popmargin.data.schema import Preferences
from popmargin.data.validate import describe_problems
from popmargin.label.language.page_texts import kept_language, texts_of
from popmargin.label.projects.append import append_rows
from popmargin.label.projects.open_project import open_project
from popmargin.label.projects.reach import out_of_reach
from popmargin.label.quality.projects_quality import projects_quality
from popmargin.label.quality.report_page import quality_json, reading
from popmargin.label.store.criteria import criteria_of
from popmargin.label.store.records import Annotator, Project, ProjectState
from popmargin.label.web.admin import annotator_of, project_of
from popmargin.label.web.forms import Name, RowId, Words
from popmargin.label.web.json_api import Refusal
from popmargin.label.web.posted_rows import rows_as_preferences
from popmargin.label.web.security import LEAD, Program
from popmargin.label.web.view import session_of, store_of

bearer = HTTPBearer(auto_error=False, description="A token from `popmargin label token add NAME`.")
LEAD_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "The request cannot be read."},
    401: {"model": Refusal, "description": "Missing or unknown token."},
    403: {"model": Refusal, "description": "The token may only read."},
    404: {"model": Refusal, "description": "There is no such project or annotator."},
    409: {"model": Refusal, "description": "Refused, with the reason; nothing was changed."},
    422: {"model": Refusal, "description": "The request does not match the schema."},
}
Language = Annotated[
    str | dict[str, str] | None,
    Field(description="of the annotators' pages: the tag of a shipped one, or all its texts by key"),
]
Shown = Annotated[list[Name] | None, Field(max_length=100, description="columns that people see with a task")]
Rows = Annotated[list[dict[str, Any]], Field(min_length=1, max_length=100_000)]
_SETTINGS = ("overlap", "repeat_share", "lease_seconds", "training", "passing", "state", "votes_hidden", "both_bad",
             "shown")  # fmt: skip


def owner_of(request: Request) -> str:
    """Who uses the API, for the log of a project.

    Raises:
        HTTPException: 403, a change with a token that may only read.
    """
    session = session_of(request)
    assert isinstance(session, Program)  # the guard lets nobody else through
    if session.owner.role != "lead" and request.method not in ("GET", "HEAD"):
        raise HTTPException(403, f"The token '{session.owner.name}' may only read. Nothing was changed.")
    return f"token {session.owner.name}"


router = APIRouter(prefix=LEAD, dependencies=[Depends(bearer), Depends(owner_of)], responses=LEAD_ERRORS)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewCriterion(_Body):
    """One of several questions about each task."""

    name: Name
    question: Name


class NewProject(_Body):
    """Rows in any layout that `label import` reads, and the settings of the project; null means the default."""

    name: Name
    rows: Rows
    kind: Kind | None = None
    scale: int | None = None
    rank: int | None = None
    sampling: str | None = None
    k: int | None = None
    seed: int | None = None
    overlap: int | None = None
    repeat_share: float | None = None
    lease_seconds: int | None = None
    guidelines: Words | None = None
    wording: str | None = None
    grades: bool | None = None
    both_bad: bool | None = None
    shown: Shown = None
    language: Language = None
    criteria: Annotated[list[NewCriterion] | None, Field(max_length=20)] = None
    drop_bad_rows: bool = False


class MoreRows(_Body):
    """Rows to append; those that the project has are counted and left alone."""

    rows: Rows
    drop_bad_rows: bool = False


class Imported(BaseModel):
    """The project, and what was done with the rows."""

    project: int
    name: str
    said: list[str]


class Settings(_Body):
    """What to change; what is left out stays. 0 for `training` or `passing` ends it."""

    overlap: int | None = None
    repeat_share: float | None = None
    lease_seconds: int | None = None
    training: int | None = None
    passing: float | None = None
    state: ProjectState | None = None
    votes_hidden: bool | None = None
    both_bad: bool | None = None
    shown: Shown = None
    language: Language = None


class Guidelines(_Body):
    """Markdown."""

    text: Words


class NewAnnotator(_Body):
    """A person who labels."""

    name: Name


class AnnotatorChange(_Body):
    """What to change about a person; what is left out stays.

    `discarded`: their labels shall not count, and others get their places; `active: true` takes that back. A `quota`
    of -1 means no limit. `held: false` lets somebody go on who got too few training items right.
    """

    active: bool | None = None
    discarded: Literal[True] | None = None
    adjudicator: bool | None = None
    quota: Annotated[int | None, Field(ge=-1)] = None
    weight: Annotated[float | None, Field(description="how much each of their labels counts, up to 1")] = None
    held: Literal[False] | None = None


@router.get("/projects")
def projects(request: Request) -> list[dict[str, Any]]:
    """All projects with settings and progress."""
    return [_project(request, found) for found in store_of(request).projects()]


@router.post("/projects", status_code=201)
def make_project(request: Request, new: NewProject) -> Imported:
    """Make a project from rows, as `label import` does; all rows are kept or reported."""
    store = store_of(request)
    if any(found.name == new.name for found in store.projects()):
        raise HTTPException(409, f"Project '{new.name}' already exists. Append rows to it, or choose another name.")
    pairs = "best_vs_rest" if new.kind == "rating" else "best_vs_worst"
    data = rows_as_preferences(new.rows, pairs=pairs, drop_bad=new.drop_bad_rows)
    settings = new.model_dump(exclude={"name", "rows", "drop_bad_rows"})
    if new.criteria is not None:
        settings["criteria"] = criteria_of([(one.name, one.question) for one in new.criteria])
    if new.shown is not None:
        settings["shown"] = tuple(new.shown)
    if new.language is not None:
        settings["language"] = kept_language(new.language, "language")
    said = _told(data)
    made = open_project(store, data, new.name, say=said.append, **settings)
    return Imported(project=made.id, name=made.name, said=said)


@router.get("/projects/{project}")
def project(request: Request, project: RowId) -> dict[str, Any]:
    """Settings and progress of a project and of its annotators, and the log of its changes."""
    found, store = project_of(request, project), store_of(request)
    people = [_annotator(request, found, who) for who in store.annotators(found.id)]
    changes = [
        {"at": one.at.isoformat(), "who": one.who, "setting": one.setting, "before": one.before, "after": one.after}
        for one in store.changes(found.id)
    ]
    return _project(request, found) | {"annotators": people, "changes": changes}


@router.post("/projects/{project}/rows")
def add_rows(request: Request, project: RowId, more: MoreRows) -> Imported:
    """Append rows, also while people label, as `label import --append` does; changed rows are refused."""
    found, store = project_of(request, project), store_of(request)
    pairs = "best_vs_rest" if found.scale is not None else "best_vs_worst"
    data = rows_as_preferences(more.rows, pairs=pairs, drop_bad=more.drop_bad_rows)
    said = _told(data)
    append_rows(store, found, data, drop_changed=more.drop_bad_rows, say=said.append)
    return Imported(project=found.id, name=found.name, said=said)


@router.patch("/projects/{project}")
def change(request: Request, project: RowId, settings: Settings) -> dict[str, Any]:
    """Change settings while people label; no label is lost."""
    found = project_of(request, project)
    given: dict[str, Any] = {name: value for name, value in settings.model_dump().items() if value is not None}
    if settings.shown is not None:
        given["shown"] = tuple(settings.shown)
    if settings.language is not None:
        given["language"] = kept_language(settings.language, "language")
    for name in ("training", "passing"):
        if given.get(name) == 0:
            given[name] = None
    if given.get("training", 1) is None:
        given.setdefault("passing", None)
    store_of(request).change(found.id, who=owner_of(request), **given)
    return _project(request, project_of(request, project))


@router.get("/projects/{project}/guidelines")
def guidelines(request: Request, project: RowId) -> dict[str, Any]:
    """The guidelines and their version."""
    found = project_of(request, project)
    return {"version": found.guidelines_version, "text": found.guidelines}


@router.put("/projects/{project}/guidelines")
def set_guidelines(request: Request, project: RowId, new: Guidelines) -> dict[str, Any]:
    """Change the guidelines; people acknowledge them before their next task."""
    store = store_of(request)
    changed = store.set_guidelines(project_of(request, project).id, new.text, who=owner_of(request))
    return {"version": changed.guidelines_version, "text": changed.guidelines}


@router.get("/projects/{project}/report")
def report(
    request: Request, project: RowId, without: Annotated[list[str] | None, Query(max_length=100)] = None
) -> dict[str, Any]:
    """All numbers of `label report --json`, and their reading in sentences; it may take seconds."""
    found = project_of(request, project)
    quality, _ = projects_quality([(store_of(request), found)], without=without or ())
    return quality_json(quality) | {"reading": reading(quality)}


@router.post("/projects/{project}/annotators", status_code=201)
def add_annotator(request: Request, project: RowId, new: NewAnnotator) -> dict[str, Any]:
    """Add a person; the token is returned only here, and opens SITE/login/TOKEN and the annotator's API."""
    found = project_of(request, project)
    who, token = store_of(request).add_annotator(found.id, new.name)
    return {"id": who.id, "name": who.name, "token": token}


@router.patch("/projects/{project}/annotators/{annotator}")
def change_annotator(request: Request, project: RowId, annotator: RowId, wanted: AnnotatorChange) -> dict[str, Any]:
    """Switch a person off or on, discard the labels, give a quota, or let them adjudicate."""
    found, store = project_of(request, project), store_of(request)
    who = annotator_of(request, found, annotator)
    if wanted.discarded and wanted.active:
        raise HTTPException(409, "Labels that are discarded are those of somebody who is not active: omit active.")
    if wanted.active is not None:
        store.set_active(who.id, wanted.active)
    if wanted.discarded:
        store.discard(who.id)
    if wanted.adjudicator is not None:
        store.set_adjudicator(who.id, wanted.adjudicator)
    if wanted.quota is not None:
        store.set_quota(who.id, None if wanted.quota < 0 else wanted.quota)
    if wanted.weight is not None:
        store.set_weight(who.id, wanted.weight, who=owner_of(request))
    if wanted.held is False:
        store.let_in(who.id)
    return _annotator(request, found, annotator_of(request, found, annotator))


@router.post("/projects/{project}/annotators/{annotator}/token")
def new_token(request: Request, project: RowId, annotator: RowId) -> dict[str, Any]:
    """A new token for a person; the old one, and sessions made with it, end."""
    who = annotator_of(request, project_of(request, project), annotator)
    return {"id": who.id, "name": who.name, "token": store_of(request).new_token(who.id)}


@router.delete("/projects/{project}/annotators/{annotator}")
def forget(request: Request, project: RowId, annotator: RowId) -> dict[str, Any]:
    """Remove a person's name, notes and access for good; the labels stay under a pseudonym."""
    who = annotator_of(request, project_of(request, project), annotator)
    return {"id": who.id, "name": store_of(request).forget(who.id)}


@router.get("/openapi.json", include_in_schema=False)
def schema(request: Request) -> Response:
    """The whole schema, also at /api/openapi.json for annotators."""
    return JSONResponse(request.app.openapi())


def _told(data: Preferences) -> list[str]:
    """The account of reading the rows, and the rows that cannot be used."""
    problems = data.report.problems
    named = describe_problems(problems, limit=20).splitlines() if problems else []
    return [data.report.step().arithmetic, *named, *data.report.notes]


def _project(request: Request, found: Project) -> dict[str, Any]:
    store = store_of(request)
    progress = store.progress(found.id)
    names = ("items", "labels_wanted", "labels_done", "leased")
    return {
        "id": found.id,
        "name": found.name,
        "kind": store.first_kind(found.id),
        "preferences": found.preferences,
        "gold_items": found.gold_items,
        "scale": found.scale,
        "seed": found.seed,
        "wording": found.wording,
        "grades": found.grades,
        "language": texts_of(found.language, f"project '{found.name}'").lang,
        "guidelines_version": found.guidelines_version,
        "created_at": found.created_at.isoformat(),
        **{name: getattr(found, name) for name in _SETTINGS},
        **{name: getattr(progress, name) for name in names},
        "disputed": store.disputed(found.id),
        "disputed_by_criterion": store.disputed_by_criterion(found.id),
        "out_of_reach": out_of_reach(store, found),
    }


def _annotator(request: Request, project: Project, who: Annotator) -> dict[str, Any]:
    progress = store_of(request).progress(project.id, who.id)
    names = ("id", "name", "kind", "active", "discarded", "held", "adjudicator", "quota", "weight", "guidelines_seen")
    own = ("own_done", "own_skipped", "own_left")
    return {name: getattr(who, name) for name in names} | {name: getattr(progress, name) for name in own}
