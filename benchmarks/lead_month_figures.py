"""The figures of a label report computed again, with numpy alone, from a log of who answered what.

Nothing of popmargin is used here. A log is a list of `Answer`, in the order in which the answers were given.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

VALUES = {"second": -1.0, "tie": 0.0, "first": 1.0}


@dataclass(frozen=True)
class Answer:
    """One answer: `verdict` names a response of the row, whatever the order on the screen; `left` is it was there."""

    who: str
    row: str
    verdict: str
    left: bool
    version: int | None
    repeat: bool = False
    adjudicated: bool = False
    model: bool = False


def figures(log: Sequence[Answer]) -> dict[str, float]:
    """Name of a figure, as its path in the report -> its value."""
    votes = [one for one in log if not one.adjudicated]
    found = {"labels": float(len(votes)), "items.preference": float(len({one.row for one in votes}))}
    for name in sorted({one.who for one in votes}):
        found |= {f"annotators.{name}.{key}": value for key, value in _annotator(name, votes).items()}
        if not any(one.model for one in votes if one.who == name):
            found |= {f"habits.{name}.{key}": value for key, value in _habits(name, votes).items()}
    found |= {f"agreement.preference.{key}": value for key, value in _agreement(votes).items()}
    versions = sorted({one.version for one in votes if not one.model}, key=lambda version: version or 0)
    for version in versions if len(versions) > 1 else []:
        own = [one for one in votes if one.version == version and not one.model]
        again = _agreement(own)
        found[f"versions.{version}.labels"] = float(sum(not one.repeat for one in own))
        found[f"versions.{version}.people"] = float(len({one.who for one in own}))
        found |= {f"versions.{version}.{key}": again[key] for key in ("items", "shared", "alpha", "pairs")}
    found |= _adjudications(log)
    return found


def soft_labels(log: Sequence[Answer]) -> dict[str, float]:
    """Row -> mean over the votes of the probability that its first response is better; an adjudicator's alone counts,
    and a model's only where no person has decided."""
    found: dict[str, float] = {}
    for row in {one.row for one in log}:
        own = [one for one in log if one.row == row and not one.repeat and one.verdict in VALUES]
        decided = [one for one in own if one.adjudicated] or [one for one in own if not one.model] or own
        if decided:
            found[row] = float(np.mean([(1 + VALUES[one.verdict]) / 2 for one in decided]))
    return found


def _annotator(name: str, votes: Sequence[Answer]) -> dict[str, float]:
    own = [one for one in votes if one.who == name]
    first = [one for one in own if not one.repeat]
    is_model = first[0].model
    sides = [one.left for one in first if one.verdict in ("first", "second")]
    before = {one.row: one.verdict for one in first}
    repeats = [one for one in own if one.repeat]
    hits, trials, said, most = 0.0, 0, list[float](), list[float]()
    for one in first:
        if one.verdict not in VALUES:
            continue
        counts = _counts([v for v in votes if v.row == one.row and not v.repeat and not v.model and v.who != name])
        top = max(counts.values(), default=0)
        if top:
            modes = [verdict for verdict, count in counts.items() if count == top]
            hits, trials = hits + (one.verdict in modes) / len(modes), trials + 1
            if len(modes) == 1:
                said.append(VALUES[one.verdict])
                most.append(VALUES[modes[0]])
    found = {
        "labels": float(len(first)),
        "ties": _mean([one.verdict == "tie" for one in first]),
        "unsure": _mean([one.verdict == "unsure" for one in first]),
        "kappa": kappa(most, said),
    }
    if not is_model:
        consistency = [before[one.row] == one.verdict for one in repeats]
        found |= {"left": _mean(sides), "left.low": _wilson(sides, -1), "left.high": _wilson(sides, 1),
                  "consistency": _mean(consistency), "others": hits / trials if trials else math.nan}  # fmt: skip
    return found


def _habits(name: str, votes: Sequence[Answer]) -> dict[str, float]:
    sides = [one.left for one in votes if one.who == name and one.verdict in ("first", "second")]
    longest, run = 0, 0
    for place, side in enumerate(sides):
        run = run + 1 if place and side == sides[place - 1] else 1
        longest = max(longest, run)
    return {"decided": float(len(sides)), "left": float(sum(sides)), "run": float(longest)}


def _agreement(votes: Sequence[Answer]) -> dict[str, float]:
    first = [one for one in votes if not one.repeat]
    rows = sorted({one.row for one in first})
    people = sorted({one.who for one in first if not one.model})
    grid = np.full((len(rows), len(people)), np.nan)
    for one in first:
        if not one.model and one.verdict in VALUES:
            grid[rows.index(one.row), people.index(one.who)] = VALUES[one.verdict]
    shared = (~np.isnan(grid)).sum(axis=1) > 1
    several = grid[shared]
    low, high = jackknife(several, alpha)
    found = {"items": float(len(rows)), "shared": float(shared.sum()), "alpha": alpha(several), "alpha.low": low,
             "alpha.high": min(high, 1.0), "ordinal": alpha(several, ordinal=True), "pairs": pairs(several),
             "people": leave_one_out(several)}  # fmt: skip
    for model in sorted({one.who for one in first if one.model}):
        said = np.full(len(rows), np.nan)
        for one in first:
            if one.who == model and one.verdict in VALUES:
                said[rows.index(one.row)] = VALUES[one.verdict]
        common = shared & ~np.isnan(said)
        majority = np.array([_majority(row) for row in grid[common]])
        known = ~np.isnan(majority)
        found |= {f"judges.{model}.items": float(common.sum()),
                  f"judges.{model}.judge": leave_one_out(grid[common], said[common]),
                  f"judges.{model}.people": leave_one_out(grid[common]),
                  f"judges.{model}.kappa": kappa(majority[known], said[common][known])}  # fmt: skip
    return found


def _adjudications(log: Sequence[Answer]) -> dict[str, float]:
    decisions = {one.row: one.verdict for one in log if one.adjudicated and one.verdict in VALUES}
    if not decisions:
        return {}
    as_most: list[bool] = []
    for row, verdict in decisions.items():
        own = [v for v in log if v.row == row and not (v.adjudicated or v.repeat or v.model)]
        counts = _counts(own)
        modes = [name for name, count in counts.items() if count == max(counts.values())]
        if len(modes) == 1:
            as_most.append(modes[0] == verdict)
    return {"adjudications.items": float(len(decisions)), "adjudications.majority": _mean(as_most)}


def alpha(grid: np.ndarray, *, ordinal: bool = False) -> float:
    """Krippendorff's α by its definition: pairs within items against pairs of all values."""
    values = np.unique(grid[~np.isnan(grid)])
    coincidences = np.zeros((len(values), len(values)))
    for row in grid:
        own = row[~np.isnan(row)]
        for first in range(len(own)):
            for second in range(len(own)):
                if first != second:
                    cell = np.searchsorted(values, own[first]), np.searchsorted(values, own[second])
                    coincidences[cell] += 1 / (len(own) - 1)
    marginal = coincidences.sum(axis=1)
    distance = 1 - np.eye(len(values))
    if ordinal:
        for c in range(len(values)):
            for k in range(len(values)):
                between = marginal[min(c, k) : max(c, k) + 1].sum() - (marginal[c] + marginal[k]) / 2
                distance[c, k] = between**2
    expected = (np.outer(marginal, marginal) * distance).sum() / (marginal.sum() - 1)
    return float(1 - (coincidences * distance).sum() / expected) if expected else math.nan


def pairs(grid: np.ndarray) -> float:
    """Share of pairs of people who said the same of an item."""
    same, total = 0, 0
    for row in grid:
        own = row[~np.isnan(row)]
        total += len(own) * (len(own) - 1)
        same += sum(int((own == value).sum()) - 1 for value in own)
    return same / total if total else math.nan


def leave_one_out(grid: np.ndarray, judge: np.ndarray | None = None) -> float:
    """How often each person, or a judge in their place, says what most of the others say."""
    hits, trials = 0.0, 0
    for number, row in enumerate(grid):
        for person in np.flatnonzero(~np.isnan(row)):
            others = np.delete(row, person)
            values, counts = np.unique(others[~np.isnan(others)], return_counts=True)
            modes = values[counts == counts.max()]
            hits += ((row[person] if judge is None else judge[number]) in modes) / len(modes)
            trials += 1
    return hits / trials if trials else math.nan


def kappa(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Cohen's κ."""
    one, other = np.asarray(first), np.asarray(second)
    if not len(one):
        return math.nan
    chance = sum(float((one == value).mean() * (other == value).mean()) for value in VALUES.values())
    return float(((one == other).mean() - chance) / (1 - chance)) if chance < 1 else math.nan


def jackknife(grid: np.ndarray, statistic: Callable[[np.ndarray], float]) -> tuple[float, float]:
    """95% interval of a statistic of items: Student's t with the delete-one variance."""
    count = len(grid)
    if count < 2:
        return math.nan, math.nan
    without = np.array([statistic(np.delete(grid, row, axis=0)) for row in range(count)])
    whole = statistic(grid)
    half = _student(count - 1) * math.sqrt((count - 1) / count * float(((whole - without) ** 2).sum()))
    return whole - half, whole + half


def _student(freedom: int) -> float:
    """The 97.5% point of Student's t, by integrating its density."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        grid = np.linspace(0.0, middle, 20_001)
        density = scale * (1 + grid**2 / freedom) ** (-(freedom + 1) / 2)
        weights = np.ones(len(grid))  # Simpson's
        weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
        low, high = (middle, high) if (density * weights).sum() * (grid[1] - grid[0]) / 3 < 0.475 else (low, middle)
    return (low + high) / 2


def _wilson(hits: Sequence[bool], side: int) -> float:
    count, z = len(hits), 1.959963984540054
    if not count:
        return math.nan
    share = sum(hits) / count
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return (share + z**2 / (2 * count) + side * half) / (1 + z**2 / count)


def _counts(votes: Sequence[Answer]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in votes:
        if one.verdict in VALUES:
            counts[one.verdict] = counts.get(one.verdict, 0) + 1
    return counts


def _majority(row: np.ndarray) -> float:
    values, counts = np.unique(row[~np.isnan(row)], return_counts=True)
    return float(values[counts.argmax()]) if (counts == counts.max()).sum() == 1 else math.nan


def _mean(values: Sequence[bool]) -> float:
    return float(np.mean(values)) if len(values) else math.nan
