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
    day: str = ""


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
    return found | drift(votes) | calibration(votes)


def drift(votes: Sequence[Answer]) -> dict[str, float]:
    """People's first answers by day, and the slope of their agreement with most of the others on the order of time."""
    own = [one for one in votes if not one.model and not one.repeat]
    if len(own) < 30:
        return {}
    scores = [_score(one, own) for one in own]
    found: dict[str, float] = {}
    for day in sorted({one.day for one in own}):
        part = [place for place, one in enumerate(own) if one.day == day]
        found[f"drift.days.{day}.labels"] = float(len(part))
        found[f"drift.days.{day}.people"] = float(len({own[place].who for place in part}))
        known = [scores[place] for place in part if not math.isnan(scores[place])]
        found[f"drift.days.{day}.agreement"] = float(np.mean(known)) if known else math.nan
    times, hits = np.linspace(0.0, 1.0, len(own)), np.array(scores)
    if (~np.isnan(hits)).sum() >= 30:
        found["drift.agreement"] = float(np.polyfit(times[~np.isnan(hits)], hits[~np.isnan(hits)], 1)[0])
    return found


def _score(one: Answer, own: Sequence[Answer]) -> float:
    """1 if an answer is the most frequent one of the others, less if several are, nan without others."""
    counts = _counts([other for other in own if other.row == one.row and other.who != one.who])
    most = [verdict for verdict, count in counts.items() if count == max(counts.values())]
    return (one.verdict in most) / len(most) if most and one.verdict in VALUES else math.nan


def calibration(votes: Sequence[Answer]) -> dict[str, float]:
    """Each model, and all of them pooled, beside the people on the items that both have decided."""
    people: dict[str, list[str]] = {}
    for one in votes:
        if not one.model and not one.repeat and one.verdict in VALUES:
            people.setdefault(one.row, []).append(one.verdict)
    found: dict[str, float] = {}
    models = [one for one in votes if one.model]
    said: dict[str, dict[str, tuple[str, float]]] = {}
    for one in models:
        said.setdefault(one.who, {})[one.row] = (one.verdict, math.nan)
    if len(said) > 1:
        several = [one for one in models if sum(one.row in own for own in said.values()) > 1]
        panel = pooled([(one.row, one.who, one.verdict) for one in several])
        best = {row: max(chances.items(), key=lambda pair: pair[1]) for row, chances in panel.items()}
        said[f"{len(said)} models pooled"] = best
    for name, own in said.items():
        shared = {row: verdict for row, verdict in own.items() if row in people}
        sided = {row: pair for row, pair in shared.items() if pair[0] != "tie"}
        if not sided:
            continue
        right = [np.mean([1.0 if v == pair[0] else 0.5 if v == "tie" else 0.0 for v in people[row]])
                 for row, pair in sided.items()]  # fmt: skip
        found[f"calibration.{name}.items"] = float(len(sided))
        found[f"calibration.{name}.ties"] = float(len(shared) - len(sided))
        found[f"calibration.{name}.people"] = float(sum(len(people[row]) for row in sided))
        found[f"calibration.{name}.agreement"] = float(np.mean(right))
        found[f"calibration.{name}.confidence"] = float(np.mean([pair[1] for pair in sided.values()]))
    return found


def pooled(
    votes: Sequence[tuple[str, str, str]], known: dict[str, dict[str, float]] | None = None
) -> dict[str, dict[str, float]]:
    """Dawid and Skene's probabilities of (row, who, verdict), one vote at a time; of known rows they stay as they are.

    Everybody has four pseudo-votes that are right, and one that is wrong, for each verdict; and each verdict one
    pseudo-row.
    """
    kinds = [kind for kind in ("first", "second", "tie") if any(vote[2] == kind for vote in votes)]
    kinds = list(dict.fromkeys(["first", "second", *kinds]))
    if known:
        kinds = list(next(iter(known.values())))
    rows = sorted({row for row, _, _ in votes})
    chances = {row: dict.fromkeys(kinds, 0.0) for row in rows}
    for row, _, verdict in votes:
        chances[row][verdict] += 1 / sum(vote[0] == row for vote in votes)
    chances |= {row: dict(known[row]) for row in rows if known and row in known}
    for _ in range(1000):
        weight = {kind: sum(own[kind] for own in chances.values()) + 1 for kind in kinds}
        table: dict[tuple[str, str, str], float] = {}
        for who in {vote[1] for vote in votes}:
            for true in kinds:
                seen = {kind: 4.0 if kind == true else 1.0 / (len(kinds) - 1) for kind in kinds}
                for row, name, verdict in votes:
                    if name == who:
                        seen[verdict] += chances[row][true]
                table |= {(who, true, kind): seen[kind] / sum(seen.values()) for kind in kinds}
        change = 0.0
        for row in rows:
            if known and row in known:
                continue
            own = {kind: weight[kind] / sum(weight.values()) for kind in kinds}
            for _, who, verdict in (vote for vote in votes if vote[0] == row):
                own = {kind: chance * table[who, kind, verdict] for kind, chance in own.items()}
            new = {kind: chance / sum(own.values()) for kind, chance in own.items()}
            change = max(change, *(abs(new[kind] - chances[row][kind]) for kind in kinds))
            chances[row] = new
        if change <= 1e-6:
            break
    return chances


def criteria_figures(said: dict[str, list[tuple[str, str, str]]]) -> dict[str, float]:
    """Criterion -> (who, row, verdict): agreement of people on each."""
    found: dict[str, float] = {}
    for name, answers in said.items():
        rows, people = sorted({one[1] for one in answers}), sorted({one[0] for one in answers})
        grid = np.full((len(rows), len(people)), np.nan)
        for who, row, verdict in answers:
            if verdict in VALUES:
                grid[rows.index(row), people.index(who)] = VALUES[verdict]
        shared = grid[(~np.isnan(grid)).sum(axis=1) > 1]
        found[f"criteria.{name}.items"], found[f"criteria.{name}.shared"] = float(len(rows)), float(len(shared))
        found[f"criteria.{name}.alpha"] = alpha(shared)
        found[f"criteria.{name}.ordinal"] = alpha(shared, ordinal=True)
        found[f"criteria.{name}.unsure"] = _mean([one[2] == "unsure" for one in answers])
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
