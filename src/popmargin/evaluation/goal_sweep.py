"""A sweep over goals: one policy answers the same prompts at several goals, with the same random numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.errors import DataError
from popmargin.evaluation.generations import Generations
from popmargin.files import whole_folder
from popmargin.statistics.intervals import Clusters, Interval
from popmargin.statistics.jackknife import row_means, without_sets
from popmargin.statistics.rank_correlation import spearman

GOALS = "goals"
"""Folder of a sweep, in that of an evaluation."""


@dataclass(frozen=True)
class GoalSweep:
    """Generations of one policy for the same prompts at several goals.

    Attributes:
        by_goal: goal -> generations, from the lowest goal on; at least two.
    """

    by_goal: Mapping[float, Generations]

    def save(self, folder: Path) -> None:
        """Write a file of generations for each goal, such as `7.5.parquet`, into a folder that is replaced."""
        with whole_folder(folder, replace=True) as partial:
            for goal, generations in self.by_goal.items():
                generations.save(partial / f"{goal:g}.parquet")

    @staticmethod
    def load(folder: Path) -> "GoalSweep | None":
        """Read what `save` wrote; None where there is no such folder.

        Raises:
            DataError: a file is not one of generations.
        """
        found = {float(file.stem): Generations.load(file) for file in folder.glob("*.parquet")}
        return GoalSweep(dict(sorted(found.items()))) if found else None

    @property
    def rewards(self) -> np.ndarray:
        """Mean reward of the samples of each prompt at each goal (goals, prompts), reward units."""
        rows = [one.responses.score("reward").reshape(len(one.responses), -1) for one in self.by_goal.values()]
        return np.stack([row.mean(axis=1) for row in rows])

    @property
    def clusters(self) -> Clusters:
        """Of the prompts."""
        return Clusters(next(iter(self.by_goal.values())).responses.clusters)


@dataclass(frozen=True)
class GoalCurve:
    """How well a policy follows goals; with several seeds, means over them.

    Attributes:
        rewards: goal -> mean reward with its interval, from the lowest goal on.
        spearman: rank correlation of goal and reward over all prompts and goals.
        best: the goal with the highest mean reward.
        gain: mean reward at the best goal minus that at the lowest one, on the same prompts.
        lead: the same, minus that at the next best goal: an interval that includes 0 says that the two cannot be told
            apart.
        next_best: that goal.
    """

    rewards: Mapping[float, Interval]
    spearman: Interval
    best: float
    gain: Interval
    lead: Interval
    next_best: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "rewards": [{"goal": goal} | interval.to_dict() for goal, interval in self.rewards.items()],
            "spearman": self.spearman.to_dict(),
            "best": self.best,
            "gain": self.gain.to_dict(),
            "next_best": self.next_best,
            "lead": self.lead.to_dict(),
        }

    def rows(self) -> list[list[float]]:
        """[goal, mean reward, low, high] for each goal, as the report draws them."""
        return [[goal, value.estimate, value.low, value.high] for goal, value in self.rewards.items()]

    def note(self) -> str:
        """What the sweep says, as a sentence."""
        lead = f"{_shown(self.lead)} over goal {self.next_best:g}"
        return (
            f"goal and reward have a rank correlation of {_shown(self.spearman, sign='')}; the best goal is "
            f"{self.best:g}, with {_shown(self.gain)} over goal {min(self.rewards):g}"
            + (f" and {lead}" if self.next_best != min(self.rewards) else "")
        )


def _shown(value: Interval, *, sign: str = "+") -> str:
    return f"{value.estimate:{sign}.2f} [{value.low:{sign}.2f}, {value.high:{sign}.2f}]"


def goal_curve(sweeps: Sequence[GoalSweep], *, level: float = 0.95) -> GoalCurve:
    """Reward against goal, of one seed or of several on the same prompts.

    Intervals are those of `generative_metrics`, over clusters of prompts and over seeds. All goals see the same prompts
    and random numbers, so that differences between goals are paired.

    Args:
        sweeps: one for each seed.
        level: of the intervals.

    Raises:
        DataError: seeds with other goals or prompts.
    """
    goals, groups = list(sweeps[0].by_goal), sweeps[0].clusters
    keys = [one.responses.prompt_keys for sweep in sweeps for one in sweep.by_goal.values()]
    if any(list(sweep.by_goal) != goals for sweep in sweeps) or any(found != keys[0] for found in keys):
        raise DataError("The seeds were asked for other goals, or other prompts. Evaluate all with the same settings.")
    rewards_SKP = np.stack([sweep.rewards for sweep in sweeps])
    means = [row_means(rewards_SKP[:, place], groups) for place in range(len(goals))]
    order = sorted(range(len(goals)), key=lambda place: -means[place].value)  # the lower goal of equals
    best, second = order[0], order[1]
    asked = np.repeat(goals, rewards_SKP.shape[2])
    of_rows = Clusters([cluster for _ in goals for cluster in groups.of_row.tolist()])
    followed = [spearman(asked, rewards_KP.ravel(), of_rows) for rewards_KP in rewards_SKP]
    correlation = without_sets(lambda seed, counts: followed[seed](counts), of_rows, len(sweeps))
    return GoalCurve(
        rewards={goal: mean.interval(level=level) for goal, mean in zip(goals, means, strict=True)},
        spearman=correlation.interval(level=level, scale="correlation"),
        best=goals[best],
        gain=means[best].minus(means[0], level=level),
        lead=means[best].minus(means[second], level=level),
        next_best=goals[second],
    )
