"""Files of the lead's API: labels, edges, ratings and preferences, as `label export` writes them."""

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response

from popmargin.label.export.label_files import save_labels
from popmargin.label.export.pop_edges import pop_edges
from popmargin.label.export.preferences import preferences_of
from popmargin.label.export.rated_responses import rated_responses
from popmargin.label.store.records import Adjudication
from popmargin.label.web.admin import download, project_of
from popmargin.label.web.forms import RowId
from popmargin.label.web.lead_api import LEAD_ERRORS, bearer, owner_of
from popmargin.label.web.security import LEAD
from popmargin.label.web.view import store_of

router = APIRouter(prefix=LEAD, dependencies=[Depends(bearer), Depends(owner_of)], responses=LEAD_ERRORS)
_TYPES = {"parquet": "application/vnd.apache.parquet", "jsonl": "application/x-ndjson", "csv": "text/csv"}
_FILE: dict[int | str, dict[str, Any]] = {200: {"content": {kind: {} for kind in _TYPES.values()}}}


@router.get("/projects/{project}/export/{kind}.{suffix}", responses=_FILE, response_class=Response)
def export(
    request: Request,
    project: RowId,
    kind: Literal["edges", "preferences", "ratings", "labels", "history"],
    suffix: Literal["parquet", "jsonl", "csv"],
    without: Annotated[list[str] | None, Query(max_length=100)] = None,
    adjudication: Adjudication = "wins",
) -> Response:
    """A file as of `label export --as KIND`; `edges` only as parquet or csv, `history` with every label there ever was.

    `preferences` are not for csv here: the command line writes them.
    """
    found, store, left = project_of(request, project), store_of(request), without or ()
    name, media = f"{kind}.{suffix}", _TYPES[suffix]
    if (kind, suffix) in (("edges", "jsonl"), ("preferences", "csv")):
        raise HTTPException(409, f"{kind} are not written as .{suffix} here. Use .parquet.")
    if kind == "edges":
        edges, _ = pop_edges(store, found, without=left, adjudication=adjudication)
        return download(name, media, edges.save if suffix == "parquet" else lambda path: save_labels(edges.table, path))
    if kind == "preferences":
        return download(name, media, preferences_of(store, found, without=left, adjudication=adjudication).save)
    if kind == "ratings":
        table, _ = rated_responses(store, found, without=left, adjudication=adjudication)
    elif kind == "history":
        if left:
            raise HTTPException(409, "without is not for the history, which has every label. Export labels.")
        table = store.label_history(found.id)
    else:
        table = store.labels(found.id, without=left)

    def save(path: Path) -> None:
        save_labels(table, path)

    return download(name, media, save)
