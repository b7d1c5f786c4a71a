"""The web application: pages, admin pages and JSON API behind one guard."""

from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from popmargin.errors import PopmarginError
from popmargin.label.store.database import AwayError
from popmargin.label.store.label_store import LabelStore
from popmargin.label.web import (
    admin,
    item_pages,
    json_api,
    lead_api,
    lead_exports,
    lead_items,
    lead_judges,
    lead_webhook,
    pages,
    queue_api,
    team_api,
)
from popmargin.label.web.figures import FigureCache
from popmargin.label.web.security import Guard, Sessions, check_csrf, route_path
from popmargin.label.web.shown_once import ShownOnce
from popmargin.label.web.view import page

_STATIC = Path(__file__).parent / "static"
_TITLES = {
    401: "Not signed in",
    403: "Refused",
    404: "Not found",
    409: "Not possible",
    422: "Not understood",
    503: "Not available",
}


def create_app(store: LabelStore, *, admin_token: str | None = None, root_path: str = "") -> FastAPI:
    """The annotator app for one store; it serves every project of the store to its own annotators.

    Args:
        store: where labels are stored; it stays open and belongs to the caller.
        admin_token: opens the admin pages; None switches them off.
        root_path: prefix under which a proxy serves the app, such as "/label".
    """
    app = FastAPI(
        title="popmargin annotator",
        version=version("popmargin"),
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.state.store = store
    app.state.figures = FigureCache(store)
    app.state.links = ShownOnce()
    app.state.sessions = Sessions(store, admin_token)
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    for api in (json_api, queue_api, team_api):
        app.include_router(api.router)
    for api in (lead_api, lead_items, lead_judges, lead_webhook, lead_exports):
        app.include_router(api.router, tags=["lead"])
    app.include_router(pages.router, dependencies=[Depends(check_csrf)], include_in_schema=False)
    app.include_router(admin.router, dependencies=[Depends(check_csrf)], include_in_schema=False)
    app.include_router(item_pages.router, dependencies=[Depends(check_csrf)], include_in_schema=False)
    app.add_middleware(Guard, sessions=app.state.sessions, refuse=refusal, prefix=root_path.rstrip("/"))
    handlers: dict[Any, Callable[[Request, Any], Awaitable[Response]]] = {
        HTTPException: _http_error,
        RequestValidationError: _invalid,
        AwayError: _unavailable,
        PopmarginError: _conflict,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    return app


def refusal(request: Request, status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error in the API's format, or as a page."""
    if route_path(request.scope).startswith("/api"):
        challenge = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        return JSONResponse({"error": message}, status, headers={**challenge, **(headers or {})})
    title = _TITLES.get(status, "Error")
    answer = page(request, "error.html.j2", status, title=title, message=message)
    answer.headers.update(headers or {})
    return answer


async def _http_error(request: Request, error: HTTPException) -> Response:
    return refusal(request, error.status_code, str(error.detail), dict(error.headers or {}))


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    # The input itself is not repeated: it may be huge, or impossible to encode.
    found = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()[:5]]
    return refusal(request, 422, "; ".join(found).encode("utf-8", "replace").decode())


async def _unavailable(request: Request, error: AwayError) -> Response:
    return refusal(request, 503, str(error), {"Retry-After": "2"})


async def _conflict(request: Request, error: PopmarginError) -> Response:
    return refusal(request, 409, str(error))
