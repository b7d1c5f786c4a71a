"""Annotators and their agreement, from the columns of a label table: numbers for the report and the admin page.

Axis suffixes: L labels, N items, R annotators, K verdicts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from popmargin.judges.comparing import flipped
from popmargin.judges.labeller import read_orders
from popmargin.label.quality.adjudications import not_adjudicated
from popmargin.label.quality.annotator_row import AnnotatorRow
from popmargin.statistics.agreement import alpha_interval, kappa_interval, leave_one_out, pairwise_agreement
from popmargin.statistics.intervals import UNDEFINED, Interval, binomial_interval
from popmargin.statistics.jackknife import share_of_sums

pc: Any = pyarrow.compute
KINDS = ("pop", "preference")
_VERDICTS = ("second", "tie", "first", "wrong", "both_bad", "unsure")
_VALUES = np.array([-1.0, 0.0, 1.0, 2.0, 3.0, np.nan])  # "unsure" is not a value
_SECOND, _TIE, _FIRST, _WRONG, _BOTH_BAD, _UNSURE = range(6)
COLUMNS = ("assignment", "item", "kind", "annotator", "annotator_kind", "verdict", "seconds", "note", "swap_pairs",
           "swap_first", "gold", "repeat_of", "training",
           "adjudicated", "guidelines_version")  # fmt: skip
"""Columns of a table of labels that `annotator_quality` and `versions.by_version` read."""


@dataclass(frozen=True, kw_only=True)
class AnnotatorQuality(AnnotatorRow):
    """One annotator's comparisons.

    Attributes:
        ties, wrong, both_bad: shares of the labels.
        left: share of left (or A) among decided labels; for a judge, among single answers to questions asked in both
            orders.
        consistency: share of repeated items that got the same verdict.
        gold: share of decided gold items that got the expected verdict.
        others: how often a label matches the majority of the other people (people only).
        kappa: Cohen's κ with the majority of the other people, over both kinds, excluding evenly split items.
        flips: share of a judge's questions whose verdict flipped with the order.
    """

    ties: float
    wrong: float
    left: Interval
    flips: Interval
    both_bad: float = 0.0


@dataclass(frozen=True)
class JudgeAgreement:
    """A model and people, on the same items and against the same panels.

    Attributes:
        items: items that it and at least two people decided.
        judge: how often it agrees with most people on an item, leaving out one in turn.
        people: the same for the person who was left out.
        kappa: Cohen's κ with the people's majority, excluding evenly split items.
    """

    name: str
    kind: str
    items: int
    judge: Interval
    people: Interval
    kappa: Interval


@dataclass(frozen=True)
class KindAgreement:
    """Agreement of people on items of one kind.

    Attributes:
        items: labelled items.
        shared: of these, with verdicts of at least two people.
        alpha: Krippendorff's α of the verdicts as names.
        ordinal: α with a tie between first and second, excluding "wrong" and "both_bad".
        pairs: share of pairs of people who agree.
        people: how often a person agrees with most of the others.
        judges: the models, best first.
    """

    kind: str
    items: int
    shared: int
    alpha: Interval
    ordinal: Interval
    pairs: Interval
    people: Interval
    judges: list[JudgeAgreement]


def annotator_quality(labels: Any) -> tuple[list[AnnotatorQuality], list[KindAgreement]]:
    """A row for each annotator, people first, and people's agreement for each kind of comparison.

    Args:
        labels: as of `LabelStore.labels`, with at least `COLUMNS`; ratings are ignored (see `rating_quality.py`).
    """
    labels = not_adjudicated(labels.filter(pc.is_in(labels["kind"], value_set=pa.array(KINDS))))
    whole = _Labels.of(labels)
    first_time = whole.where(whole.repeat_of < 0)
    panels = {kind: _Panel.of(first_time.where(first_time.kind == code)) for code, kind in enumerate(KINDS)}
    rows = [_annotator(number, whole, first_time, panels) for number in np.lexsort((whole.names, whole.kinds,
            whole.kinds != "person"))]  # fmt: skip
    return rows, [_kind_agreement(kind, panel, whole) for kind, panel in panels.items() if len(panel.counts)]


@dataclass(frozen=True)
class _Labels:
    """Columns as arrays (L,): codes of verdicts and kinds, -1 for none, and numbers of the annotators in `names`."""

    names: np.ndarray
    kinds: np.ndarray
    who: np.ndarray
    assignment: np.ndarray
    item: np.ndarray
    kind: np.ndarray
    verdict: np.ndarray
    gold: np.ndarray
    swapped: np.ndarray
    ordered: np.ndarray
    seconds: np.ndarray
    repeat_of: np.ndarray
    notes: Any

    @staticmethod
    def of(labels: Any) -> "_Labels":
        coded = labels["annotator"].combine_chunks().dictionary_encode()
        who = coded.indices.to_numpy(zero_copy_only=False)
        kinds = np.full(len(coded.dictionary), "", dtype=object)
        kinds[who] = labels["annotator_kind"].to_numpy()
        kind = _codes(labels["kind"], KINDS)
        swaps = [pc.fill_null(labels[name], False).to_numpy() for name in ("swap_pairs", "swap_first")]
        return _Labels(
            names=np.array(coded.dictionary.to_pylist(), dtype=object),
            kinds=kinds,
            who=who,
            assignment=labels["assignment"].to_numpy(),
            item=labels["item"].to_numpy(),
            kind=kind,
            verdict=_codes(labels["verdict"], _VERDICTS),
            gold=_codes(untold_gold(labels), _VERDICTS),
            swapped=np.where(kind == 0, *swaps),
            ordered=np.where(kind == 0, *(labels[name].is_valid().to_numpy() for name in ("swap_pairs", "swap_first"))),
            seconds=labels["seconds"].to_numpy(),
            repeat_of=pc.fill_null(labels["repeat_of"], -1).to_numpy(),
            notes=labels["note"],
        )

    def where(self, mask: np.ndarray) -> "_Labels":
        columns = {
            name: value[mask] for name, value in self.__dict__.items() if name not in ("names", "kinds", "notes")
        }
        return _Labels(names=self.names, kinds=self.kinds, notes=self.notes.filter(pa.array(mask)), **columns)

    def by(self, number: int) -> "_Labels":
        return self.where(self.who == number)


def untold_gold(labels: Any) -> Any:
    """The known answers of a table of labels, without those of training items, which annotators are told."""
    return pc.if_else(pc.fill_null(labels["training"], False), None, labels["gold"])


def _codes(column: Any, names: Sequence[str]) -> np.ndarray:
    return pc.fill_null(pc.index_in(column, value_set=pa.array(names)), -1).to_numpy()


@dataclass(frozen=True)
class _Panel:
    """Verdicts of the people on items of one kind.

    Attributes:
        items: ids of the items (N,).
        people: values by person (N, R), nan if missing; columns are the numbers `columns` of annotators.
        counts: how many people gave each of the values (N, K).
        models: values of each model (N,), by its number.
    """

    items: np.ndarray
    people: np.ndarray
    columns: np.ndarray
    counts: np.ndarray
    models: dict[int, np.ndarray]

    @staticmethod
    def of(labels: _Labels) -> "_Panel":
        items, item = np.unique(labels.item, return_inverse=True)
        value = _VALUES[labels.verdict]
        is_person = labels.kinds[labels.who] == "person"
        columns, column = np.unique(labels.who[is_person], return_inverse=True)
        people = np.full((len(items), len(columns)), np.nan)
        people[item[is_person], column] = value[is_person]
        decided = is_person & (labels.verdict != _UNSURE)
        cell = item[decided] * _UNSURE + labels.verdict[decided]
        counts = np.bincount(cell, minlength=len(items) * _UNSURE).reshape(len(items), _UNSURE)
        models: dict[int, np.ndarray] = {}
        for number in np.unique(labels.who[~is_person]):
            mine = labels.who == number
            models[int(number)] = np.full(len(items), np.nan)
            models[int(number)][item[mine]] = value[mine]
        return _Panel(items, people, columns, counts, models)


def _annotator(number: int, whole: _Labels, first_time: _Labels, panels: dict[str, _Panel]) -> AnnotatorQuality:
    own = first_time.by(number)
    is_model = whole.kinds[number] != "person"
    decided = (own.verdict == _FIRST) | (own.verdict == _SECOND)
    left = ((own.verdict == _FIRST) != own.swapped)[decided & own.ordered]
    orders = _orders(own) if is_model else []
    if is_model:
        left = np.array([order.place == "A" for pair in orders for order in pair if order.place in "AB"])
    golds = (own.gold >= 0) & (own.verdict != _UNSURE)
    times = own.seconds[~np.isnan(own.seconds)]
    others, kappa = _with_others(own, panels)
    return AnnotatorQuality(
        name=str(whole.names[number]),
        kind=str(whole.kinds[number]),
        labels=len(own.item),
        seconds=float(np.median(times)) if len(times) else math.nan,
        ties=_share(own, _TIE),
        unsure=_share(own, _UNSURE),
        wrong=_share(own, _WRONG),
        left=binomial_interval(int(left.sum()), len(left)),
        consistency=_consistency(whole.by(number)),
        gold=binomial_interval(int((own.verdict == own.gold)[golds].sum()), int(golds.sum())),
        others=UNDEFINED if is_model else others,
        kappa=kappa,
        flips=binomial_interval(sum(map(flipped, orders)), len(orders)),
        both_bad=_share(own, _BOTH_BAD),
    )


def _orders(own: _Labels) -> list[Any]:
    """Both orders of each question of a judge, if both were parsed."""
    read = [read_orders(note or "") for note in own.notes.to_pylist()]
    return [pair for pair in read if pair is not None and "?" not in (pair[0].place, pair[1].place)]


def _share(own: _Labels, verdict: int) -> float:
    return float((own.verdict == verdict).mean()) if len(own.verdict) else math.nan


def _consistency(own: _Labels) -> Interval:
    """Repeated items against the first answers, which come before them if they exist."""
    order = np.argsort(own.assignment)
    numbers = own.assignment[order]
    repeats = np.isin(own.repeat_of, numbers)
    before = own.verdict[order][np.searchsorted(numbers, own.repeat_of[repeats])]
    return binomial_interval(int((own.verdict[repeats] == before).sum()), int(repeats.sum()))


def _with_others(own: _Labels, panels: dict[str, _Panel]) -> tuple[Interval, Interval]:
    """How often one agrees with most of the (other) people, and Cohen's κ with them, over both kinds."""
    sums, said, most = [np.zeros((0, 2))], [np.zeros(0)], [np.zeros(0)]
    for code, panel in enumerate(panels.values()):
        mine = own.where((own.kind == code) & (own.verdict != _UNSURE))
        others = panel.counts[np.searchsorted(panel.items, mine.item)]
        rows = np.arange(len(others))
        if len(own.who) and own.kinds[own.who[0]] == "person":
            others[rows, mine.verdict] -= 1
        modes = (others == others.max(axis=1, keepdims=True)) & (others > 0)
        hits = modes[rows, mine.verdict] / np.maximum(modes.sum(axis=1), 1)
        sums.append(np.stack([hits, modes.any(axis=1)], axis=1))
        said.append(_VALUES[mine.verdict])
        most.append(_majority(others))
    return share_of_sums(np.concatenate(sums)), kappa_interval(np.concatenate(most), np.concatenate(said))


def _kind_agreement(kind: str, panel: _Panel, whole: _Labels) -> KindAgreement:
    people = panel.people
    shared = panel.counts.sum(axis=1) > 1
    judges: list[JudgeAgreement] = []
    for number, verdicts in panel.models.items():
        common = shared & ~np.isnan(verdicts)
        judges.append(
            JudgeAgreement(
                str(whole.names[number]),
                str(whole.kinds[number]),
                int(common.sum()),
                leave_one_out(people[common], verdicts[common]),
                leave_one_out(people[common]),
                kappa_interval(_majority(panel.counts[common]), verdicts[common]),
            )
        )
    judges.sort(key=lambda judge: (-judge.judge.estimate if judge.items else 1.0, judge.name))
    people = people[shared]
    return KindAgreement(
        kind,
        len(shared),
        int(shared.sum()),
        alpha_interval(people),
        alpha_interval(np.where(people >= _VALUES[_WRONG], np.nan, people), "ordinal"),
        pairwise_agreement(people),
        leave_one_out(people),
        judges,
    )


def _majority(counts_NK: np.ndarray) -> np.ndarray:
    """The most frequent value of each item (N,); nan if there is none, or two are equally frequent."""
    unique = (counts_NK == counts_NK.max(axis=1, keepdims=True)).sum(axis=1) == 1
    return np.where(unique, _VALUES[counts_NK.argmax(axis=1)], np.nan)
