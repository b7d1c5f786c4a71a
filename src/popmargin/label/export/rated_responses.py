"""What people say of single responses: one row per response, with its mean rating."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute

from popmargin.account import Step
from popmargin.data.questions import RATINGS, SIDES
from popmargin.data.schema import arrow_schema
from popmargin.errors import DataError
from popmargin.label.export.criteria_columns import labels_on
from popmargin.label.store.criteria import of_criterion
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Adjudication, Project

pc: Any = pyarrow.compute


def rated_responses(
    store: LabelStore,
    project: Project,
    *,
    without: Collection[str] = (),
    adjudication: Adjudication = "wins",
    criterion: str | None = None,
) -> tuple[Any, Step]:
    """The rated responses of a project, in the order of import, and the account of the others.

    Args:
        store: the store.
        project: whose responses; its items are of kind "rating".
        without: names of annotators whose labels are left out, as are those of discarded ones.
        adjudication: of responses that an adjudicator has decided, "wins" uses only that rating, "ignore" the others.
        criterion: in a project with several, that of `rating`; the first one by default.

    Returns:
        A table with id (of the preference that holds the response), prompt, response, rating (the weighted mean
        over annotators; "unsure" and repeated items do not count) and raters, and the columns of the data: those of a
        side, such as chosen_model, without the side. With several criteria, `rating_NAME` has the mean on each.

    Raises:
        DataError: the project asks for no ratings, or nobody has rated anything.
    """
    columns = store.preference_columns(project.id)
    rows = {key: row for row, key in enumerate(columns["id"])}
    asked: list[tuple[int, str]] = []
    for batch in store.items(project.id):
        read = zip(batch["kind"].to_pylist(), batch["first"].to_pylist(), batch["response"].to_pylist(), strict=True)
        asked += [(rows[first], side) for kind, first, side in read if kind == "rating"]
    if not asked:
        raise DataError(f"Project '{project.name}' asks for no ratings. Use --as preferences, labels or edges.")
    given: dict[tuple[int, str], list[tuple[float, int]]] = {}
    weights = {who.name: who.weight for who in store.annotators(project.id)}
    labels = store.labels(
        project.id,
        columns=("kind", "first", "response", "verdict", "annotator", "repeat_of", "criteria"),
        without=without,
        adjudication=adjudication,
    )
    means = _means(labels, project, rows, weights)
    labels = labels_on(labels, project, criterion)
    labels = labels.filter(
        pc.and_(pc.is_in(labels["verdict"], value_set=pa.array(RATINGS)), pc.is_null(labels["repeat_of"]))
    )
    for first, side, verdict, who in zip(
        *(labels[name].to_pylist() for name in ("first", "response", "verdict", "annotator")), strict=True
    ):
        given.setdefault((rows[first], side), []).append((weights[who], int(verdict)))
    kept = sorted(place for place in asked if place in given)
    if not kept:
        raise DataError(f"Nobody has rated a response of project '{project.name}' yet. Rate some (popmargin annotate).")
    text = arrow_schema(conversational=bool(project.conversational)).field("prompt").type
    table: dict[str, Any] = {
        "id": [columns["id"][row] for row, _ in kept],
        "prompt": pa.array([columns["prompt"][row] for row, _ in kept], text),
        "response": pa.array([columns[side][row] for row, side in kept], text),
        "rating": [sum(w * rating for w, rating in given[at]) / sum(w for w, _ in given[at]) for at in kept],
        "raters": [len(given[place]) for place in kept],
    }
    for name, found in means.items():
        table[f"rating_{name}"] = [found.get(place) for place in kept]
    for name, values in _others(columns, kept).items():
        table.setdefault(name, values)
    account = Step(
        name=f"responses of {project.name}",
        rows_in=len(asked),
        kept={"rated": len(kept)},
        left_out={"not rated": len(asked) - len(kept)},
        unit="responses",
    )
    return pa.table(table), account


def _means(
    labels: Any, project: Project, rows: Mapping[str, int], weights: Mapping[str, float]
) -> dict[str, dict[tuple[int, str], float]]:
    """Criterion -> response -> its weighted mean rating; empty for a project of one question."""
    names = [one.name for one in project.criteria]
    means: dict[str, dict[tuple[int, str], float]] = {}
    for name in names:
        table, given = of_criterion(labels, names, name), dict[tuple[int, str], list[tuple[float, int]]]()
        read = (table[column].to_pylist() for column in ("first", "response", "verdict", "annotator", "repeat_of"))
        for first, side, verdict, who, repeat_of in zip(*read, strict=True):
            if verdict in RATINGS and repeat_of is None:
                given.setdefault((rows[first], side), []).append((weights[who], int(verdict)))
        means[name] = {at: sum(w * value for w, value in said) / sum(w for w, _ in said) for at, said in given.items()}
    return means


def _others(columns: dict[str, list[Any]], kept: list[tuple[int, str]]) -> dict[str, Any]:
    """The data's own columns, as JSON where their values are of several types; those of a side without it."""
    known = ("id", "prompt", "chosen", "rejected", "unlabelled", "chosen_rating", "rejected_rating", "strength",
             "soft_label", "annotator", "cluster")  # fmt: skip
    sided = {f"{side}_{name}": name for name in _names(columns) for side in SIDES}
    found: dict[str, list[Any]] = {}
    for name in columns:
        if name not in known and name not in sided:
            found[name] = [columns[name][row] for row, _ in kept]
    for name in _names(columns):
        found[name] = [columns[f"{side}_{name}"][row] for row, side in kept]
    return {name: _array(values) for name, values in found.items() if any(value is not None for value in values)}


def _names(columns: dict[str, list[Any]]) -> list[str]:
    """What the data have of both sides, such as "model" of chosen_model and rejected_model."""
    names = [name.removeprefix("chosen_") for name in columns if name.startswith("chosen_")]
    return [name for name in names if f"rejected_{name}" in columns and name not in ("rating", "image")]


def _array(values: list[Any]) -> Any:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else json.dumps(value, ensure_ascii=False) for value in values])
