"""How large a study must be: the power of designs with more prompts and seeds, from the runs of a pilot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.errors import ConfigError, DataError, did_you_mean
from popmargin.evaluation.generative import reward_estimate
from popmargin.statistics.calibration import share_right
from popmargin.statistics.intervals import Interval
from popmargin.statistics.jackknife import Estimate, row_means
from popmargin.statistics.power import Components, simulate
from popmargin.study.gather import Arm, group_runs

METRICS = ("accuracy", "mean_reward")
"""Metrics whose power can be computed."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """A study of some size.

    Attributes:
        prompts: held-out prompts (clusters).
        seeds: training runs of each arm.
        detectable: the smallest difference found in 80% of such studies, in the metric's unit.
        power: the share of such studies that find the wanted difference; None if none was given.
    """

    prompts: int
    seeds: int
    detectable: float
    power: float | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a pilot says about larger studies.

    Attributes:
        metric: which.
        baseline: the arm that others are compared with.
        prompts, seeds: of the pilot.
        differences: of each other arm from the baseline, as the pilot measured it.
        components: variances of a difference, the mean over the other arms.
        designs: larger studies.
    """

    metric: str
    baseline: str
    prompts: int
    seeds: int
    differences: dict[str, Interval]
    components: Components
    designs: list[Design]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **vars(self),
            "differences": {name: interval.to_dict() for name, interval in self.differences.items()},
            "components": vars(self.components),
            "designs": [vars(design) for design in self.designs],
        }


def plan_study(
    paths: Sequence[str | Path],
    *,
    metric: str = "accuracy",
    baseline: str | None = None,
    only: Sequence[str] = (),
    difference: float | None = None,
    prompts: Sequence[int] = (100, 400, 1600),
    seeds: Sequence[int] = (3, 5, 10, 20),
    studies: int = 1000,
) -> Plan:
    """The power of larger studies like a pilot, whose arms have two seeds or more.

    A larger study is simulated with normal numbers whose variances between prompts, between seeds and of single cells
    are those of the pilot's paired differences, and measured with the intervals of the report.

    Args:
        paths: run directories, or the folder of a study.
        metric: `accuracy` of held-out preferences (a share), or `mean_reward` of generations (reward units).
        baseline: the arm that the others are compared with; None for the first one.
        only: the arms whose differences count; none for all others.
        difference: that should be found, in the metric's unit.
        prompts: of the designs.
        seeds: of the designs.
        studies: simulated for each design.

    Raises:
        ConfigError: an unknown metric or baseline.
        DataError: arms with one seed, with different seeds, or without generations where they are needed.
        RunError: a path contains no finished run.
    """
    if metric not in METRICS:
        raise ConfigError(f"metric='{metric}' is unknown. {did_you_mean(metric, METRICS)}")
    arms = {name: Arm.load(name, runs) for name, runs in group_runs(paths).items()}
    baseline = next(iter(arms)) if baseline is None else baseline
    if baseline not in arms:
        raise ConfigError(f"The baseline '{baseline}' is not among the runs. {did_you_mean(baseline, arms)}")
    if unknown := [name for name in only if name not in arms or name == baseline]:
        raise ConfigError(f"The arm '{unknown[0]}' is not among the others. {did_you_mean(unknown[0], arms)}")
    arms = {name: arm for name, arm in arms.items() if not only or name in (*only, baseline)}
    if len(arms) < 2:
        raise DataError(
            "A difference needs two arms, and the pilot has one. Give a study's folder, or runs of two arms."
        )
    found = {name: _estimate(arm, metric) for name, arm in arms.items()}
    gaps = {name: _paired(name, one, found[baseline]) for name, one in found.items() if name != baseline}
    parts = [Components.of(gap) for gap in gaps.values()]
    components = Components(**{name: float(np.mean([vars(part)[name] for part in parts])) for name in vars(parts[0])})
    designs: list[Design] = []
    for clusters in prompts:
        for count in seeds:
            drawn = simulate(components, clusters, count, studies=studies)
            design = Design(prompts=clusters, seeds=count, detectable=drawn.detectable())
            designs.append(design if difference is None else replace(design, power=drawn.power(difference)))
    first = next(iter(gaps.values()))
    return Plan(
        metric=metric,
        baseline=baseline,
        prompts=len(first.sizes),
        seeds=len(first.per_seed),
        differences={name: gap.interval(null=0.0) for name, gap in gaps.items()},
        components=components,
        designs=designs,
    )


def _estimate(arm: Arm, metric: str) -> Estimate:
    if metric == "accuracy":
        return row_means(share_right(arm.margins_by_seed), arm.margins[0].clusters)
    if arm.generations is None:
        raise DataError(
            f"The arm '{arm.name}' has no generations. Evaluate it with evaluation.reward, or use accuracy."
        )
    return reward_estimate(arm.generations)


def _paired(name: str, one: Estimate, other: Estimate) -> Estimate:
    """The difference of two arms, seed by seed."""
    if one.pulls.shape != other.pulls.shape:
        shapes: Mapping[str, Any] = {"seeds": len(one.per_seed), "prompts": len(one.sizes)}
        raise DataError(
            f"The arm '{name}' has {shapes['seeds']} seeds and {shapes['prompts']} prompts, the baseline "
            f"{len(other.per_seed)} and {len(other.sizes)}. The pilot needs the same of both."
        )
    return Estimate(one.per_seed - other.per_seed, one.pulls - other.pulls, one.sizes)
