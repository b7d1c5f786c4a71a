"""The lead's API: a project's items, and which of them have a known answer."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from popmargin.data.questions import Verdict
from popmargin.label.store.known import Known
from popmargin.label.web.admin import project_of
from popmargin.label.web.forms import RowId
from popmargin.label.web.lead_api import LEAD_ERRORS, bearer, owner_of
from popmargin.label.web.security import LEAD
from popmargin.label.web.view import store_of

router = APIRouter(prefix=LEAD, dependencies=[Depends(bearer), Depends(owner_of)], responses=LEAD_ERRORS)


CriterionName = Annotated[str, Field(max_length=30)]


class KnownAnswer(BaseModel):
    """What is known about an item; `first` is the `chosen` response, or the first preference the stronger one."""

    model_config = ConfigDict(extra="forbid")

    item: RowId
    answer: Annotated[
        Verdict | dict[CriterionName, Verdict | None] | None,
        Field(description="null: it is not known after all; with criteria also an answer by name, the others stay"),
    ]


class KnownAnswers(BaseModel):
    """Known answers to add, to change, or to take away."""

    model_config = ConfigDict(extra="forbid")

    answers: Annotated[list[KnownAnswer], Field(min_length=1, max_length=100_000)]


@router.get("/projects/{project}/items")
def items(
    request: Request,
    project: RowId,
    after: Annotated[int, Query(ge=0, le=2**53 - 1)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    gold: bool = False,
) -> list[dict[str, Any]]:
    """Items in the order they were added: `item`, `kind`, ids of the preferences, known answer; `after` is the last one
    of the page before, and `gold=true` leaves only those with a known answer."""
    return store_of(request).item_page(project_of(request, project).id, after=after, limit=limit, gold=gold)


@router.patch("/projects/{project}/gold")
def set_gold(request: Request, project: RowId, known: KnownAnswers) -> dict[str, int]:
    """Give items a known answer, another one or none; labels stay, and items that are not named keep theirs."""
    found, answers = project_of(request, project), dict[int, Known | None]()
    for one in known.answers:
        if one.item in answers:
            raise HTTPException(409, f"Item {one.item} comes twice. Keep one answer. Nothing was changed.")
        answers[one.item] = one.answer
    return store_of(request).set_gold(found.id, answers, who=owner_of(request))
