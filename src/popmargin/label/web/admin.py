"""Pages of the admin: progress, annotators and their links, export."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, RedirectResponse
from starlette.background import BackgroundTask

from popmargin.data.column_names import column_names
from popmargin.label.export.criteria_columns import criteria_labels
from popmargin.label.export.label_files import save_labels
from popmargin.label.export.ordered_ids import with_orders
from popmargin.label.export.pop_edges import pop_edges
from popmargin.label.export.preferences import preferences_of
from popmargin.label.projects.assign_items import assign_items
from popmargin.label.projects.reach import out_of_reach
from popmargin.label.projects.same_project import item_kinds
from popmargin.label.store.records import Annotator, Project, ProjectState
from popmargin.label.web.forms import Name, Note, RowId, Words
from popmargin.label.web.security import Lead
from popmargin.label.web.view import page, session_of, store_of

router = APIRouter(prefix="/admin")
_PARQUET = "application/vnd.apache.parquet"
ADMIN = "admin"
"""Who changes a project on this page, in its log, unless a lead does."""
ProjectId = Annotated[RowId, Form()]
_CHANGES = 50
Key = Annotated[str, Query(max_length=64)]


@router.get("")
def overview(
    request: Request, project: RowId | None = None, new: Key = "", given: Annotated[int | None, Query(ge=0)] = None
) -> Response:
    """Progress of a project and of each annotator; `new` shows a link that was just made, once, and `given` says how
    many items were given, moved or taken back."""
    added, token = request.app.state.links.take(new) or (None, None)
    return _overview(request, named_project(request, project), annotator=added, token=token, given=given)


@router.get("/quality")
def quality(request: Request, project: RowId | None = None) -> Response:
    """Label quality: a page that may take seconds, which the overview fetches once it has loaded."""
    found = named_project(request, project)
    figures = request.app.state.figures.of(found)
    return page(request, "quality.html.j2", projects=led_projects(request), project=found, figures=figures)


@router.post("/annotators")
def add_annotator(request: Request, project: ProjectId, name: Annotated[Name, Form()]) -> RedirectResponse:
    """Add an annotator and show the link, only once."""
    found = project_of(request, project)
    annotator, token = store_of(request).add_annotator(found.id, name.strip())
    return _shown(request, found, annotator, token)


@router.post("/guidelines")
def set_guidelines(request: Request, project: ProjectId, guidelines: Annotated[Words, Form()] = "") -> RedirectResponse:
    """Change the guidelines; people acknowledge them before their next task."""
    found = project_of(request, project)
    store_of(request).set_guidelines(found.id, guidelines.replace("\r\n", "\n"), who=_who(request))
    return _back(request, found)


@router.post("/settings")
def set_settings(
    request: Request,
    project: ProjectId,
    overlap: Annotated[int, Form()],
    repeat_percent: Annotated[float, Form(allow_inf_nan=False)],
    lease_minutes: Annotated[float, Form(allow_inf_nan=False)],
    training: Annotated[int, Form()] = 0,
    passing_percent: Annotated[float, Form(allow_inf_nan=False)] = 0.0,
    state: Annotated[ProjectState, Form()] = "open",
    votes_hidden: Annotated[bool, Form()] = False,
    shown: Annotated[Note | None, Form()] = None,
    both_bad: Annotated[bool | None, Form()] = None,
) -> RedirectResponse:
    """Change settings; what is open is planned again, and labels stay."""
    found = project_of(request, project)
    more: dict[str, Any] = {} if shown is None else {"shown": column_names(shown)}
    more |= {} if both_bad is None else {"both_bad": both_bad}
    store_of(request).change(
        found.id,
        who=_who(request),
        overlap=overlap,
        repeat_share=repeat_percent / 100,
        lease_seconds=round(lease_minutes * 60),
        training=training or None,
        passing=passing_percent / 100 if training and passing_percent else None,
        state=state,
        votes_hidden=votes_hidden,
        **more,
    )
    return _back(request, found)


@router.post("/annotators/{annotator}/adjudicator")
def set_adjudicator(
    request: Request, annotator: RowId, project: ProjectId, adjudicator: Annotated[bool, Form()]
) -> RedirectResponse:
    """Let a person decide items on which others disagree, or label like others again."""
    found = project_of(request, project)
    store_of(request).set_adjudicator(annotator_of(request, found, annotator).id, adjudicator)
    return _back(request, found)


@router.post("/annotators/{annotator}/quota")
def set_quota(
    request: Request, annotator: RowId, project: ProjectId, quota: Annotated[str, Form(pattern=r"^\d{0,9}$")] = ""
) -> RedirectResponse:
    """Ask a person for this many answers in all; empty for no limit."""
    found = project_of(request, project)
    store_of(request).set_quota(annotator_of(request, found, annotator).id, int(quota) if quota else None)
    return _back(request, found)


@router.post("/annotators/{annotator}/weight")
def set_weight(
    request: Request, annotator: RowId, project: ProjectId, weight: Annotated[float, Form(allow_inf_nan=False)]
) -> RedirectResponse:
    """Let each label of an annotator count so much."""
    found = project_of(request, project)
    store_of(request).set_weight(annotator_of(request, found, annotator).id, weight, who=_who(request))
    return _back(request, found)


@router.post("/annotators/{annotator}/lead")
def set_lead(request: Request, annotator: RowId, project: ProjectId, lead: Annotated[bool, Form()]) -> RedirectResponse:
    """Let a person see these pages with their own link; only the admin says who."""
    found = project_of(request, project)
    if isinstance(session_of(request), Lead):
        raise HTTPException(403, "Only the admin says who leads a project. Nothing was changed.")
    store_of(request).set_lead(annotator_of(request, found, annotator).id, lead)
    return _back(request, found)


@router.post("/assign")
def assign(
    request: Request,
    project: ProjectId,
    annotator: Annotated[RowId, Form()],
    items: Annotated[Words, Form()] = "",
    where: Annotated[Words, Form()] = "",
    share_percent: Annotated[str, Form(pattern=r"^(\d{1,3}(\.\d{1,6})?)?$")] = "",
    exclusive: Annotated[bool, Form()] = False,
    source: Annotated[str, Form(pattern=r"^\d{0,15}$")] = "",
    take_back: Annotated[bool, Form()] = False,
) -> RedirectResponse:
    """Give items to a person, move them from another, or take them back."""
    found, store = project_of(request, project), store_of(request)
    who, share = annotator_of(request, found, annotator), float(share_percent) / 100 if share_percent else None
    other = annotator_of(request, found, int(source)) if source else None
    columns = {name: value for name, _, value in (part.partition("=") for part in where.split())}
    done = assign_items(
        store, found, who, ids=items.split(), where=columns, share=share, exclusive=exclusive,
        source=other, take_back=take_back,
    )  # fmt: skip
    return _back(request, found, f"&given={done.taken_back if done.given is None else done.given.given}")


@router.post("/annotators/{annotator}/admit")
def let_in(request: Request, annotator: RowId, project: ProjectId) -> RedirectResponse:
    """Let an annotator go on who got too few training items right."""
    found = project_of(request, project)
    store_of(request).let_in(annotator_of(request, found, annotator).id)
    return _back(request, found)


@router.post("/annotators/{annotator}/link")
def new_link(request: Request, annotator: RowId, project: ProjectId) -> RedirectResponse:
    """Replace an annotator's link; the old one, and sessions made with it, end."""
    found = project_of(request, project)
    person = annotator_of(request, found, annotator)
    return _shown(request, found, person, store_of(request).new_token(person.id))


@router.post("/annotators/{annotator}/active")
def set_active(
    request: Request, annotator: RowId, project: ProjectId, active: Annotated[bool, Form()]
) -> RedirectResponse:
    """Activate or deactivate an annotator; the labels stay."""
    found = project_of(request, project)
    store_of(request).set_active(annotator_of(request, found, annotator).id, active)
    return _back(request, found)


@router.post("/annotators/{annotator}/discard")
def discard(request: Request, annotator: RowId, project: ProjectId) -> RedirectResponse:
    """Deactivate an annotator whose labels shall not count."""
    found = project_of(request, project)
    store_of(request).discard(annotator_of(request, found, annotator).id)
    return _back(request, found)


@router.get("/export/labels.jsonl")
def export_labels(request: Request, project: RowId | None = None) -> Response:
    """All current labels, one JSON object per line."""
    found = _exported(request, project)
    labels = with_orders(criteria_labels(store_of(request).labels(found.id), found))
    return download("labels.jsonl", "application/x-ndjson", lambda path: save_labels(labels, path))


@router.get("/export/edges.parquet")
def export_edges(request: Request, project: RowId | None = None) -> Response:
    """The pop labels as PoP edges, as training reads them."""
    edges, _ = pop_edges(store_of(request), _exported(request, project))
    return download("edges.parquet", _PARQUET, edges.save)


@router.get("/export/preferences.jsonl")
def export_preferences(request: Request, project: RowId | None = None) -> Response:
    """The preferences with what the labels say about them, such as mean ratings of their responses."""
    preferences = preferences_of(store_of(request), _exported(request, project))
    return download("preferences.jsonl", "application/x-ndjson", preferences.save)


@router.get("/export/preferences.parquet")
def export_whole_preferences(request: Request, project: RowId | None = None) -> Response:
    """The same as Parquet, which also holds images."""
    preferences = preferences_of(store_of(request), _exported(request, project))
    return download("preferences.parquet", _PARQUET, preferences.save)


def download(name: str, media_type: str, save: Callable[[Path], object]) -> FileResponse:
    """A file written by `save`; it is deleted after sending."""
    folder = tempfile.TemporaryDirectory()
    save(Path(folder.name, name))
    return FileResponse(
        Path(folder.name, name), media_type=media_type, filename=name, background=BackgroundTask(folder.cleanup)
    )


def _shown(request: Request, project: Project, annotator: Annotator, token: str) -> RedirectResponse:
    return _back(request, project, f"&new={request.app.state.links.keep(annotator, token)}")


def _back(request: Request, project: Project, more: str = "") -> RedirectResponse:
    """To the page of a project: a form is never the answer to itself, so reloading sends nothing again."""
    return RedirectResponse(f"{request.scope.get('root_path', '')}/admin?project={project.id}{more}", 303)


def _overview(
    request: Request,
    project: Project,
    *,
    annotator: Annotator | None = None,
    token: str | None = None,
    given: int | None = None,
) -> Response:
    store = store_of(request)
    annotators = store.annotators(project.id)
    rows = [(person, store.progress(project.id, person.id)) for person in annotators]
    link = None if token is None else f"{_site(request)}/login/{token}"
    return page(
        request,
        "admin.html.j2",
        projects=led_projects(request),
        project=project,
        progress=store.progress(project.id),
        rows=rows,
        added=annotator,
        link=link,
        kinds=item_kinds(store, project),
        far=out_of_reach(store, project),
        trained=store.trained(project.id),
        given=given,
        waiting=store.given(project.id),
        leads=isinstance(session_of(request), Lead),
        disputed=store.disputed(project.id) if any(person.adjudicator for person in annotators) else None,
        disputed_on=store.disputed_by_criterion(project.id),
        changes=store.changes(project.id)[: -_CHANGES - 1 : -1],
    )


def _site(request: Request) -> str:
    """The site's address as seen by the admin's browser, for links to share."""
    host = request.headers.get("x-forwarded-host") or request.headers.get("host", "")
    scheme = request.headers.get("x-forwarded-proto") or request.url.scheme
    return f"{scheme}://{host}{request.scope.get('root_path', '')}"


def named_project(request: Request, project: int | None) -> Project:
    """The project of this number, or the newest."""
    projects = led_projects(request)
    if not projects:
        raise HTTPException(404, "The store has no project yet. Create one with: popmargin annotate DATA --db FILE")
    return projects[-1] if project is None else project_of(request, project)


def _exported(request: Request, number: int | None) -> Project:
    """The project of this number, or the only one."""
    projects = led_projects(request)
    if number is None and len(projects) > 1:
        known = ", ".join(f"{project.id} ({project.name})" for project in projects)
        raise HTTPException(422, f"Choose a project by adding ?project=NUMBER to the address: {known}.")
    return named_project(request, number)


def led_projects(request: Request) -> list[Project]:
    """All projects, or those that the person leads."""
    session, projects = session_of(request), store_of(request).projects()
    return [one for one in projects if one.id in session.projects] if isinstance(session, Lead) else projects


def _who(request: Request) -> str:
    """Who changes something here, for the log."""
    session = session_of(request)
    return session.name if isinstance(session, Lead) else ADMIN


def project_of(request: Request, number: int) -> Project:
    """The project of this number, if the person leads it or a program asks.

    Raises:
        HTTPException: 404.
    """
    for project in led_projects(request):
        if project.id == number:
            return project
    raise HTTPException(404, f"There is no project {number}.")


def annotator_of(request: Request, project: Project, number: int) -> Annotator:
    """The person of this number in a project.

    Raises:
        HTTPException: 404.
    """
    for annotator in store_of(request).annotators(project.id):
        if annotator.id == number:
            return annotator
    raise HTTPException(404, f"Project '{project.name}' has no annotator {number}.")
