"""Pages from templates, and formatting of numbers and times."""

import functools
from datetime import datetime
from typing import Any, cast

import jinja2
from fastapi import HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from popmargin.label.language.page_texts import ENGLISH, PageTexts, shipped
from popmargin.label.language.sentence import Sentence
from popmargin.label.quality.drift_words import drift_sentences
from popmargin.label.quality.good_enough import order_sentences
from popmargin.label.quality.next_words import next_sentences, next_table, points
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Assignment
from popmargin.label.web.languages import Languages
from popmargin.label.web.marked_text import document, plain, with_roles, written
from popmargin.label.web.screen import SURE, choice_for, choice_of, in_order, screen_of, sure_of
from popmargin.label.web.security import Person, Session, cookie_name, route_path, tokens_of
from popmargin.label.web.wording import words_of
from popmargin.report.metrics import has_bounds, number

SECONDS_CAP = 900.0
"""Longest time recorded for an answer: anybody who takes longer was away."""

SAID = {"saved": "said_saved", "skipped": "said_skipped", "undone": "said_undone"}
"""What the page after a form confirms, by its text; scripts, which load no page, say the same."""


@functools.cache
def environment() -> jinja2.Environment:
    """The templates; every value is escaped unless it is Markup, and an unknown name is an error."""
    loader = jinja2.PackageLoader("popmargin.label.web", "templates")
    made = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters: dict[str, Any] = {"markdown": document, "bounded": has_bounds, "screen": screen_of}
    named = (plain, written, with_roles, answer, sure, clock, share, short, plain_number, in_order)
    filters |= {
        found.__name__: found for found in (points, next_sentences, next_table, drift_sentences, order_sentences)
    }
    filters |= {found.__name__: found for found in named}
    made.filters.update(filters)
    return made


def page(
    request: Request, template: str, status: int = 200, *, texts: PageTexts | None = None, **values: Any
) -> HTMLResponse:
    """A rendered template as a response; it has the session, its CSRF token, the site's prefix, and texts in the
    language of `language_of`, or these."""
    root = str(request.scope.get("root_path", ""))
    key = SAID.get(request.cookies.get(cookie_name("said", request.headers), ""))
    t = texts or language_of(request)
    said = "" if key is None else t.said(key)
    shared = {"session": session_of(request), "root": root, "site": site_of(request), "said": said, "t": t}
    several = len(tokens_of(request.cookies, request.headers)) > 1
    html = environment().get_template(template).render(**shared, several=several, **values)
    response = HTMLResponse(html, status)
    if said:
        response.delete_cookie(cookie_name("said", request.headers), path=f"{site_of(request)}/")
    return response


def language_of(request: Request) -> PageTexts:
    """The language of a page: that of the project it belongs to; English for the lead."""
    languages: Languages = request.app.state.languages
    person = session_of(request)
    if isinstance(person, Person):
        return languages.of(person.project)
    if route_path(request.scope).startswith("/admin"):
        return shipped(ENGLISH)
    return languages.without_session(getattr(request.state, "project", None))


def go(request: Request, path: str, said: str = "") -> Response:
    """A redirect to a page, which says once what was done; a form is never the answer to itself.

    Args:
        request: that sent the form.
        path: of the page, without the site's prefix.
        said: key of `SAID`.
    """
    root = str(request.scope.get("root_path", ""))
    response = RedirectResponse(f"{root}{path}", 303)
    if said:
        name = cookie_name("said", request.headers)
        response.set_cookie(name, said, max_age=30, path=f"{site_of(request)}/", httponly=True, samesite="strict")
    return response


def site_of(request: Request) -> str:
    """The site's prefix, without the project that an annotator's page names."""
    return str(getattr(request.state, "site", request.scope.get("root_path", "")))


def refused(status: int, key: str, **values: object) -> HTTPException:
    """A refusal in the words of a sentence."""
    return HTTPException(status, cast(Any, Sentence(key, **values)))


def store_of(request: Request) -> LabelStore:
    """The store of the app."""
    return request.app.state.store


def session_of(request: Request) -> Session | None:
    """The session that the guard found."""
    return getattr(request.state, "session", None)


def person_of(request: Request) -> Person:
    """The annotator whom the guard let in."""
    session = session_of(request)
    assert isinstance(session, Person)
    return session


def unread_guidelines(person: Person) -> bool:
    """Whether the project has guidelines that this annotator has not acknowledged."""
    return bool(person.project.guidelines) and person.annotator.guidelines_seen < person.project.guidelines_version


def times_of(assignment: Assignment, now: datetime, away: float = 0.0) -> dict[str, float | None]:
    """Seconds from the first time that the server sent this open task, without idle time, and the idle time.

    Idle is what the server knows, while the task was skipped, expired or answered, and `away`, which the page says. The
    seconds are at most `SECONDS_CAP`. Both are None for a task that is not open, such as an answer that is being
    changed.
    """
    if assignment.state != "leased" or assignment.shown_at is None:
        return {"seconds": None, "idle": None}
    open_time = (now - assignment.shown_at).total_seconds() - assignment.idle
    away = min(away, max(open_time, 0.0))
    passed = min(max(open_time - away, 0.0), SECONDS_CAP)
    return {"seconds": round(passed, 3), "idle": round(assignment.idle + away, 3)}


def answer(assignment: Assignment, wording: str, texts: PageTexts) -> str:
    """The answer in the words of the page."""
    choice, images = choice_of(assignment), assignment.images is not None
    if choice is None or assignment.label is None:
        return texts.said("no_answer")
    words = words_of(assignment.kind, images=images, wording=wording, texts=texts)
    said = [words[choice]]
    for name, verdict in assignment.label.criteria.items():
        other = choice_for(assignment, verdict, None)
        said += [] if other is None else [f"{name}: {words[other]}"]
    return "; ".join(said)


def sure(assignment: Assignment, texts: PageTexts) -> str:
    """The annotator's confidence, in the words of the page; empty if not given."""
    level = sure_of(assignment)
    return "" if level is None else texts.said(SURE[level])


def clock(moment: datetime) -> str:
    """A time as date and minutes, in UTC.

    Example:
        >>> clock(datetime(2026, 1, 2, 3, 4))
        '2026-01-02 03:04'
    """
    return moment.strftime("%Y-%m-%d %H:%M")


def share(value: float) -> str:
    """A percentage, or a dash if unknown.

    Example:
        >>> share(0.5), share(float("nan"))
        ('50%', '–')
    """
    return number(value, 0, share=True)


def plain_number(value: float) -> str:
    """A number with two decimals, or a dash."""
    return number(value, 2)


def short(value: float) -> str:
    """Seconds with one decimal, or a dash.

    Example:
        >>> short(3.25), short(float("nan"))
        ('3.2', '–')
    """
    return number(value, 1)
