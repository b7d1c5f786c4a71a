"""JSON API of a lead: the people of the project, how much their labels count, and the items that they are given."""

from typing import Any

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, ConfigDict

from popmargin.errors import did_you_mean
from popmargin.label.projects.assign_items import assign_items
from popmargin.label.store.records import Annotator
from popmargin.label.web.forms import Name
from popmargin.label.web.json_api import BARE, ERRORS, Refusal, bearer
from popmargin.label.web.security import Person
from popmargin.label.web.view import person_of, store_of

_LEADS: dict[int | str, dict[str, Any]] = {
    403: {"model": Refusal, "description": "This person does not lead the project."}
}
router = APIRouter(prefix="/api/team", dependencies=[bearer])


class Member(BaseModel):
    """Somebody who labels, or a model; `waiting` counts given items that they have still to get."""

    name: str
    kind: str
    active: bool
    discarded: bool
    lead: bool
    adjudicator: bool
    weight: float
    quota: int | None
    done: int
    waiting: int


class Weight(BaseModel):
    """How much each label of somebody counts: above 0 and at most 1."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    weight: float


class Assignment(BaseModel):
    """Items to give to somebody: those about `items` (ids of preferences), with these values, or a share of them.

    `source` moves what that person was given; `take_back` takes back what `name` was given. Without a choice of items
    these two mean all.
    """

    model_config = ConfigDict(extra="forbid")

    name: Name
    items: list[str] = []
    where: dict[str, str] = {}
    share: float | None = None
    exclusive: bool = False
    source: Name | None = None
    take_back: bool = False


class Assigned(BaseModel):
    """What became of the items; `short` of the given ones want more labels than the people they are reserved for."""

    given: int = 0
    had: int = 0
    full: int = 0
    short: int = 0
    taken_back: int = 0
    waiting: int


@router.get("", responses={**BARE, **_LEADS})
def team(request: Request) -> list[Member]:
    """The people and models of the project."""
    person = _lead(request)
    store, project = store_of(request), person.project.id
    waiting = store.given(project)
    return [
        Member(
            **{name: getattr(who, name) for name in Member.model_fields if name not in ("done", "waiting")},
            done=store.progress(project, who.id).own_done,
            waiting=waiting.get(who.id, 0),
        )
        for who in store.annotators(project)
    ]


@router.post("/weight", responses={**ERRORS, **_LEADS})
def set_weight(request: Request, given: Weight) -> Weight:
    """Let each label of somebody count so much in exports, scales and training."""
    person = _lead(request)
    who = _named(request, person, given.name)
    store_of(request).set_weight(who.id, given.weight, who=person.annotator.name)
    return given


@router.post("/assign", responses={**ERRORS, **_LEADS})
def assign(request: Request, wanted: Assignment) -> Assigned:
    """Give items to somebody, move them, or take them back."""
    person = _lead(request)
    done = assign_items(
        store_of(request),
        person.project,
        _named(request, person, wanted.name),
        ids=wanted.items,
        where=wanted.where,
        share=wanted.share,
        exclusive=wanted.exclusive,
        source=None if wanted.source is None else _named(request, person, wanted.source),
        take_back=wanted.take_back,
    )
    counts = {} if done.given is None else vars(done.given)
    return Assigned(**counts, taken_back=done.taken_back, waiting=done.waiting)


def _lead(request: Request) -> Person:
    person = person_of(request)
    if not person.annotator.lead:
        raise HTTPException(403, "This is for the lead of the project. Ask the lead, or the admin to make you one.")
    return person


def _named(request: Request, person: Person, name: str) -> Annotator:
    known = {who.name: who for who in store_of(request).annotators(person.project.id)}
    if name not in known:
        raise HTTPException(404, f"The project has no annotator '{name}'. {did_you_mean(name, known)}")
    return known[name]
