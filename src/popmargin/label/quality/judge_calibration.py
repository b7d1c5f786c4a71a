"""Models beside people on the items that both labelled: their agreement, and whether a confidence can be believed.

Axis suffix N: items.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from popmargin.judges.labeller import orders_of
from popmargin.label.export.calibrated_models import LEAST, agreeing, bins_of, calibrated
from popmargin.label.export.pooled_votes import pool_votes
from popmargin.statistics.calibration import ConfidenceBin, confidence_curve, confidence_error, mean_share
from popmargin.statistics.intervals import UNDEFINED, Interval

_DECIDED = ("first", "second", "tie")
PANEL = "panel"
"""Kind of several models together."""
Source = Literal["probabilities", "orders", "own", "pooled", ""]
"""Where a confidence is from: probabilities, the share of both orders, the model itself, or pooling; "" without one."""


@dataclass(frozen=True)
class JudgeCalibration:
    """A model's verdicts on items that people have decided, too.

    Attributes:
        name: of the model.
        kind: of the model: judge, reward or ratings; "panel" for all together.
        asked: kind of the items.
        items: on which the model prefers a side, and at least one person has decided.
        people: people's votes on them.
        ties: further items on which the model sees a tie, and has no side to be right about.
        agreement: mean over items of the share of people who prefer the model's side; a person's tie counts ½.
        source: where the confidence is from.
        confidence: its mean; nan without one.
        error: expected calibration error, Σ over bins of |confidence − agreement| weighted by items, without its
            upward bias (see `statistics.calibration`).
        curve: bins of equal size; empty without a confidence.
        after: the same error of confidences that were calibrated by people, each by a map that others' items have given
            (see `label.export.calibrated_models`); undefined with too few items, and for several models together.
        intercept, slope: of the map from all items; nan likewise.
    """

    name: str
    kind: str
    asked: str
    items: int
    people: int
    ties: int
    agreement: Interval
    source: Source
    confidence: float
    error: Interval
    curve: list[ConfidenceBin]
    after: Interval = UNDEFINED
    intercept: float = math.nan
    slope: float = math.nan


def judge_calibrations(rows: Sequence[Mapping[str, Any]]) -> list[JudgeCalibration]:
    """Every model that has labelled items with people, by kind of item, best first, and all models together.

    Models together are pooled by Dawid–Skene without people's votes, on items that at least two of them have decided.

    Args:
        rows: labels as of `LabelStore.labels`, without repeats.
    """
    people: defaultdict[int, list[str]] = defaultdict(list)
    models: defaultdict[tuple[str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["kind"] == "rating" or row["verdict"] not in _DECIDED:
            continue
        if row["annotator_kind"] == "person":
            people[row["item"]].append(row["verdict"])
        else:
            models[row["kind"], row["annotator_kind"], row["annotator"]].append(row)
    found = [
        _calibration(name, kind, asked, shared, people)
        for (asked, kind, name), given in models.items()
        if (shared := [row for row in given if row["item"] in people])
    ]
    for asked in sorted({key[0] for key in models}):
        together = _panel([row for key, given in models.items() if key[0] == asked for row in given], asked)
        shared = [row for row in together if row["item"] in people]
        found += [_calibration(shared[0]["annotator"], PANEL, asked, shared, people, "pooled")] if shared else []
    known = [one for one in found if one.items]
    return sorted(known, key=lambda one: (one.asked != "pop", -one.agreement.estimate, one.name))


def _panel(rows: Sequence[Mapping[str, Any]], asked: str) -> list[dict[str, Any]]:
    """The pooled votes of several models as labels; none of a single model."""
    voters: defaultdict[int, set[str]] = defaultdict(set)
    for row in rows:
        voters[row["item"]].add(row["annotator"])
    shared = [row for row in rows if len(voters[row["item"]]) > 1]
    if not shared:
        return []
    name = f"{len({row['annotator'] for row in shared})} models pooled"
    labels: list[dict[str, Any]] = []
    for item, chances in pool_votes(shared).chances.items():
        best = max(chances, key=lambda verdict: chances[verdict])
        labels.append({"item": item, "annotator": name, "verdict": best, "confidence": chances[best], "note": ""})
    return labels


def _calibration(
    name: str,
    kind: str,
    asked: str,
    rows: Sequence[Mapping[str, Any]],
    people: Mapping[int, list[str]],
    source: Source | None = None,
) -> JudgeCalibration:
    sided = [row for row in rows if row["verdict"] != "tie"]
    right_N = np.array([agreeing(row["verdict"], people[row["item"]]) for row in sided])
    source = _source(sided) if source is None else source
    sure_N = np.array([math.nan if row["confidence"] is None else row["confidence"] for row in sided], dtype=np.float64)
    known_N = np.isfinite(sure_N) & (source != "")
    sure, right = sure_N[known_N], right_N[known_N]
    bins = bins_of(len(sure))
    known = [row for row, is_known in zip(sided, known_N, strict=True) if is_known]
    mapped = calibrated(name, known, people) if len(known) >= LEAST and kind != PANEL else None
    return JudgeCalibration(
        name=name,
        kind=kind,
        asked=asked,
        items=len(sided),
        people=sum(len(people[row["item"]]) for row in sided),
        ties=len(rows) - len(sided),
        agreement=mean_share(right_N) if len(sided) else UNDEFINED,
        source=source if len(sure) else "",
        confidence=float(sure.mean()) if len(sure) else math.nan,
        error=confidence_error(sure, right, bins=bins) if len(sure) else UNDEFINED,
        curve=confidence_curve(sure, right, bins=bins) if len(sure) else [],
        after=UNDEFINED if mapped is None else mapped.after,
        intercept=math.nan if mapped is None else mapped.overall.intercept,
        slope=math.nan if mapped is None else mapped.overall.slope,
    )


def _source(rows: Sequence[Mapping[str, Any]]) -> Source:
    """Where the confidence of these labels is from."""
    orders = [found for row in rows if (found := orders_of(row["note"] or ""))]
    if any(order.p is not None for found in orders for order in found):
        return "probabilities"
    if orders:
        return "orders" if any(len(found) > 1 for found in orders) else ""
    return "own" if any(row["confidence"] is not None for row in rows) else ""
