"""The figures of a label report computed again, with numpy alone, from a log of who answered what.

Nothing of popmargin is used here. A log is a list of `Answer`, in the order in which the answers were given.
"""

import math
from collections.abc import Sequence

import numpy as np

from lead_month_answers import VALUES, Answer
from lead_month_intervals import UNKNOWN, Interval, agreement, median, named, plain, share, wilson
from lead_month_models import calibration

NOT_THERE = (
    "cycles", "raters", "rankings", "order", "stayed", "pace.strength", "pace.ratio", "pace.ratio.low",
    "pace.ratio.high", "pace.strength_ratio", "pace.strength_ratio.low", "pace.strength_ratio.high",
)  # fmt: skip
"""What a project that asks for preferences has no figures of: null in its report."""
_TREND = 30
"""Answers from which a trend is read."""


def figures(log: Sequence[Answer]) -> dict[str, float]:
    """Name of a figure, as its path in the report -> its value."""
    votes = [one for one in log if not one.adjudicated]
    found = {"labels": float(len(votes)), "items.preference": float(len({one.row for one in votes}))}
    found |= {f"items.{kind}": 0.0 for kind in ("pop", "rating", "rank")} | dict.fromkeys(NOT_THERE, math.nan)
    for name in sorted({one.who for one in votes}):
        found |= {f"annotators.{name}.{key}": value for key, value in _annotator(name, votes).items()}
        if not any(one.model for one in votes if one.who == name):
            found |= {f"habits.{name}.{key}": value for key, value in _habits(name, votes).items()}
    found |= {f"agreement.preference.{key}": value for key, value in _agreement(votes).items()}
    versions = sorted({one.version for one in votes if not one.model}, key=lambda version: version or 0)
    for version in versions if len(versions) > 1 else []:
        own = [one for one in votes if one.version == version and not one.model]
        place = f"versions.{version}"
        found |= {f"{place}.version": float(version or 0), f"{place}.ratings": math.nan}
        found[f"{place}.labels"] = float(sum(not one.repeat for one in own))
        found[f"{place}.people"] = float(len({one.who for one in own}))
        found |= {f"{place}.agreement.preference.{key}": value for key, value in _agreement(own).items()}
    return found | _adjudications(log) | _pace(votes) | drift(votes) | calibration(votes)


def drift(votes: Sequence[Answer]) -> dict[str, float]:
    """People's first answers by hundreds and by day, and the trends of agreement and seconds on the order of time."""
    own = [one for one in votes if not one.model and not one.repeat]
    if len(own) < _TREND:
        return {"drift": math.nan}
    scores, found = [_score(one, own) for one in own], dict[str, float]()
    size = 100 * max(1, math.ceil(len(own) / 1200))
    for number, first in enumerate(range(0, len(own), size)):
        part = list(range(first, min(first + size, len(own))))
        found |= {f"drift.blocks.{number}.first": first + 1.0, f"drift.blocks.{number}.last": part[-1] + 1.0}
        found |= _stretch(f"drift.blocks.{number}", own, scores, part)
    days = sorted({one.day for one in own})
    for day in days if len(days) > 1 else []:
        part = [place for place, one in enumerate(own) if one.day == day]
        found[f"drift.days.{day}.labels"] = float(len(part))
        found[f"drift.days.{day}.people"] = float(len({own[place].who for place in part}))
        found |= _stretch(f"drift.days.{day}", own, scores, part)
    return found | named("drift.agreement", _trend(own, scores)) | named("drift.seconds", _haste(own))


def _stretch(name: str, own: Sequence[Answer], scores: Sequence[float], part: Sequence[int]) -> dict[str, float]:
    """Agreement and median seconds of some answers, over items."""
    hits, trials = dict[str, float](), dict[str, float]()
    for place in part:
        known = not math.isnan(scores[place])
        row = own[place].row
        hits[row] = hits.get(row, 0.0) + (scores[place] if known else 0.0)
        trials[row] = trials.get(row, 0.0) + known
    timed = [own[place] for place in part if not math.isnan(own[place].seconds)]
    seconds = median([one.seconds for one in timed], [one.row for one in timed])
    return named(f"{name}.agreement", share(list(hits.values()), list(trials.values()))) | named(
        f"{name}.seconds", seconds
    )


def _by_row(own: Sequence[Answer]) -> list[np.ndarray]:
    """The places of each row's answers."""
    return [
        np.array([place for place, one in enumerate(own) if one.row == row]) for row in sorted({one.row for one in own})
    ]


def _trend(own: Sequence[Answer], scores: Sequence[float]) -> Interval:
    """The slope of a straight line of agreement, items left out one by one."""
    times, hits, rows = np.linspace(0.0, 1.0, len(own)), np.array(scores), _by_row(own)
    if (~np.isnan(hits)).sum() < _TREND:
        return UNKNOWN

    def slope(kept: np.ndarray) -> float:
        places = np.concatenate([rows[row] for row in kept])
        places = places[~np.isnan(hits[places])]
        return float(np.polyfit(times[places], hits[places], 1)[0])

    return plain(len(rows), slope)


def _haste(own: Sequence[Answer]) -> Interval:
    """The last median of seconds as a multiple of the first: the slope of log seconds within people."""
    timed = [(time, one) for time, one in zip(np.linspace(0.0, 1.0, len(own)), own, strict=True) if one.seconds > 0]
    if len(timed) < _TREND:
        return UNKNOWN
    answers = [one for _, one in timed]
    x, y = np.array([time for time, _ in timed]), np.log([one.seconds for one in answers])
    for who in {one.who for one in answers}:
        mine = np.array([one.who == who for one in answers])
        x[mine], y[mine] = x[mine] - x[mine].mean(), y[mine] - y[mine].mean()
    rows = _by_row(answers)

    def slope(kept: np.ndarray) -> float:
        places = np.concatenate([rows[row] for row in kept])
        return float((x[places] * y[places]).sum() / (x[places] ** 2).sum())

    return tuple(math.exp(end) for end in plain(len(rows), slope))  # type: ignore[return-value]


def _pace(votes: Sequence[Answer]) -> dict[str, float]:
    """Seconds of people's first answers."""
    timed = [one for one in votes if not (one.model or one.repeat or math.isnan(one.seconds))]
    found = {"pace.both": 0.0}
    if not timed:
        return found
    seconds, place = [one.seconds for one in timed], "pace.kinds.preference"
    middle = median(seconds, [one.row for one in timed])
    found |= {f"{place}.labels": float(len(timed)), f"{place}.people": float(len({one.who for one in timed}))}
    found |= {f"{place}.quarters.{n}": float(np.percentile(seconds, end)) for n, end in enumerate((25, 75))}
    return found | named(f"{place}.median", middle) | {f"{place}.per_hour": 3600 / middle[0]}


def _score(one: Answer, own: Sequence[Answer]) -> float:
    """1 if an answer is the most frequent one of the others, less if several are, nan without others."""
    counts = _counts([other for other in own if other.row == one.row and other.who != one.who])
    most = [verdict for verdict, count in counts.items() if count == max(counts.values())]
    return (one.verdict in most) / len(most) if most and one.verdict in VALUES else math.nan


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
        place = f"criteria.{name}"
        found |= {f"{place}.items": float(len(rows)), f"{place}.shared": float(len(shared))}
        found |= named(f"{place}.alpha", _alpha(shared)) | named(f"{place}.ordinal", _alpha(shared, ordinal=True))
        found |= {f"{place}.{key}": _mean([one[2] == key for one in answers]) for key in ("unsure", "both_bad")}
    return found


def _annotator(name: str, votes: Sequence[Answer]) -> dict[str, float]:
    own = [one for one in votes if one.who == name]
    first = [one for one in own if not one.repeat]
    sides = [one.left for one in first if one.verdict in ("first", "second")]
    before = {one.row: one.verdict for one in first}
    hits, said, most = list[float](), list[float](), list[float]()
    for one in first:
        if one.verdict not in VALUES:
            continue
        counts = _counts([v for v in votes if v.row == one.row and not v.repeat and not v.model and v.who != name])
        top = max(counts.values(), default=0)
        if top:
            modes = [verdict for verdict, count in counts.items() if count == top]
            hits.append((one.verdict in modes) / len(modes))
            if len(modes) == 1:
                said.append(VALUES[one.verdict])
                most.append(VALUES[modes[0]])
    timed = [one.seconds for one in first if not math.isnan(one.seconds)]
    found = {
        "labels": float(len(first)),
        "seconds": float(np.median(timed)) if timed else math.nan,
        **{key: _mean([one.verdict == verdict for one in first]) for key, verdict in _KINDS.items()},
    } | named("kappa", _kappa(most, said))
    found |= named("gold", UNKNOWN) | named("flips", UNKNOWN)  # the month has no known answers, its judges no orders
    if first[0].model:
        return found | named("left", UNKNOWN) | named("consistency", UNKNOWN) | named("others", UNKNOWN)
    consistent = [before[one.row] == one.verdict for one in own if one.repeat]
    found |= named("left", wilson(sides)) | named("consistency", wilson(consistent))
    return found | named("others", share(hits, [1.0] * len(hits)))


_KINDS = {"ties": "tie", "unsure": "unsure", "wrong": "wrong", "both_bad": "both_bad"}


def _habits(name: str, votes: Sequence[Answer]) -> dict[str, float]:
    own = [one for one in votes if one.who == name]
    sides = [one.left for one in own if one.verdict in ("first", "second")]
    longest, run, chance = 0, 0, 0.0
    for place, side in enumerate(sides):
        run = run + 1 if place and side == sides[place - 1] else 1
        longest = max(longest, run)
    for start in range(len(sides) - longest + 1 if longest else 0):  # the first toss begins a run, others may
        chance += (1.0 if start == 0 else 0.5) * 0.5 ** (longest - 1)
    timed = [one.seconds for one in own if not math.isnan(one.seconds)]
    ends = (np.median(timed[:30]), np.median(timed[-30:])) if len(timed) >= 90 else (math.nan, math.nan)
    return {"decided": float(len(sides)), "left": float(sum(sides)), "run": float(longest), "by_chance": chance,
            "first_seconds": float(ends[0]), "last_seconds": float(ends[1])}  # fmt: skip


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
    found = {"items": float(len(rows)), "shared": float(shared.sum())} | named("alpha", _alpha(several))
    found |= named("ordinal", _alpha(several, ordinal=True)) | named("pairs", _pairs(several))
    found |= named("people", _leave_one_out(several))
    for model in sorted({one.who for one in first if one.model}):
        said = np.full(len(rows), np.nan)
        for one in first:
            if one.who == model and one.verdict in VALUES:
                said[rows.index(one.row)] = VALUES[one.verdict]
        common = shared & ~np.isnan(said)
        majority = np.array([_majority(row) for row in grid[common]])
        known = ~np.isnan(majority)
        place = f"judges.{model}"
        found |= {f"{place}.items": float(common.sum())} | named(f"{place}.people", _leave_one_out(grid[common]))
        found |= named(f"{place}.judge", _leave_one_out(grid[common], said[common]))
        found |= named(f"{place}.kappa", _kappa(list(majority[known]), list(said[common][known])))
    return found


def _adjudications(log: Sequence[Answer]) -> dict[str, float]:
    decisions = {one.row: one.verdict for one in log if one.adjudicated and one.verdict in VALUES}
    if not decisions:
        return {"adjudications": math.nan}
    as_most: list[bool] = []
    for row, verdict in decisions.items():
        own = [v for v in log if v.row == row and not (v.adjudicated or v.repeat or v.model)]
        counts = _counts(own)
        modes = [name for name, count in counts.items() if count == max(counts.values())]
        if len(modes) == 1:
            as_most.append(modes[0] == verdict)
    return {"adjudications.items": float(len(decisions))} | named("adjudications.majority", wilson(as_most))


def _alpha(grid: np.ndarray, *, ordinal: bool = False) -> Interval:
    return agreement(len(grid), lambda rows: alpha(grid[rows], ordinal=ordinal))


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
    expected = (np.outer(marginal, marginal) * distance).sum() / (marginal.sum() - 1) if len(values) else 0.0
    return float(1 - (coincidences * distance).sum() / expected) if expected else math.nan


def _pairs(grid: np.ndarray) -> Interval:
    """Share of pairs of people who said the same of an item."""
    same, total = list[float](), list[float]()
    for row in grid:
        own = row[~np.isnan(row)]
        total.append(float(len(own) * (len(own) - 1)))
        same.append(float(sum(int((own == value).sum()) - 1 for value in own)))
    return share(same, total)


def _leave_one_out(grid: np.ndarray, judge: np.ndarray | None = None) -> Interval:
    """How often each person, or a judge in their place, says what most of the others say."""
    hits, trials = [0.0] * len(grid), [0.0] * len(grid)
    for number, row in enumerate(grid):
        for person in np.flatnonzero(~np.isnan(row)):
            others = np.delete(row, person)
            values, counts = np.unique(others[~np.isnan(others)], return_counts=True)
            modes = values[counts == counts.max()]
            hits[number] += ((row[person] if judge is None else judge[number]) in modes) / len(modes)
            trials[number] += 1
    return share(hits, trials)


def _kappa(first: Sequence[float], second: Sequence[float]) -> Interval:
    one, other = np.asarray(first), np.asarray(second)

    def kappa(rows: np.ndarray) -> float:
        if not len(rows):
            return math.nan
        a, b = one[rows], other[rows]
        chance = sum(float((a == value).mean() * (b == value).mean()) for value in VALUES.values())
        return float(((a == b).mean() - chance) / (1 - chance)) if chance < 1 else math.nan

    return agreement(len(one), kappa) if len(one) else UNKNOWN


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
