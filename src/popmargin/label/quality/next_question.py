"""What an annotator's next hour is best spent on, from the budget studies and what is measured in a project."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute

from popmargin.data.questions import RATINGS, Kind
from popmargin.label.quality.annotators import KindAgreement
from popmargin.label.quality.budget_tables import (
    NEEDS_NEW,
    OPTIONS,
    BudgetTable,
    Gain,
    Option,
    budget_tables,
    difference,
    unit_price,
)
from popmargin.label.quality.task_prices import TaskPrices, are_chained, mean_words, median_seconds, task_prices
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.ranked_items import load_others
from popmargin.label.store.records import Project
from popmargin.statistics.intervals import UNDEFINED, Interval

pc: Any = pyarrow.compute
COLUMNS = ("assignment", "item", "kind", "first", "second", "response", "annotator", "annotator_kind", "verdict",
           "seconds", "repeat_of")  # fmt: skip
"""Columns of a table of labels that `standing` reads."""
_SAMPLE = 1_000  # preferences whose words are counted


@dataclass(frozen=True)
class Standing:
    """What a project has.

    Attributes:
        kind: of its items.
        labelled: preferences with a label: of people, or of the data, if people compare preferences.
        unlabelled: preferences without one.
        votes: labels of people for each labelled preference; nan if the labels are the data's.
        agreement: how often two people agree.
        prices: seconds of every question; None if responses are images, whose reading nobody has priced.
        ranked: preferences in a ranking; 0 if the project asks for none.
    """

    kind: Kind
    labelled: int
    unlabelled: int
    votes: float
    agreement: Interval
    prices: TaskPrices | None
    ranked: int = 0


@dataclass(frozen=True)
class Verdicts:
    """What one study says.

    Attributes:
        study: its tables.
        gains: of every option.
        best: with the highest gain.
        ties: options that are not told apart from it, the simplest first; `best` among them.
        old: the same two of the options that need no new preferences.
    """

    study: BudgetTable
    gains: Mapping[Option, Gain]
    best: Option
    ties: tuple[Option, ...]
    old: tuple[Option, tuple[Option, ...]]

    def takes(self, *, new: bool) -> Option:
        """The simplest of the best."""
        return self.ties[0] if new else self.old[1][0]


@dataclass(frozen=True)
class NextHour:
    """What to spend time on.

    Attributes:
        hours: to spend.
        share: the same, in multiples of the time that the labels took.
        said: what each study says, that with the most similar length of texts first; empty without labels or prices.
    """

    standing: Standing
    hours: float
    share: float
    said: tuple[Verdicts, ...]


def standing(store: LabelStore, project: Project, labels: Any, agreement: Sequence[KindAgreement]) -> Standing | None:
    """What a project has; None if it asks nothing yet.

    Args:
        store: of the project.
        project: whose labels they are.
        labels: as of `LabelStore.labels`, with `COLUMNS`.
        agreement: of `annotator_quality`.
    """
    texts = {} if project.images else store.some_texts(project.id, _SAMPLE)
    prices, ranked = None, _ranked(store, project)
    if texts:
        prices = task_prices(mean_words(texts), median_seconds(labels), chained=are_chained(labels), ranked=ranked)
    first_time = pc.and_(pc.is_null(labels["repeat_of"]), pc.equal(labels["annotator_kind"], "person"))
    own = labels.filter(first_time)
    kind = _kind(store, project)
    if kind is None:
        return None
    labelled, votes = _counts(kind, own, project)
    pairs = next((found.pairs for found in agreement if found.kind == kind), UNDEFINED)
    return Standing(kind, labelled, max(project.preferences - labelled, 0), votes, pairs, prices, ranked)


def next_hour(found: Standing, hours: float = 1.0) -> NextHour:
    """What the studies say about the next hours of a project's annotators."""
    if not found.labelled or found.prices is None:
        return NextHour(found, hours, math.nan, ())
    share = 3600 * hours / (found.labelled * found.prices.seconds["preference"])
    own = _length(found.prices.words)
    nearest = sorted(budget_tables(), key=lambda study: abs(math.log(max(own, 1.0) / _length(study.words))))
    said = tuple(_verdicts(study, found.labelled, 3600 * hours, found.prices) for study in nearest)
    return NextHour(found, hours, share, said)


def _length(words: tuple[float, float]) -> float:
    """Words of a preference."""
    return words[0] + 2 * words[1]


def _verdicts(study: BudgetTable, labelled: int, seconds: float, prices: TaskPrices) -> Verdicts:
    gains: dict[Option, Gain] = {option: study.gain(option, labelled, seconds, prices.seconds) for option in OPTIONS}
    best, ties = _best(gains)
    old: dict[Option, Gain] = {name: one for name, one in gains.items() if name not in NEEDS_NEW}
    return Verdicts(study, gains, best, ties, _best(old))


def _best(gains: Mapping[Option, Gain]) -> tuple[Option, tuple[Option, ...]]:
    best = max(gains, key=lambda name: gains[name].points.estimate)
    top = gains[best].points
    return best, tuple(
        name for name, one in gains.items() if name == best or not difference(top, one.points).low > 0
    )  # fmt: skip


def hourly(option: Option, prices: TaskPrices) -> float:
    """How many questions an hour buys."""
    return 3600 / unit_price(option, prices.seconds)


def _kind(store: LabelStore, project: Project) -> Kind | None:
    """What a project mainly asks: preferences before ratings before comparisons before rankings."""
    batch = next(iter(store.items(project.id)), None)
    kinds: list[Kind] = [] if batch is None else batch["kind"].unique().to_pylist()
    wanted: tuple[Kind, ...] = ("preference", "rating", "pop", "rank")
    return next((kind for kind in wanted if kind in kinds), None)


def _ranked(store: LabelStore, project: Project) -> int:
    """Preferences in a ranking of a project, that is, in its last one; 0 if it asks for none."""
    batch = next(iter(store.items(project.id)), None)
    others = None if batch is None else batch["others"][-1].as_py()
    return 0 if others is None else 1 + len(load_others(others))


def _counts(kind: Kind, labels: Any, project: Project) -> tuple[int, float]:
    """Preferences with a label, and labels for each."""
    if kind in ("pop", "rank"):
        return project.preferences, math.nan
    own = labels.filter(pc.equal(labels["kind"], kind))
    if kind == "preference":
        decided = own.filter(pc.is_in(own["verdict"], value_set=pa.array(["first", "second", "tie"])))
        labelled = pc.count_distinct(decided["first"]).as_py()
        return labelled, decided.num_rows / labelled if labelled else math.nan
    rated = own.filter(pc.is_in(own["verdict"], value_set=pa.array(RATINGS)))
    sides = rated.group_by(["first", "response"]).aggregate([]).group_by("first").aggregate([("response", "count")])
    labelled = int(pc.sum(pc.equal(sides["response_count"], 2)).as_py() or 0)
    return labelled, rated.num_rows / (2 * labelled) if labelled else math.nan
