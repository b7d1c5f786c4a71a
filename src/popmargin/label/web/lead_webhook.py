"""The lead's API: the webhook of a project."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from popmargin.label.store.records import Webhook
from popmargin.label.web.admin import project_of
from popmargin.label.web.forms import RowId
from popmargin.label.web.lead_api import LEAD_ERRORS, bearer, owner_of
from popmargin.label.web.security import LEAD
from popmargin.label.web.view import store_of

router = APIRouter(prefix=LEAD, dependencies=[Depends(bearer), Depends(owner_of)], responses=LEAD_ERRORS)
_SHOWN = ("url", "private", "waiting", "attempts", "error", "given_up")


class NewWebhook(BaseModel):
    """Where to send the events; an address of the server's own network is for the command line alone."""

    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, Field(min_length=1, max_length=2000, description="https://HOST/PATH, or http://")]


@router.get("/projects/{project}/webhook")
def webhook(request: Request, project: RowId) -> dict[str, Any] | None:
    """Where events are sent, how many wait, and the last failure; null without a webhook."""
    found = store_of(request).webhooks.of(project_of(request, project).id)
    return None if found is None else _shown(found)


@router.put("/projects/{project}/webhook")
def set_webhook(request: Request, project: RowId, new: NewWebhook) -> dict[str, Any]:
    """Send the events there from now on; what waits for an earlier address is dropped. The answer alone has the secret
    that signs them."""
    made = store_of(request).webhooks.set(project_of(request, project).id, new.url)
    return _shown(made) | {"secret": made.secret}


@router.delete("/projects/{project}/webhook")
def remove_webhook(request: Request, project: RowId) -> dict[str, int]:
    """Send nothing more, also not what waits; the answer says how many events that were."""
    found, hooks = project_of(request, project), store_of(request).webhooks
    before = hooks.of(found.id)
    hooks.remove(found.id)
    return {"dropped": 0 if before is None else before.waiting}


def _shown(found: Webhook) -> dict[str, Any]:
    return {name: getattr(found, name) for name in _SHOWN}
