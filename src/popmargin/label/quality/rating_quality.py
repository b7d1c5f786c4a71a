"""How good ratings of single responses are: agreement of the people, and a row for each annotator.

Axis suffixes: L labels, N rated responses (items), R people.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from popmargin.data.questions import RATINGS
from popmargin.label.quality.adjudications import not_adjudicated
from popmargin.label.quality.annotator_row import AnnotatorRow
from popmargin.label.quality.annotators import untold_gold
from popmargin.statistics.agreement import alpha_interval, kappa_interval
from popmargin.statistics.intervals import Interval, binomial_interval
from popmargin.statistics.jackknife import row_means

pc: Any = pyarrow.compute


@dataclass(frozen=True, kw_only=True)
class RaterQuality(AnnotatorRow):
    """One annotator's ratings.

    Attributes:
        mean, deviation: of the ratings: where on the scale they are, and how much of it they use.
        consistency: share of repeated items that got the same rating.
        again: mean distance of a repeated rating from the first one.
        gold: share of gold items that got the known rating.
        others: mean distance from the mean rating of the other people.
        kappa: Cohen's κ with the (lower) median of the other people, distances on the scale weighted by their square.
    """

    mean: float
    deviation: float
    again: float


@dataclass(frozen=True)
class RatingQuality:
    """Ratings of single responses.

    Attributes:
        items: labelled responses.
        shared: of these, with ratings of at least two people.
        interval: Krippendorff's α, distances of ratings as numbers.
        ordinal: the same, ratings as ranks.
        apart: mean distance of two people's ratings of a response.
        raters: a row for each annotator, people first.
    """

    items: int
    shared: int
    interval: Interval
    ordinal: Interval
    apart: Interval
    raters: list[RaterQuality]


def rating_quality(labels: Any) -> RatingQuality | None:
    """Statistics of the labels of kind "rating"; None without one.

    Args:
        labels: as of `LabelStore.labels`, with at least `annotators.COLUMNS`.
    """
    labels = not_adjudicated(labels.filter(pc.equal(labels["kind"], "rating")))
    if not labels.num_rows:
        return None
    coded = labels["annotator"].combine_chunks().dictionary_encode()
    names, who_L = coded.dictionary.to_pylist(), coded.indices.to_numpy(zero_copy_only=False)
    kinds = [""] * len(names)
    for number, kind in zip(who_L, labels["annotator_kind"].to_pylist(), strict=True):
        kinds[number] = kind
    item_N, item_L = np.unique(labels["item"].to_numpy(), return_inverse=True)
    value_L, gold_L = _numbers(labels["verdict"]), _numbers(untold_gold(labels))
    first_L = pc.is_null(labels["repeat_of"]).to_numpy()
    people_NR = np.full((len(item_N), len(names)), np.nan)
    is_person_L = np.array([kind == "person" for kind in kinds])[who_L]
    mine = first_L & is_person_L
    people_NR[item_L[mine], who_L[mine]] = value_L[mine]
    shared = (~np.isnan(people_NR)).sum(axis=1) > 1
    rows: list[RaterQuality] = []
    for number in sorted(range(len(names)), key=lambda n: (kinds[n] != "person", kinds[n], names[n])):
        own = who_L == number
        once = own & first_L
        value, seconds = value_L[once], labels["seconds"].to_numpy()[once]
        rated, times = value[~np.isnan(value)], seconds[~np.isnan(seconds)]
        again = _repeats(labels["assignment"].to_numpy()[own], labels["repeat_of"].filter(pa.array(own)), value_L[own])
        known = once & ~np.isnan(gold_L) & ~np.isnan(value_L)
        others, median = _others(people_NR, number, item_L[once], value)
        rows.append(
            RaterQuality(
                name=names[number],
                kind=kinds[number],
                labels=len(value),
                seconds=float(np.median(times)) if len(times) else math.nan,
                unsure=float(np.isnan(value).mean()) if len(value) else math.nan,
                mean=float(rated.mean()) if len(rated) else math.nan,
                deviation=float(rated.std(ddof=1)) if len(rated) > 1 else math.nan,
                consistency=binomial_interval(int((again == 0).sum()), len(again)),
                again=float(again.mean()) if len(again) else math.nan,
                gold=binomial_interval(int((value_L == gold_L)[known].sum()), int(known.sum())),
                others=_mean(others),
                kappa=kappa_interval(median, value, "quadratic"),
            )
        )
    return RatingQuality(
        items=len(item_N),
        shared=int(shared.sum()),
        interval=alpha_interval(people_NR[shared], "interval"),
        ordinal=alpha_interval(people_NR[shared], "ordinal"),
        apart=_mean(_distances(people_NR[shared])),
        raters=rows,
    )


def _numbers(column: Any) -> np.ndarray:
    """Ratings as numbers (L,), nan for other answers."""
    place = pc.fill_null(pc.index_in(column, value_set=pa.array(RATINGS)), -1).to_numpy()
    return np.where(place < 0, np.nan, place + 1.0)


def _repeats(assignment: np.ndarray, repeat_of: Any, value: np.ndarray) -> np.ndarray:
    """Distances of the ratings of repeated items from the first ones, if both are ratings."""
    first = dict(zip(assignment.tolist(), value.tolist(), strict=True))
    pairs = zip(repeat_of.to_pylist(), value.tolist(), strict=True)
    apart = np.array([abs(again - first.get(before, math.nan)) for before, again in pairs if before is not None])
    return apart[~np.isnan(apart)]


def _others(people_NR: np.ndarray, number: int, item: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each own rating from the mean of the other people's, and their lower median; nan without others."""
    others = people_NR[item].copy()
    others[:, number] = np.nan
    some = ~np.isnan(others).all(axis=1)
    mean, median = np.full(len(item), np.nan), np.full(len(item), np.nan)
    mean[some] = np.nanmean(others[some], axis=1)
    median[some] = np.nanquantile(others[some], 0.5, axis=1, method="lower")
    return np.abs(value - mean), median


def _distances(people_NR: np.ndarray) -> np.ndarray:
    """Mean distance of two people's ratings of each response (N,)."""
    first, second = np.triu_indices(people_NR.shape[1], 1)
    if not len(people_NR):
        return np.zeros(0)
    return np.nanmean(np.abs(people_NR[:, first] - people_NR[:, second]), axis=1)


def _mean(values: np.ndarray) -> Interval:
    known = values[~np.isnan(values)]
    return row_means(known[None], range(len(known))).interval()
