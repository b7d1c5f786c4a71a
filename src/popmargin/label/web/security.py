"""Who may see what: a default-deny guard in front of every route, sessions, CSRF checks and strict headers.

A person's session is the token of their link in an HttpOnly, SameSite=Strict cookie: it survives a restart of the
server, and ends immediately when the token is replaced or the person is deactivated. Programs send it as a bearer
token.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from fastapi import HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from popmargin.label.language.sentence import Sentence, sentence_of
from popmargin.label.store.database import AwayError
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Annotator, ApiToken, Project

PUBLIC = ("/login/", "/static/", "/signed-out")
_IMAGES = ("/images/", "/api/images/")
LEAD = "/api/lead"
MAX_BODY = 1 << 20
MAX_ROWS = 64 << 20
"""The largest body of a lead, who sends rows of data."""
JOIN = "."
"""Between the tokens of one person's projects, in a link and in the cookie."""
MOST_PROJECTS = 64
"""Tokens in a cookie, which may hold 4 KB."""
_IN_PROJECT = re.compile(r"/p/([1-9]\d{0,14})((?!/(?:admin|api|login|p)(?:/|$))/.*)?")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_NO_SESSION = Sentence("refused_session")
_NO_TOKEN = "This token is not known. Make one with: popmargin label token add NAME"
# Not `no-referrer`: under it browsers send `Origin: null` with forms, and the origin could not be checked.
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True)
class Session:
    """A session; by default the admin's."""

    token: str

    @property
    def csrf(self) -> str:
        """The token in every form of this session; other sites can neither read nor guess it."""
        return hmac.new(self.token.encode(), b"popmargin csrf", hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Person(Session):
    """The session of an annotator of a project."""

    project: Project
    annotator: Annotator


@dataclass(frozen=True)
class Lead(Session):
    """The session of somebody who leads projects: sees the admin pages of these, and of no others."""

    name: str
    projects: frozenset[int]


@dataclass(frozen=True)
class Program(Session):
    """The session of a program that uses the lead's API."""

    owner: ApiToken


@dataclass(frozen=True)
class Sessions:
    """Finds sessions by their tokens; tokens are compared by digest in constant time."""

    store: LabelStore
    admin_token: str | None

    def annotator(self, token: str) -> Person | None:
        """The session of an annotator's token."""
        found = self.store.annotator_of(token) if token else None
        if found is None or not found[1].active:
            return None
        return Person(token, *found)

    def people(self, tokens: Sequence[str]) -> list[Person]:
        """The sessions of annotators' tokens that still work, one for each project: the newest."""
        found = [person for token in tokens if (person := self.annotator(token)) is not None]
        return list({person.project.id: person for person in found}.values())

    def program(self, token: str) -> Program | None:
        """The session of a token of the lead's API."""
        found = self.store.api_tokens.of(token) if token else None
        return None if found is None else Program(token, found)

    def lead(self, tokens: Sequence[str]) -> Lead | None:
        """The session of annotators' tokens whose people lead their projects."""
        leads = [person for person in self.people(tokens) if person.annotator.lead]
        if not leads:
            return None
        token = JOIN.join(person.token for person in leads)
        return Lead(token, leads[-1].annotator.name, frozenset(person.project.id for person in leads))

    def admin(self, token: str) -> Session | None:
        """The session of the admin's token."""
        if not (token and self.admin_token):
            return None
        digests = [hashlib.sha256(value.encode()).digest() for value in (token, self.admin_token)]
        return Session(token) if hmac.compare_digest(*digests) else None


class Guard:
    """ASGI middleware: no session, no route; every answer leaves with the security headers."""

    def __init__(
        self, app: ASGIApp, sessions: Sessions, refuse: Callable[[Request, int, Sentence | str], Response], prefix: str
    ) -> None:
        self.app = app
        self.prefix = prefix
        self.sessions = sessions
        self.refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it with the reason why not."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        # Works with proxies that strip the prefix and with those that do not.
        number, path = _project_of(route_path({"path": scope["path"], "root_path": self.prefix}))
        root = self.prefix if number is None else f"{self.prefix}/p/{number}"
        scope["root_path"], scope["path"] = root, root + path

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers["Cache-Control"] = _keeping(path, message["status"])
            await send(message)

        headers, session = Headers(scope=scope), None
        refusal = _too_large(headers, MAX_ROWS if _of_lead(path) else MAX_BODY)
        if refusal is None and not path.startswith(PUBLIC):
            try:
                session = await run_in_threadpool(self._session, path, number, headers)
            except AwayError as error:
                refusal = 503, sentence_of(error)
            if session is None and refusal is None:
                refusal = 401, _NO_TOKEN if _of_lead(path) else _NO_SESSION
        scope.setdefault("state", {}).update(session=session, site=self.prefix, project=number)
        app = self.app if refusal is None else self.refuse(Request(scope), *refusal)
        await app(scope, receive, guarded_send)

    def _session(self, path: str, number: int | None, headers: Headers) -> Session | None:
        if path == "/api" or path.startswith("/api/"):
            scheme, _, token = headers.get("authorization", "").partition(" ")
            find = self.sessions.program if _of_lead(path) else self.sessions.annotator
            return find(token.strip()) if scheme.lower() == "bearer" else None
        cookies = cookie_parser(headers.get("cookie", ""))
        if path == "/admin" or path.startswith("/admin/"):
            admin = self.sessions.admin(cookies.get(cookie_name("admin", headers), ""))
            return admin or self.sessions.lead(tokens_of(cookies, headers))
        tokens = tokens_of(cookies, headers)
        if number is None:
            people = self.sessions.people(tokens)
            return people[-1] if people else None
        for token in reversed(tokens):
            person = self.sessions.annotator(token)
            if person is not None and person.project.id == number:
                return person
        return None


def _of_lead(path: str) -> bool:
    return path == LEAD or path.startswith(f"{LEAD}/")


def _project_of(path: str) -> tuple[int | None, str]:
    """The number of the project that an annotator's page names, and the path of the page in it.

    Example:
        >>> _project_of("/p/3/history"), _project_of("/history")
        ((3, '/history'), (None, '/history'))
    """
    found = _IN_PROJECT.fullmatch(path)
    return (None, path) if found is None else (int(found[1]), found[2] or "/")


def tokens_of(cookies: Mapping[str, str], headers: Headers) -> list[str]:
    """The tokens of an annotator's sessions in this browser, one for each project, oldest first."""
    return [token for token in cookies.get(cookie_name("annotator", headers), "").split(JOIN) if token][-MOST_PROJECTS:]


def _keeping(path: str, status: int) -> str:
    """How long a browser may keep an answer: images by content for good, in nobody else's cache."""
    if path.startswith(_IMAGES) and status in (200, 304):
        return "private, max-age=31536000, immutable"
    return "no-cache" if path.startswith("/static/") else "no-store"


def cookie_name(role: Literal["annotator", "admin", "said"], headers: Headers) -> str:
    """Name of the cookie of a session, or of what the next page says.

    It includes the port, since all servers on a host share one cookie jar.
    """
    port = headers.get("host", "").rpartition(":")[2]
    return f"popmargin_{role}_{port}" if port.isdigit() else f"popmargin_{role}"


def route_path(scope: Scope) -> str:
    """The path as routes see it: without the prefix under which a proxy serves the app."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", ""))
    inside = prefix and (path == prefix or path.startswith(prefix + "/"))
    return path[len(prefix) :] if inside else path


def _too_large(headers: Headers, most: int) -> tuple[int, Sentence | str] | None:
    if "transfer-encoding" in headers:
        return 411, "Send a Content-Length header."
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > most:
        return 413, Sentence("refused_too_large", bytes=most)
    return None


async def check_csrf(request: Request) -> None:
    """Refuse a form from another site, or without the session's token.

    Raises:
        HTTPException: 403.
    """
    if request.method in ("GET", "HEAD"):
        return
    if not same_origin(request.headers):
        raise HTTPException(403, cast(Any, Sentence("refused_other_site")))
    given = (await request.form()).get("csrf")
    session: Session = request.state.session
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(), session.csrf.encode()):
        raise HTTPException(403, cast(Any, Sentence("refused_form")))


def same_origin(headers: Headers) -> bool:
    """Whether the browser says that the request comes from our own pages.

    `Sec-Fetch-Site` is set by the browser and independent of proxies. If it is missing (plain http on a host other than
    localhost), the origin is compared with the host given by the browser or the proxy.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return True
    return urlsplit(origin).netloc in (headers.get("host"), headers.get("x-forwarded-host"))
