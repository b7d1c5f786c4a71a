"""Human strengths of preferences: what the votes or ratings of a data set say about a single annotator.

Everything is in log-odds of one annotator's label: log_odds is the log-odds that somebody who compares the two
responses prefers the one that most people prefer.

Axis suffixes: U distinct responses, P preferences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64
from scipy.optimize import brentq, minimize_scalar
from scipy.special import betaln, expit, logit

from popmargin.data.load import load_preferences
from popmargin.data.locate import open_source
from popmargin.data.pairs import Pairing
from popmargin.data.schema import Preferences
from popmargin.errors import DataError, counted
from popmargin.pop.fit import fit_arrays

Kind = Literal["votes", "ratings"]
_CERTAIN = 1e-4  # shares closer to 0 or 1 are not told apart
_SPREAD = (-4.0, 4.0)  # log of the prior's counts, searched
_HEAT = (-8.0, 8.0)  # log of the temperature in standard deviations of the gaps, searched


@dataclass(frozen=True, kw_only=True)
class HumanStrengths:
    """Preferences of known strength, the better response by the people's majority first.

    Attributes:
        texts: prompt and response of each distinct response (U).
        better: the response that people prefer (P,), a row of `texts`.
        worse: the other one (P,).
        log_odds: that one annotator prefers `better` (P,), above 0; with votes the log-odds of its posterior mean.
        counts: of the beta posterior of the share who prefer `better` and `worse` (P, 2); None for ratings, whose
            strengths are taken as known.
        value: of each response (U,), log-odds; differences within a prompt are gaps of ratings.
        clusters: names of the groups of dependent preferences.
        cluster: of each preference (P,), a place in `clusters`.
        apart: the group that stays together in a split, of each preference (P,).
        kind: of the data: votes or ratings.
        facts: about noise and what was left out; JSON values.
        preferences: the rows themselves, without ties; None if made by hand.
    """

    texts: list[tuple[str, str]]
    better: Int64[np.ndarray, " P"]
    worse: Int64[np.ndarray, " P"]
    log_odds: Float64[np.ndarray, " P"]
    value: Float64[np.ndarray, " U"]
    clusters: list[str]
    cluster: Int64[np.ndarray, " P"]
    apart: Int64[np.ndarray, " P"]
    kind: Kind
    counts: Float64[np.ndarray, "P 2"] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    preferences: Preferences | None = None

    @property
    def agreement(self) -> float:
        """How often two annotators give the same label, 1 − 2·E[p(1 − p)]."""
        if self.counts is None:
            return 1 - 2 * float((expit(self.log_odds) * expit(-self.log_odds)).mean())
        total_P = self.counts.sum(axis=1)
        return 1 - 2 * float((self.counts.prod(axis=1) / (total_P * (total_P + 1))).mean())

    def drawn(self, rng: np.random.Generator) -> Float64[np.ndarray, " P"]:
        """Log-odds as they may be (P,): from the posterior of votes, which may contradict a narrow majority."""
        if self.counts is None:
            return self.log_odds
        share_P = rng.beta(self.counts[:, 0], self.counts[:, 1])
        return logit(np.clip(share_P, _CERTAIN, 1 - _CERTAIN))

    def lean(self) -> "HumanStrengths":
        """Without the rows themselves, which processes that draw do not need."""
        return replace(self, preferences=None)

    @property
    def words(self) -> tuple[float, float]:
        """Mean words of a preference's prompt, and of one of its responses."""
        prompts = np.array([len(prompt.split()) for prompt, _ in self.texts])
        responses = np.array([len(response.split()) for _, response in self.texts])
        both = np.concatenate([responses[self.better], responses[self.worse]])
        return float(prompts[self.better].mean()), float(both.mean())


def read_strengths(
    source: str,
    *,
    format: str = "auto",
    split: str | None = None,
    pairs: Pairing = "all",
    columns: Mapping[str, str] | None = None,
    bad_rows: Literal["error", "drop"] = "error",
    apart: str | None = None,
    votes: float | None = None,
    agreement: float = 0.73,
) -> HumanStrengths:
    """Read preferences with votes, soft labels or ratings.

    *Votes*: a symmetric beta prior of the share of votes is fitted to those for a response (votes for neither do not
    count); each draw of a study takes the shares from their posteriors, so that its annotators agree as often as the
    voters. *Ratings*: σ(gap / T), with the
    temperature T at which two annotators agree as often as `agreement` says. Ties are left out afterwards, and counted.

    Args:
        source, format, split, columns, bad_rows: as for `load_preferences`.
        pairs: how rated responses become preferences.
        apart: a column whose rows stay in one part of a split; None for clusters, which are prompts by default.
        votes: of each preference, if the file has only their share (a soft label).
        agreement: of two annotators, for ratings.

    Raises:
        DataError: neither votes nor ratings, or an agreement that no temperature gives.
    """
    preferences = load_preferences(
        source, format=format, split=split, pairs=pairs, columns=columns, bad_rows=bad_rows, ties="keep"
    )
    voted = np.isfinite(preferences.soft_label).all() and not np.isfinite(preferences.rating_gap).any()
    gap_P = np.where(np.isnan(preferences.strength), 2 * preferences.soft_label - 1, preferences.strength)
    if not np.isfinite(gap_P).all():
        missing = int((~np.isfinite(gap_P)).sum())
        raise DataError(
            f"{source}: {missing} of {counted(len(gap_P), 'preference')} have neither votes, a soft label, ratings nor "
            "a strength. A simulated annotator needs one of them in every row: leave out the others."
        )
    if voted:
        share_P = preferences.soft_label
        given = None if votes is None else votes * np.stack([share_P, 1 - share_P], axis=1)
        counts_P2, facts = _from_votes(_votes_of(source, split, preferences) if given is None else given)
        log_odds_P = np.log(counts_P2[:, 0] / counts_P2[:, 1])
    else:
        counts_P2 = None
        log_odds_P, facts = _from_ratings(gap_P, agreement)
    tied = gap_P == 0
    facts |= {"preferences": len(gap_P), "ties_left_out": int(tied.sum()), "rows_reported": preferences.report.rows_in
              - preferences.report.rows_kept}  # fmt: skip
    kept = np.flatnonzero(~tied)
    if len(kept) < 2:
        raise DataError(f"{source}: only {counted(len(kept), 'preference')} without a tie; a study needs many.")
    counts_P2 = None if counts_P2 is None else counts_P2[kept]
    return _gathered(preferences.select(kept), log_odds_P[kept], counts_P2, apart, facts)


def rated_strengths(preferences: Preferences, *, agreement: float, name: str) -> HumanStrengths:
    """Preferences between rated responses, with the noise at which two annotators agree so often.

    Args:
        preferences: with ratings of both sides, without ties; the report's counts of those are kept.
        agreement: of two annotators.
        name: of the data, for messages.

    Raises:
        DataError: fewer than two preferences, or an agreement that no temperature gives.
    """
    if len(preferences) < 2:
        raise DataError(f"{name}: only {counted(len(preferences), 'preference')} without a tie; a study needs many.")
    log_odds_P, facts = _from_ratings(preferences.strength, agreement)
    facts |= {"preferences": len(log_odds_P), "ties_left_out": preferences.report.problem_counts.get("tie", 0)}
    return _gathered(preferences, log_odds_P, None, None, facts)


def _from_votes(votes_P2: Float64[np.ndarray, "P 2"]) -> tuple[Float64[np.ndarray, "P 2"], dict[str, Any]]:
    """Counts of the beta posteriors of the shares (P, 2), from the votes for the chosen and the rejected response.

    The prior is symmetric, and the one under which the votes are most likely.
    """

    def surprise(log_a: float) -> float:
        a = np.exp(log_a)
        return -float((betaln(votes_P2[:, 0] + a, votes_P2[:, 1] + a) - betaln(a, a)).sum())

    found: Any = minimize_scalar(surprise, bounds=_SPREAD, method="bounded")
    a = float(np.exp(found.x))
    return votes_P2 + a, {"votes": float(votes_P2.sum(axis=1).mean()), "prior_votes": a}


def _from_ratings(
    gap_P: Float64[np.ndarray, " P"], agreement: float
) -> tuple[Float64[np.ndarray, " P"], dict[str, Any]]:
    """Log-odds of one label, from gaps of ratings and how often two annotators agree."""
    real = gap_P[gap_P != 0]
    spread = float(real.std())
    if not len(real) or spread == 0:
        raise DataError("All strengths are equal, so they say nothing about which labels are certain. Give ratings.")

    def beyond(log_t: float) -> float:
        p = expit(real / (spread * np.exp(log_t)))
        return float((p**2 + (1 - p) ** 2).mean()) - agreement

    if beyond(_HEAT[0]) < 0 or beyond(_HEAT[1]) > 0:
        raise DataError(f"No noise makes annotators agree in {agreement:.0%} of labels; give 0.51 to 0.99.")
    temperature = spread * float(np.exp(brentq(beyond, *_HEAT)))  # pyright: ignore[reportArgumentType, reportCallIssue]
    return gap_P / temperature, {"temperature": temperature, "gap_deviation": spread}


def _votes_of(source: str, split: str | None, preferences: Preferences) -> Float64[np.ndarray, "P 2"]:
    """Votes for the chosen and the rejected response of each preference; votes for neither do not count.

    A row of votes gives one preference, in the order of the rows, unless it was reported.
    """
    report = preferences.report
    names = [report.columns_used[name] for name in ("votes_a", "votes_b") if name in report.columns_used]
    if len(names) < 2:
        raise DataError(
            f"{source}: the file has shares of votes but not how many votes they are of. Say so with data.votes."
        )
    opened = open_source(source, split=split)
    refused = {(problem.source, problem.position) for problem in report.problems}
    counts = [
        sorted((float(row[name] or 0) for name in names), reverse=True)
        for batch in opened.batches()
        for row, position in zip(batch.read(), batch.positions, strict=True)
        if ((batch.source or opened).name, position) not in refused
    ]
    assert len(counts) == len(preferences), "a row of votes gives one preference"
    return np.array(counts)


def _gathered(
    preferences: Preferences,
    log_odds_P: Float64[np.ndarray, " P"],
    counts_P2: Float64[np.ndarray, "P 2"] | None,
    apart: str | None,
    facts: dict[str, Any],
) -> HumanStrengths:
    places: dict[tuple[str, str], int] = {}
    sides: dict[str, list[int]] = {"chosen": [], "rejected": []}
    ratings: dict[int, float] = {}
    for batch in preferences.batches("prompt", "chosen", "rejected", "chosen_rating", "rejected_rating"):
        for side, rows in sides.items():
            for prompt, text, rating in zip(batch["prompt"], batch[side], batch[f"{side}_rating"], strict=True):
                place = places.setdefault((plain_text(prompt), plain_text(text)), len(places))
                rows.append(place)
                ratings[place] = float("nan") if rating is None else float(rating)
    better, worse = (np.array(rows, dtype=np.int64) for rows in sides.values())
    value_U = np.array([ratings[place] for place in range(len(places))])
    if counts_P2 is None and np.isfinite(value_U).all():
        value_U = value_U / facts["temperature"]
    else:  # the values that explain the labels best
        right = expit(log_odds_P)
        value_U, _ = fit_arrays(
            np.concatenate([better, worse]), np.concatenate([worse, better]), len(places),
            weight=np.concatenate([right, 1 - right]) * facts.get("votes", 1.0), estimate="mode", errors="none",
        )  # fmt: skip
    clusters, cluster = _numbered(preferences.clusters)
    groups = cluster if apart is None else _numbered(_column(preferences, apart))[1]
    return HumanStrengths(
        texts=list(places), better=better, worse=worse, log_odds=log_odds_P, value=value_U, clusters=clusters,
        cluster=cluster, apart=groups, kind="ratings" if counts_P2 is None else "votes", counts=counts_P2, facts=facts,
        preferences=preferences,
    )  # fmt: skip


def _column(preferences: Preferences, name: str) -> list[str]:
    if name not in preferences.columns:
        raise DataError(f"data.apart: there is no column '{name}'. Columns: {', '.join(preferences.columns)}.")
    return [str(value) for batch in preferences.batches(name) for value in batch[name]]


def _numbered(names: Sequence[str]) -> tuple[list[str], Int64[np.ndarray, " P"]]:
    known = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return list(known), np.array([known[name] for name in names], dtype=np.int64)


def plain_text(value: Any) -> str:
    """A text, or the contents of messages.

    Example:
        >>> plain_text([{"role": "user", "content": "Hi"}])
        'Hi'
    """
    if isinstance(value, str):
        return value
    return "\n".join(str(turn.get("content") or "") for turn in value)
