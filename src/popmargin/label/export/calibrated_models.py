"""Confidences of models as chances that people agree: calibrated on the items that people have decided, too."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from popmargin.errors import DataError, counted
from popmargin.label.export.counting_labels import counting_labels
from popmargin.label.export.criteria_columns import labels_on
from popmargin.label.export.judged_wrong import DECIDED
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Adjudication, Project
from popmargin.statistics.calibration import confidence_error
from popmargin.statistics.intervals import Interval
from popmargin.statistics.platt import PlattMap, cross_fitted, fit_platt

LEAST = 30
"""Items on which a model prefers a side, and people have decided, before it can be calibrated."""
FOLDS = 10
_BINS, _IN_A_BIN = 10, 20
_COLUMNS = ("item", "kind", "annotator", "annotator_kind", "verdict", "confidence", "repeat_of", "criteria")


@dataclass(frozen=True, kw_only=True)
class ModelCalibration:
    """What a model's confidence is worth.

    Attributes:
        name: of the model.
        items: on which it prefers a side, and at least one person has decided.
        people: people's votes on them.
        overall: the map from all of them, for items without people.
        chances: item -> the chance of the model's side by the map of the other folds, which its people's votes are not
            in.
        before: calibration error of the confidences as they are.
        after: of `chances`.
    """

    name: str
    items: int
    people: int
    overall: PlattMap
    chances: Mapping[int, float]
    before: Interval
    after: Interval

    def note(self) -> str:
        """What was found, in a sentence."""
        from popmargin.report.metrics import number

        before, after = (number(error.estimate, 3) for error in (self.before, self.after))
        return (
            f"confidence of {self.name} calibrated by people on {counted(self.items, 'item')}: logit(p) = "
            f"{self.overall.intercept:.3f} + {self.overall.slope:.3f} · logit(confidence); calibration error {before} "
            f"before, {after} after (cross-fitted)"
        )

    def to_dict(self) -> dict[str, Any]:
        """For a file: the map, and how well it fits."""
        errors = {name: getattr(self, name).to_dict() for name in ("before", "after")}
        return {"model": self.name, "items": self.items, "people": self.people, **asdict(self.overall)} | {
            f"calibration_error_{name}": error for name, error in errors.items()
        }


def bins_of(count: int) -> int:
    """Bins of a reliability curve of so many items."""
    return min(_BINS, max(1, count // _IN_A_BIN))


def agreeing(verdict: str, said: Sequence[str]) -> float:
    """The share of people who say the same; ties count ½.

    Example:
        >>> agreeing("first", ["first", "tie", "second", "second"])
        0.375
    """
    return sum(1.0 if one == verdict else 0.5 if one == "tie" else 0.0 for one in said) / len(said)


def calibrated(name: str, rows: Sequence[Mapping[str, Any]], people: Mapping[int, Sequence[str]]) -> ModelCalibration:
    """The calibration of one model; see `calibrate_models`.

    Args:
        name: of the model.
        rows: its labels with a side on items that people have decided, with item, verdict and confidence (1 if None).
        people: item -> people's verdicts.
    """
    rows = sorted(rows, key=lambda row: row["item"])
    sure = np.array([_sure(row["confidence"]) for row in rows])
    right = np.array([agreeing(row["verdict"], people[row["item"]]) for row in rows])
    across, bins = cross_fitted(sure, right, folds=FOLDS), bins_of(len(rows))
    return ModelCalibration(
        name=name,
        items=len(rows),
        people=sum(len(people[row["item"]]) for row in rows),
        overall=fit_platt(sure, right),
        chances=dict(zip((row["item"] for row in rows), across.tolist(), strict=True)),
        before=confidence_error(sure, right, bins=bins),
        after=confidence_error(across, right, bins=bins),
    )


def calibrate_models(labels: Any) -> dict[str, ModelCalibration]:
    """Every model's calibration, by its name: a logistic map (Platt) of its confidence in the side that it prefers to
    the share of people who agree, fitted on the items that both have decided.

    Args:
        labels: of one project that count, also those of models where people have decided; kind "preference" only.

    Raises:
        DataError: there is no model, or too few of its items have been decided by people.
    """
    people: defaultdict[int, list[str]] = defaultdict(list)
    models: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    read = labels.select(["item", "kind", "annotator", "annotator_kind", "verdict", "confidence", "repeat_of"])
    for row in read.to_pylist():
        if row["kind"] != "preference" or row["verdict"] not in DECIDED or row["repeat_of"] is not None:
            continue
        if row["annotator_kind"] == "person":
            people[row["item"]].append(row["verdict"])
        else:
            models[row["annotator"]].append(row)
    if not models:
        raise DataError("There are no labels of models to calibrate. Run popmargin label judge, or omit --calibrate.")
    found: dict[str, ModelCalibration] = {}
    for name, given in sorted(models.items()):
        shared = [row for row in given if row["verdict"] != "tie" and row["item"] in people]
        if len(shared) < LEAST:
            raise DataError(
                f"{name} prefers a side on {counted(len(shared), 'item')} that people have decided, too, and its "
                f"calibration needs {LEAST}. Let people label {LEAST - len(shared)} more of its items, leave it out "
                f"(--without), or omit --calibrate."
            )
        found[name] = calibrated(name, shared, people)
    return found


def calibrations_of(
    store: LabelStore,
    project: Project,
    *,
    without: Collection[str] = (),
    adjudication: Adjudication = "wins",
    criterion: str | None = None,
) -> dict[str, ModelCalibration]:
    """What the confidences of a project's models are worth, for `preferences_of`; its labels are chosen likewise.

    Raises:
        ConfigError: the project has no such criterion.
        DataError: there is no model, or people have decided too few of its items.
    """
    options: dict[str, Any] = {"without": without, "adjudication": adjudication}
    counting = counting_labels(store, project, _COLUMNS, **options, models="equal")
    return calibrate_models(labels_on(counting.labels, project, criterion))


def with_calibration(labels: Any, found: Mapping[str, ModelCalibration]) -> Any:
    """The labels with the chances of models' verdicts as their confidences; a side that people are more likely to
    contradict is turned round. Labels of people, ties and all other kinds stay.

    Args:
        labels: as of `LabelStore.labels`, with item, kind, annotator, annotator_kind, verdict and confidence.
        found: as of `calibrate_models`.
    """
    names = ("item", "kind", "annotator", "annotator_kind", "verdict", "confidence")
    verdicts: list[str] = labels["verdict"].to_pylist()
    confidences: list[float | None] = labels["confidence"].to_pylist()
    for place, row in enumerate(labels.select(names).to_pylist()):
        own = found.get(row["annotator"]) if row["annotator_kind"] != "person" else None
        if own is None or row["kind"] != "preference" or row["verdict"] not in ("first", "second"):
            continue
        chance = own.chances.get(row["item"])
        chance = float(own.overall(_sure(row["confidence"]))) if chance is None else chance
        if chance < 0.5:
            verdicts[place], chance = {"first": "second", "second": "first"}[row["verdict"]], 1.0 - chance
        confidences[place] = chance
    for name, values in (("verdict", verdicts), ("confidence", confidences)):
        place = labels.column_names.index(name)
        labels = labels.set_column(place, name, pa.array(values, labels.schema.field(name).type))
    return labels


def _sure(confidence: float | None) -> float:
    return 1.0 if confidence is None else confidence
