"""From rankings to the numbers of a report: metrics with intervals over users and seeds, differences, and costs.

Axis suffixes: S seeds, N cases.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from popmargin.config import dump_yaml, to_dict
from popmargin.errors import counted
from popmargin.objectives.base import OBJECTIVES
from popmargin.recommend.ranking_metrics import RankingMetrics, measure, popularity
from popmargin.recommend.ranks import Ranking
from popmargin.recommend.saved_parts import parts_digest
from popmargin.recommend.splitting import Cases, Parts
from popmargin.report.results import ArmResult, Origin, StudyResults
from popmargin.statistics.intervals import Interval
from popmargin.study.recommenders.recommend_config import RecommendConfig
from popmargin.study.recommenders.recommender_job import cases_of
from popmargin.study.recommenders.recommender_reading import Contender, read_recommenders

COSTS = ("fit_seconds", "fit_cpu_seconds", "rank_seconds", "rank_cpu_seconds", "peak_memory_mb", "start_memory_mb",
         "vector_seconds")  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """One recommender with one seed.

    Attributes:
        seed: None if it has none.
        rankings: one for each draw of its noise.
        costs: seconds and megabytes by name.
    """

    seed: int | None
    rankings: Sequence[Ranking]
    costs: Mapping[str, Any]


@dataclass(frozen=True)
class Recommended:
    """One arm in all its seeds.

    Attributes:
        name, label: of the arm.
        kind: the registered baseline, or `model`.
        objective: registry name of the objective, or of the baseline.
        origin: of the method.
        measurements: one for each seed.
    """

    name: str
    label: str
    kind: str
    objective: str
    origin: Origin
    measurements: Sequence[Measurement]

    @property
    def seeds(self) -> list[int]:
        """Seeds behind the numbers; none for a recommender without any."""
        return [one.seed for one in self.measurements if one.seed is not None]


def over_seeds(
    measurements: Sequence[Measurement], cases: Cases, counts: np.ndarray, cutoffs: Sequence[int]
) -> RankingMetrics:
    """The metrics of an arm (S, N): draws of one seed are averaged, since they are no independent trainings."""
    found = [measure(one.rankings, cases, counts, cutoffs=cutoffs) for one in measurements]

    def stacked(part: str) -> dict[str, np.ndarray]:
        each = [getattr(metrics, part) for metrics in found]
        return {name: np.stack([values[name].mean(axis=0) for values in each]) for name in each[0]}

    return RankingMetrics(stacked("per_user"), stacked("coverage"), stacked("popularity"), cases.users)


def paired(arm: RankingMetrics, other: RankingMetrics) -> tuple[RankingMetrics, RankingMetrics]:
    """Two arms with equally many seeds; one that has a single ranking for all seeds is repeated."""

    def seeds(metrics: RankingMetrics) -> int:
        return len(next(iter(metrics.per_user.values())))

    def repeated(metrics: RankingMetrics, count: int) -> RankingMetrics:
        return replace(metrics, per_user={name: np.repeat(rows, count, 0) for name, rows in metrics.per_user.items()})

    if seeds(arm) == 1:
        arm = repeated(arm, seeds(other))
    return arm, repeated(other, seeds(arm)) if seeds(other) == 1 else other


def differences_of(arm: RankingMetrics, other: RankingMetrics, *, level: float = 0.95) -> dict[str, Interval]:
    """Differences of two arms on the same cases, paired by user and by seed."""
    first, second = paired(arm, other)
    return {name: first.minus(second, name, level=level) for name in first.per_user}


def arm_result(arm: Recommended, metrics: RankingMetrics, base: tuple[Recommended, RankingMetrics]) -> ArmResult:
    """An arm's part of the results.

    Args:
        arm: its measurements.
        metrics: their metrics.
        base: the arm that it is compared with, and its metrics.
    """
    plain = {**metrics.coverage, **metrics.popularity}
    intervals = {name: metrics.interval(name).clip(0, 1) for name in metrics.per_user}
    intervals |= {name: Interval(float(values.mean()), math.nan, math.nan) for name, values in plain.items()}
    return ArmResult(
        name=arm.name,
        objective=arm.objective,
        label=arm.label,
        origin=arm.origin,
        seeds=arm.seeds,
        metrics=intervals,
        differences={} if arm.name == base[0].name else differences_of(metrics, base[1]),
        overhead=_costs(arm, base[0]),
    )


def _costs(arm: Recommended, base: Recommended) -> dict[str, float]:
    """Means over seeds; a cost that a seed lacks is unknown."""

    def mean(which: Recommended, name: str) -> float:
        values = [one.costs.get(name) for one in which.measurements]
        return float(np.mean([math.nan if value is None else value for value in values]))

    found = {name: mean(arm, name) for name in COSTS if math.isfinite(mean(arm, name))}
    below = mean(base, "fit_seconds") + mean(base, "rank_seconds")
    own = mean(arm, "fit_seconds") + mean(arm, "rank_seconds")
    return found | ({"time_ratio": own / below} if below > 0 else {})


def results_of(
    arms: Sequence[Recommended],
    parts: Parts,
    *,
    part: str,
    cutoffs: Sequence[int],
    baseline: str,
    title: str,
    config: str,
    facts: Mapping[str, str],
    versions: Mapping[str, str],
) -> StudyResults:
    """The results of arms that were measured on the same cases.

    Args:
        arms: what was measured.
        parts: the split.
        part: `test` or `valid`.
        cutoffs: places that count.
        baseline: name of the arm that the others are compared with.
        title: heading.
        config: YAML shown in the report.
        facts: rows of the report's table about the data.
        versions: package to version.
    """
    cases, counts = cases_of(parts, part), popularity(parts.train, len(parts.catalogue))
    metrics = {arm.name: over_seeds(arm.measurements, cases, counts, cutoffs) for arm in arms}
    base = next(arm for arm in arms if arm.name == baseline)
    results = [arm_result(arm, metrics[arm.name], (base, metrics[baseline])) for arm in arms]
    contenders = [
        Contender(result, arm.kind, metrics[arm.name], any(one.costs.get("resumed") for one in arm.measurements))
        for arm, result in zip(arms, results, strict=True)
    ]
    return StudyResults(
        title=title,
        arms=results,
        reference={},
        baseline=baseline,
        reading=read_recommenders(contenders, cutoffs, part, compare=differences_of),
        data={**facts, **data_facts(parts, part)},
        config=config,
        versions=dict(versions),
        fingerprint=hashlib.sha256(json.dumps([parts_digest(parts), config]).encode()).hexdigest(),
        account=[step.to_dict() | {"arms": []} for step in parts.account],
    )


def data_facts(parts: Parts, part: str) -> dict[str, str]:
    """What was trained and measured on, for the report's table."""
    cases = cases_of(parts, part)
    unseen = int((~np.isin(cases.targets, parts.train.values)).sum())
    return {
        "Items": f"{len(parts.catalogue):,}",
        "Training sequences": f"{len(parts.train):,}, {int(parts.train.lengths.sum()):,} events",
        "Measured on": f"{len(cases):,} {'test' if part == 'test' else 'validation'} users, one target each"
        + (f"; {counted(unseen, 'target')} not in training" if unseen else ""),
        "Target in the history": f"{_repeats(cases)} of {len(cases):,}",
        "Split, digest": parts_digest(parts)[:16],
    }


def _repeats(cases: Cases) -> int:
    user_T = np.repeat(np.arange(len(cases)), cases.histories.lengths)
    same_T = cases.histories.values == cases.targets[user_T]
    return len(np.unique(user_T[same_T]))


def collect_recommenders(
    study: RecommendConfig, parts: Parts, measured: Mapping[str, Sequence[Measurement]], versions: Mapping[str, str]
) -> StudyResults:
    """The results of a whole comparison.

    Args:
        study: its configuration.
        parts: the split.
        measured: every arm's measurements.
        versions: package to version.
    """
    arms: list[Recommended] = []
    for name in filter(measured.__contains__, study.arms):
        found = study.baseline_of(name)
        if found is not None:
            arms.append(Recommended(name, study.label(name), found.name, found.name, "baseline", measured[name]))
            continue
        objective = OBJECTIVES.get(str(study.run_config(name, study.seeds[0]).objective["name"]))
        label = study.label(name)
        arms.append(Recommended(name, label, "model", objective.name, objective.origin, measured[name]))
    history = "cannot be recommended again" if study.evaluation.exclude_history else "can be recommended again"
    facts = {"Source": study.data.path, "Split": study.data.split.replace("_", " "), "Items of the history": history}
    return results_of(
        arms, parts, part=study.evaluation.part, cutoffs=study.evaluation.cutoffs, baseline=study.baseline,
        title=study.title, config=dump_yaml(to_dict(study)), facts=facts, versions=versions,
    )  # fmt: skip
