"""The lead's API: models that label, their labels, and how far they agree with people."""

from dataclasses import asdict
from typing import Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from popmargin.data.questions import Verdict
from popmargin.label.quality.judge_calibration import judge_calibrations
from popmargin.label.quality.report_page import plain_json
from popmargin.label.web.admin import project_of
from popmargin.label.web.forms import Confidence, Name, Note, RequestKey, RowId
from popmargin.label.web.lead_api import LEAD_ERRORS, bearer, owner_of
from popmargin.label.web.security import LEAD
from popmargin.label.web.view import store_of

router = APIRouter(prefix=LEAD, dependencies=[Depends(bearer), Depends(owner_of)], responses=LEAD_ERRORS)
_COLUMNS = ("item", "verdict", "request", "confidence", "note")
_TYPES = {"item": pa.int64(), "confidence": pa.float64()}


class JudgeLabel(BaseModel):
    """A verdict of a model on an item; the same `request` again stores nothing more, a new one replaces the verdict."""

    model_config = ConfigDict(extra="forbid")

    item: RowId
    verdict: Verdict
    request: RequestKey
    confidence: Confidence = None
    note: Note = ""


class JudgeLabels(BaseModel):
    """Labels of a model that ran elsewhere."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    labels: Annotated[list[JudgeLabel], Field(min_length=1, max_length=5000)]


@router.get("/projects/{project}/judges")
def judges(request: Request, project: RowId) -> list[dict[str, Any]]:
    """Each model with its number of labels, and its agreement and calibration on the items that people have decided."""
    found, store = project_of(request, project), store_of(request)
    rows: list[dict[str, Any]] = [row for row in store.labels(found.id).to_pylist() if row["repeat_of"] is None]
    measured = judge_calibrations(rows)
    return [
        {
            "id": who.id,
            "name": who.name,
            "kind": who.kind,
            "labels": sum(row["annotator"] == who.name for row in rows),
            "calibration": [plain_json(asdict(one)) for one in measured if one.name == who.name],
        }
        for who in store.annotators(found.id)
        if who.kind != "person"
    ]


@router.post("/projects/{project}/judges")
def add_labels(request: Request, project: RowId, new: JudgeLabels) -> dict[str, Any]:
    """Store labels of a model that ran elsewhere, as those of `label judge` are; all of them, or none."""
    found, store = project_of(request, project), store_of(request)
    columns = {
        name: pa.array([getattr(one, name) for one in new.labels], _TYPES.get(name, pa.string())) for name in _COLUMNS
    }
    who, stored = store.record_judge(found.id, new.name, pa.table(columns))
    return {"id": who.id, "name": who.name, "stored": stored}
