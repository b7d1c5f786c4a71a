"""The label report's numbers for the admin page, cached while fresh enough."""

import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from popmargin.label.quality.annotators import COLUMNS, AnnotatorQuality, KindAgreement, annotator_quality
from popmargin.label.quality.criteria_quality import COLUMNS as ON_CRITERIA
from popmargin.label.quality.criteria_quality import with_known
from popmargin.label.quality.drift import COLUMNS as DRIFT_COLUMNS
from popmargin.label.quality.drift import Drift, drift_of
from popmargin.label.quality.flags import flags_of
from popmargin.label.quality.good_enough import COLUMNS as ORDER_COLUMNS
from popmargin.label.quality.good_enough import order_of
from popmargin.label.quality.habits import COLUMNS as HABIT_COLUMNS
from popmargin.label.quality.habits import habits_of
from popmargin.label.quality.next_question import COLUMNS as NEXT_COLUMNS
from popmargin.label.quality.next_question import NextHour, next_hour, standing
from popmargin.label.quality.ranking_quality import COLUMNS as RANK_COLUMNS
from popmargin.label.quality.ranking_quality import RankingQuality, ranking_quality
from popmargin.label.quality.rating_quality import RatingQuality, rating_quality
from popmargin.label.quality.versions import VersionQuality, by_version
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project
from popmargin.pop.precision import ScalePrecision

_COLUMNS = tuple(
    dict.fromkeys(
        (*COLUMNS, *NEXT_COLUMNS, *DRIFT_COLUMNS, *HABIT_COLUMNS, *ORDER_COLUMNS, *RANK_COLUMNS, *ON_CRITERIA)
    )
)
_PATIENCE = 10


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Results of `annotator_quality` and the like for a project, and when they were computed.

    Attributes:
        flags: annotators that deserve a look, with the reasons.
        drift: changes over time; None with few labels.
        order: how well people's comparisons order the preferences; None without one.
        next: what the next hour is best spent on; None if nothing is asked.
        newest: number of the store's newest revision at that time.
        people: names of the annotators at that time, and whether their labels were discarded.
        until: on the monotonic clock, how long they are used despite newer labels.
    """

    annotators: list[AnnotatorQuality]
    agreement: list[KindAgreement]
    raters: RatingQuality | None
    rankings: RankingQuality | None
    versions: list[VersionQuality]
    flags: dict[str, list[str]]
    drift: Drift | None
    order: ScalePrecision | None
    next: NextHour | None
    labels: int
    at: datetime
    newest: int
    people: tuple[tuple[str, bool], ...]
    until: float


class FigureCache:
    """Figures of each project of a store.

    They are recomputed when annotators are discarded or forgotten, and when there are new labels, then using at most a
    tenth of the server's time: reading a million labels takes seconds, during which people wait longer for their tasks.
    """

    def __init__(self, store: LabelStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._kept: dict[int, Figures] = {}

    def of(self, project: Project) -> Figures:
        """Figures of a project."""
        with self._lock:
            kept, newest = self._kept.get(project.id), self._store.newest_label()
            people = tuple((who.name, who.discarded) for who in self._store.annotators(project.id))
            late = kept is not None and kept.newest != newest and time.monotonic() > kept.until
            if kept is None or late or kept.people != people:
                start, at = time.monotonic(), datetime.now(UTC)
                labels = self._store.labels(project.id, columns=_COLUMNS)
                annotators, agreement = annotator_quality(labels)
                criteria = [one.name for one in project.criteria]
                raters, rankings = rating_quality(labels), ranking_quality(labels)
                annotators = with_known(annotators, labels, criteria)
                if raters is not None:
                    raters = replace(raters, raters=with_known(raters.raters, labels, criteria))
                rows = [*(raters.raters if raters else []), *(rankings.rankers if rankings else [])]
                has = standing(self._store, project, labels, agreement)
                drift, order, habits = drift_of(labels), order_of(labels), habits_of(labels)
                now = time.monotonic()
                kept = self._kept[project.id] = Figures(
                    annotators=annotators,
                    agreement=agreement,
                    raters=raters,
                    rankings=rankings,
                    versions=by_version(labels),
                    flags=flags_of([*annotators, *rows], habits),
                    drift=drift,
                    order=order,
                    next=None if has is None else next_hour(has),
                    labels=labels.num_rows,
                    at=at,
                    newest=newest,
                    people=people,
                    until=now + _PATIENCE * (now - start),
                )
            return kept
