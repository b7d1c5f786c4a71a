"""Models beside people computed again, with numpy alone: pooled votes, calibration, and soft labels."""

import math
from collections.abc import Sequence

import numpy as np

from lead_month_answers import VALUES, Answer
from lead_month_intervals import UNKNOWN, buckets, calibration_error, mapped, mean_share, named, platt

FEWEST = 30
"""Items from which a model is calibrated."""


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


def calibration(votes: Sequence[Answer]) -> dict[str, float]:
    """Each model, and all of them pooled, beside the people on the items that both have decided."""
    people: dict[str, list[str]] = {}
    for one in votes:
        if not one.model and not one.repeat and one.verdict in VALUES:
            people.setdefault(one.row, []).append(one.verdict)
    number = {one.row: one.item for one in votes}
    said: dict[str, dict[str, tuple[str, float]]] = {}
    for one in votes:
        if one.model:
            said.setdefault(one.who, {})[one.row] = (one.verdict, one.confidence)
    together = ""
    if len(said) > 1:
        several = [one for one in votes if one.model and sum(one.row in own for own in said.values()) > 1]
        panel = pooled([(one.row, one.who, one.verdict) for one in several])
        together = f"{len({one.who for one in several})} models pooled"
        said[together] = {row: max(chances.items(), key=lambda pair: pair[1]) for row, chances in panel.items()}
    found: dict[str, float] = {}
    for name, own in said.items():
        shared = {row: own[row] for row in sorted(own, key=lambda row: number[row]) if row in people}
        sided = {row: pair for row, pair in shared.items() if pair[0] != "tie"}
        if not sided:
            continue
        right = {row: _right(pair[0], people[row]) for row, pair in sided.items()}
        place = f"calibration.{name}"
        found |= {
            f"{place}.items": float(len(sided)),
            f"{place}.ties": float(len(shared) - len(sided)),
            f"{place}.people": float(sum(len(people[row]) for row in sided)),
        } | named(f"{place}.agreement", mean_share(list(right.values())))
        sure = {row: pair[1] for row, pair in sided.items() if not math.isnan(pair[1])}
        found |= _confidence(place, list(sure.values()), [right[row] for row in sure], panel=name == together)
    return found


def _right(verdict: str, said: Sequence[str]) -> float:
    return float(np.mean([1.0 if one == verdict else 0.5 if one == "tie" else 0.0 for one in said]))


def _confidence(place: str, sure: list[float], right: list[float], *, panel: bool) -> dict[str, float]:
    """Confidences, in the order of the items, against the share of people who agree."""
    count = len(sure)
    bins = min(10, max(1, count // 20))
    error = calibration_error(sure, right, bins) if count else UNKNOWN
    found = {f"{place}.confidence": float(np.mean(sure)) if count else math.nan} | named(f"{place}.error", error)
    of_bin = buckets(sure, bins)
    for number, bucket in enumerate(sorted(set(of_bin))):
        rows = [row for row in range(count) if of_bin[row] == bucket]
        inside = [sure[row] for row in rows]
        curve = f"{place}.curve.{number}"
        found |= {
            f"{curve}.low": min(inside), f"{curve}.high": max(inside), f"{curve}.confidence": float(np.mean(inside)),
            f"{curve}.count": float(len(rows)),
        } | named(f"{curve}.right", mean_share([right[row] for row in rows]))  # fmt: skip
    after, whole = UNKNOWN, (math.nan, math.nan)
    if count >= FEWEST and not panel:
        whole, after = platt(sure, right), calibration_error(_across(sure, right), right, bins)
    return found | named(f"{place}.after", after) | {f"{place}.intercept": whole[0], f"{place}.slope": whole[1]}


def _across(sure: Sequence[float], right: Sequence[float]) -> list[float]:
    """The chance of each confidence by a map from the answers to items of the other nine folds."""
    maps: list[tuple[float, float]] = []
    for fold in range(10):
        others = [row for row in range(len(sure)) if row % 10 != fold]
        maps.append(platt([sure[row] for row in others], [right[row] for row in others]))
    return [mapped(confidence, maps[row % 10]) for row, confidence in enumerate(sure)]


def calibrated_chances(name: str, votes: Sequence[Answer]) -> dict[str, float]:
    """Row -> the chance that its first response is better, as a model's confidence is worth; none with too few rows."""
    people: dict[str, list[str]] = {}
    for one in votes:
        if not one.model:
            people.setdefault(one.row, []).append(one.verdict)
    own = sorted((one for one in votes if one.who == name and one.row in people), key=lambda one: one.item)
    if len(own) < FEWEST:
        return {}
    chances = _across([one.confidence for one in own], [_right(one.verdict, people[one.row]) for one in own])
    pairs = zip(own, chances, strict=True)
    return {one.row: chance if one.verdict == "first" else 1 - chance for one, chance in pairs}
