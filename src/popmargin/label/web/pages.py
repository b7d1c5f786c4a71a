"""Pages of an annotator: the next task, answers, skip, undo, earlier answers.

Every form works without scripts: it posts and is redirected with 303. With scripts, htmx does the same without a page
load, and extracts the task from the returned page.
"""

from collections.abc import Mapping
from math import comb
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Path, Request, Response

from popmargin.data.questions import RATINGS, is_order, turned_pairs
from popmargin.errors import DataError
from popmargin.label.language.page_texts import ENGLISH, shipped
from popmargin.label.store.answers import StaleAnswerError
from popmargin.label.store.records import Assignment, Project, State
from popmargin.label.web.criteria_answers import FIELD, choices_on, criteria_form, said_on, told_on
from popmargin.label.web.forms import Confidence, Note, RequestKey, Revision, RowId, Seconds, new_request
from popmargin.label.web.image_routes import RESPONSES, reduced_image, whole_image
from popmargin.label.web.languages import Languages
from popmargin.label.web.ranked_answers import order_said, pair_buttons, places_of
from popmargin.label.web.screen import (
    SURE,
    choice_for,
    choice_of,
    said_grade,
    screen_of,
    sure_of,
)
from popmargin.label.web.security import JOIN, MOST_PROJECTS, Person, cookie_name, tokens_of
from popmargin.label.web.view import (
    go,
    language_of,
    page,
    person_of,
    refused,
    site_of,
    store_of,
    times_of,
    unread_guidelines,
)
from popmargin.label.web.wording import (
    Choice,
    arrows_of,
    buttons_of,
    question_of,
    signed_rule,
    wording_in,
    words_of,
)

router = APIRouter()
router.get("/images/{digits}", responses=RESPONSES)(whole_image)
router.get("/images/{digits}/reduced", responses=RESPONSES)(reduced_image)
PAGE_ROWS = 50
Queue = Literal["mine", "skipped", "disputed"]
_MONTH = 30 * 24 * 3600


@router.get("/login/{token}")
def login(request: Request, token: Annotated[str, Path(max_length=4000)]) -> Response:
    """Turn the token of a link into a session; the token is checked again with every request.

    A link may hold the tokens of several projects, and a browser keeps those of earlier links.
    """
    sessions, given = request.app.state.sessions, token.split(JOIN)
    people, admin = sessions.people(given), sessions.admin(token)
    if not people and admin is None and any(store_of(request).is_switched_off(one) for one in given):
        raise refused(403, "refused_switched_off")
    if not people and admin is None:
        raise refused(401, "refused_link")
    # A page that continues by itself, not a redirect: browsers send no SameSite=Strict cookie along a redirect chain
    # that began on another site, and links come by mail.
    one = people[0] if len(people) == 1 else None
    target = f"/p/{one.project.id}/" if one is not None else "/"
    if not people or (one is not None and one.annotator.lead):
        target = "/admin" if one is None else f"/admin?project={one.project.id}"
    languages: Languages = request.app.state.languages
    texts = languages.of_all([person.project for person in people]) if people else shipped(ENGLISH)
    response = page(request, "login.html.j2", texts=texts, target=target)
    if people:
        kept = sessions.people([*tokens_of(request.cookies, request.headers), *given])
        _keep(request, response, "annotator", JOIN.join(person.token for person in kept[-MOST_PROJECTS:]))
    else:
        _keep(request, response, "admin", token)
    return response


def _keep(request: Request, response: Response, role: Literal["annotator", "admin"], value: str) -> None:
    response.set_cookie(
        cookie_name(role, request.headers),
        value,
        max_age=_MONTH,
        path=f"{site_of(request)}/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


@router.get("/")
def task(request: Request) -> Response:
    """The open task of this annotator, the same until it is answered or skipped; new guidelines come first."""
    person = person_of(request)
    store = store_of(request)
    if request.state.project is None:
        return _projects(request)
    if unread_guidelines(person):
        return page(request, "guidelines.html.j2", project=person.project)
    if _needs_example(request, person):
        return go(request, "/example")
    assignment = store.next_assignment(person.annotator.id)
    progress = store.progress(person.project.id, person.annotator.id)
    if assignment is None:
        tried = store.trained(person.project.id).get(person.annotator.id) if person.annotator.held else None
        ranked = tried is not None and store.first_kind(person.project.id) == "rank"
        return page(request, "finished.html.j2", progress=progress, project=person.project, tried=tried, ranked=ranked)
    return _task_page(request, person, assignment, editing=False)


def _projects(request: Request) -> Response:
    """The project of this browser's session, or a list of them."""
    people = request.app.state.sessions.people(tokens_of(request.cookies, request.headers))
    people = [person for person in people if person.project.state != "archived"] or people
    if len(people) == 1:
        return go(request, f"/p/{people[0].project.id}/")
    store = store_of(request)
    rows = [(person, store.progress(person.project.id, person.annotator.id)) for person in people]
    return page(request, "projects.html.j2", rows=sorted(rows, key=lambda row: row[0].project.name))


@router.post("/guidelines")
def acknowledge(request: Request, version: Annotated[RowId, Form()]) -> Response:
    """Note that the annotator has read this version of the guidelines, and go on."""
    store_of(request).acknowledge(person_of(request).annotator.id, version)
    return go(request, "/")


@router.get("/example")
def example(request: Request) -> Response:
    """A worked example of comparing pairs: before the first task, and whenever it is asked for."""
    project = person_of(request).project
    texts = language_of(request)
    question = question_of("pop", images=False, wording=project.wording, texts=texts)
    rule = signed_rule(images=False, wording=project.wording, texts=texts)
    return page(request, "example.html.j2", question=question, rule=rule, project=project)


@router.post("/example")
def example_read(request: Request) -> Response:
    """The worked example has been read."""
    store_of(request).note_example(person_of(request).annotator.id)
    return go(request, "/")


@router.get("/item/{assignment}")
def edit(request: Request, assignment: RowId) -> Response:
    """An earlier answer, to be changed."""
    person = person_of(request)
    found = _own(request, person, assignment)
    if found.label is None or found.label.verdict is None:
        return go(request, "/")
    return _task_page(request, person, found, editing=True)


@router.post("/answer")
def answer(
    request: Request,
    assignment: Annotated[RowId, Form()],
    key: Annotated[RequestKey, Form()],
    choices: Annotated[dict[str, str], Depends(criteria_form)],
    choice: Annotated[Choice | None, Form()] = None,
    note: Annotated[Note, Form()] = "",
    confidence: Annotated[Confidence, Form()] = None,
    back: Annotated[Literal["task", "history"], Form()] = "task",
    revision: Annotated[Revision, Form()] = None,
    idle: Annotated[Seconds, Form()] = 0.0,
) -> Response:
    """Save an answer; the same key again saves nothing new and is answered the same.

    If the task was answered since the page was loaded, say what stands and ask.
    """
    person = person_of(request)
    found = _own(request, person, assignment)
    verdict, wrong, criteria = said_on(person.project, found, choice, choices)
    try:
        store_of(request).record(
            person.annotator.id,
            found.id,
            verdict,
            request=key,
            wrong=wrong,
            confidence=confidence,
            note=note.strip(),
            seen=revision,
            grade=None if choice is None else said_grade(choice),
            criteria=criteria,
            **times_of(found, store_of(request).now(), idle),
        )
    except StaleAnswerError:
        given = {"note": note, "back": back, "idle": idle}
        fields = {FIELD + name: value for name, value in choices.items()}
        given |= fields if choice is None else {"choice": choice}
        given |= {} if confidence is None else {"confidence": confidence}
        return _stale_page(request, person, _own(request, person, assignment), given)
    if found.training and back == "task":
        return go(request, f"/told/{found.id}", "saved")
    return go(request, "/" if back == "task" else "/history", "saved")


@router.get("/told/{assignment}")
def told(request: Request, assignment: RowId) -> Response:
    """The known answer to a training item, after the annotator's own."""
    person = person_of(request)
    found = _own(request, person, assignment)
    answers = told_on(person.project, found)
    if not answers:
        return go(request, "/")
    words = _words(request, person, found)
    known, given = answers[0].known, answers[0].given
    turned = turned_pairs(given, known) if is_order(given) and is_order(known) else []
    return page(
        request,
        "told.html.j2",
        assignment=found,
        answers=answers,
        words=words,
        right=all(one.right for one in answers),
        turned=[(words[RATINGS[above - 1]], words[RATINGS[below - 1]]) for above, below in turned],
        comparisons=comb(len(found.preferences), 2),
        project=person.project,
    )


@router.post("/skip")
def skip(request: Request, assignment: Annotated[RowId, Form()]) -> Response:
    """Put the task off; it comes back last and does not count as done."""
    person = person_of(request)
    found = _own(request, person, assignment)
    if found.state == "leased":  # pressing again changes nothing
        store_of(request).skip(person.annotator.id, found.id)
    return go(request, "/", "skipped")


@router.post("/undo")
def undo(request: Request) -> Response:
    """Take the newest answer back and show its task again."""
    person = person_of(request)
    undone = store_of(request).undo(person.annotator.id)
    return go(request, "/", "undone" if undone is not None else "")


@router.get("/history")
def history(request: Request, before: RowId | None = None) -> Response:
    """The annotator's own answers, newest first."""
    return _queue(request, "mine", before)


@router.get("/skipped")
def skipped(request: Request, before: RowId | None = None) -> Response:
    """What the annotator has skipped and not answered since, newest first."""
    return _queue(request, "skipped", before)


@router.get("/disputed")
def disputed(request: Request) -> Response:
    """What waits for an adjudicator, who may choose; empty for others."""
    return _queue(request, "disputed", None)


def _queue(request: Request, which: Queue, before: int | None) -> Response:
    person, store = person_of(request), store_of(request)
    who, project = person.annotator, person.project
    states: tuple[State, ...] = ("done",) if which == "mine" else ("skipped",)
    rows = [] if which == "disputed" else store.history(who.id, limit=PAGE_ROWS, before=before, states=states)
    waiting = store.disputed(project.id) if who.adjudicator else None
    return page(
        request,
        "history.html.j2",
        which=which,
        rows=rows,
        items=store.disputed_items(project.id, PAGE_ROWS) if which == "disputed" and who.adjudicator else [],
        waiting=waiting,
        older=rows[-1].id if len(rows) == PAGE_ROWS else None,
        before=before,
        progress=store.progress(project.id, who.id),
        project=project,
    )


@router.post("/resume")
def resume(request: Request, assignment: Annotated[RowId, Form()]) -> Response:
    """Open a skipped task now."""
    person = person_of(request)
    store_of(request).resume(person.annotator.id, _own(request, person, assignment).id)
    return go(request, "/")


@router.post("/decide")
def decide(request: Request, item: Annotated[RowId, Form()]) -> Response:
    """Open the disputed item that an adjudicator has chosen."""
    store_of(request).take_disputed(person_of(request).annotator.id, item)
    return go(request, "/")


@router.post("/logout")
def logout(request: Request) -> Response:
    """Forget the session in this browser; those of other projects go on."""
    person, response = person_of(request), go(request, "/signed-out")
    others = [token for token in tokens_of(request.cookies, request.headers) if token != person.token]
    if others:
        _keep(request, response, "annotator", JOIN.join(others))
    else:
        response.delete_cookie(cookie_name("annotator", request.headers), path=f"{site_of(request)}/")
    return response


@router.get("/signed-out")
def signed_out(request: Request) -> Response:
    """What is left to do after signing out."""
    texts = language_of(request)
    title, message = texts.said("signed_out"), texts.said("signed_out_text")
    return page(request, "error.html.j2", title=title, message=message, detail="")


def _task_page(request: Request, person: Person, assignment: Assignment, *, editing: bool) -> Response:
    project, texts, kind = person.project, language_of(request), assignment.kind
    size, ranked = len(assignment.preferences), assignment.kind == "rank"
    asked: dict[str, Any] = {"images": assignment.images is not None, "wording": project.wording, "texts": texts}
    buttons = buttons_of(kind, project.scale, grades=project.grades, both_bad=project.both_bad, rtl=texts.rtl)
    return page(
        request,
        "task.html.j2",
        assignment=assignment,
        screen=screen_of(assignment),
        question=question_of(kind, criteria=len(project.criteria), **asked),
        rule=signed_rule(kind, **asked),
        words=words_of(kind, **asked),
        buttons=pair_buttons(size) if ranked else buttons,
        fields=places_of(size, texts) if ranked else project.criteria,
        arrows=arrows_of(rtl=texts.rtl),
        wording=wording_in(texts, project.wording),
        present=None if person.project.criteria else choice_of(assignment),
        chosen=choices_on(person.project, assignment),
        note="" if assignment.label is None else assignment.label.note,
        levels=SURE,
        sure=sure_of(assignment),
        key=new_request(),
        editing=editing,
        progress=store_of(request).progress(person.project.id, person.annotator.id),
        project=person.project,
        votes=_votes(request, person, assignment),
    )


def _votes(request: Request, person: Person, assignment: Assignment) -> list[dict[str, str]] | None:
    """What others say of a disputed item, in terms of this screen; None where it is not shown."""
    if not assignment.adjudicates or person.project.votes_hidden:
        return None
    words = _words(request, person, assignment)
    votes = store_of(request).votes_on(assignment.item)
    said: list[dict[str, str]] = []
    for vote in votes:
        choices: dict[str, Choice | None] = {"": choice_for(assignment, vote.verdict, vote.wrong)}
        choices |= {f"{name}: ": choice_for(assignment, verdict, None) for name, verdict in vote.criteria.items()}
        told = [f"{name}{words[choice]}" for name, choice in choices.items() if choice is not None]
        said.append({"said": "; ".join(told), "note": vote.note})
    return said


def _needs_example(request: Request, person: Person) -> bool:
    """Whether somebody who has answered nothing yet is about to compare pairs of texts."""
    who = person.annotator
    if who.example_seen or person.project.images or person.project.scale is not None:
        return False
    store = store_of(request)
    return store.first_kind(person.project.id) == "pop" and not store.progress(person.project.id, who.id).own_done


def _stale_page(request: Request, person: Person, assignment: Assignment, given: dict[str, Any]) -> Response:
    """What stands, what was sent, and a form that replaces the one by the other."""
    again = {"assignment": assignment.id, "key": new_request(), "revision": assignment.revision, **given}
    words = _words(request, person, assignment)
    return page(
        request,
        "stale.html.j2",
        409,
        assignment=assignment,
        chosen=_in_words(words, person.project, assignment, given),
        again=again,
        project=person.project,
    )


def _words(request: Request, person: Person, assignment: Assignment) -> dict[Choice, str]:
    """The answers to an assignment in the words of the page."""
    images, texts = assignment.images is not None, language_of(request)
    return words_of(assignment.kind, images=images, wording=person.project.wording, texts=texts)


def _in_words(words: Mapping[Choice, str], project: Project, assignment: Assignment, given: Mapping[str, Any]) -> str:
    """What a form says, in the words of the page."""
    if assignment.kind == "rank" and "choice" not in given:
        places = {name.removeprefix(FIELD): value for name, value in given.items() if name.startswith(FIELD)}
        return words[order_said(assignment, places)]
    if not project.criteria:
        return words[given["choice"]]
    return "; ".join(words[given[FIELD + one.name]] for one in project.criteria)


def _own(request: Request, person: Person, assignment: int) -> Assignment:
    try:
        return store_of(request).assignment(person.annotator.id, assignment)
    except DataError as error:
        raise refused(404, "refused_no_task") from error
