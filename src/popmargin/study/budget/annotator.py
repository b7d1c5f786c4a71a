"""A simulated annotator on human strengths: labels, grades, votes, ratings and comparisons.

The annotator sees the gap of two responses, in log-odds, with a logistic error; its sign is the label and its size the
grade. A rating sees one response, with an error that makes two ratings right as often as a label. A comparison of two
preferences is right with probability σ(difference of their strengths / T).

Axis suffixes: P preferences of the data, N preferences that were bought, U responses, E comparisons.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.optimize import brentq, minimize
from scipy.special import expit, ndtr

from popmargin.pop.edges import PopEdges
from popmargin.pop.sampling import sample_edges
from popmargin.study.budget.human_strengths import HumanStrengths

_ERRORS = (-6.0, 6.0)  # log of the error of ratings, searched
_JITTER = 1e-9  # equal strengths are a coin flip, not a tie


@dataclass(frozen=True)
class Answers:
    """What the annotator of one draw says about every preference and response, asked or not.

    Attributes:
        strengths: the data.
        log_odds: that a person prefers the better response, in this draw (P,).
        seen: the gap as the annotator sees it (P,), log-odds in favour of the better response.
        rated: the annotator's rating of every response (U,), log-odds.
        seed: of the draw.
    """

    strengths: HumanStrengths
    log_odds: Float64[np.ndarray, " P"]
    seen: Float64[np.ndarray, " P"]
    rated: Float64[np.ndarray, " U"]
    seed: tuple[int, ...]

    @staticmethod
    def drawn(strengths: HumanStrengths, seed: tuple[int, ...], rating_steps: int) -> "Answers":
        """All answers of a draw, so that every arm that asks a question gets the same one."""
        log_odds = strengths.drawn(np.random.default_rng([*seed, 6]))
        seen = log_odds + np.random.default_rng([*seed, 1]).logistic(size=len(log_odds))
        errors = np.random.default_rng([*seed, 2]).normal(0.0, rating_error(strengths), len(strengths.value))
        return Answers(strengths, log_odds, seen, stepped(strengths.value + errors, rating_steps), seed)

    def right(self, rows: Int64[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
        """Whether the label of these preferences is right."""
        return self.seen[rows] > 0

    def rating_gap(self, rows: Int64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
        """Rating of the better response minus that of the worse one."""
        return self.rated[self.strengths.better[rows]] - self.rated[self.strengths.worse[rows]]

    def vote_share(self, rows: Int64[np.ndarray, " N"], votes: Int64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
        """Share of the votes for the better response: the label, and so many further ones of other people."""
        rng = np.random.default_rng([*self.seed, 3])
        own = self.right(rows) + rng.binomial(votes, expit(self.log_odds[rows]))
        return own / (1 + votes)

    def compared(
        self, rows: Int64[np.ndarray, " N"], count: int, *, scheme: str, signed: bool, noise: float
    ) -> tuple[Int64[np.ndarray, " E"], Int64[np.ndarray, " E"], int]:
        """So many comparisons between these preferences: stronger and weaker sides, and how many were asked.

        `count` of iterative sampling is an upper limit: its comparisons are those of the largest number of partners for
        each preference that costs no more.
        """
        strength_N = np.where(self.right(rows), 1.0, -1.0) * self.log_odds[rows]
        strength_N = strength_N if signed else np.abs(strength_N)
        rng = np.random.default_rng([*self.seed, 4])
        strength_N = strength_N + _JITTER * rng.standard_normal(len(rows))
        ids = [str(number) for number in range(len(rows))]
        shared: dict[str, Any] = {"temperature": noise, "seed": int(rng.integers(2**32))}
        if scheme == "iterative":
            edges = _iterative(ids, strength_N, count, shared)
            stronger, weaker = edges.resolve(ids)
            return stronger, weaker, int(edges.parameters["comparisons"])
        if scheme == "active":
            edges = sample_edges(ids, strength_N, sampling=scheme, budget=count, **shared)
        else:
            edges = sample_edges(ids, strength_N, sampling=scheme, k=math.ceil(count / len(rows)), **shared)
        stronger, weaker = PopEdges(edges.table.slice(0, count)).resolve(ids)
        return stronger, weaker, len(stronger)


def _iterative(ids: list[str], strength_N: Float64[np.ndarray, " N"], count: int, shared: dict[str, Any]) -> PopEdges:
    found = sample_edges(ids, strength_N, sampling="iterative", budget=1, **shared)
    for partners in range(2, len(ids)):
        edges = sample_edges(ids, strength_N, sampling="iterative", budget=partners, **shared)
        if edges.parameters["comparisons"] > count:
            break
        if edges.parameters["comparisons"] == found.parameters["comparisons"]:
            return edges
        found = edges
    return found


def rating_error(strengths: HumanStrengths) -> float:
    """Standard deviation of a rating's error, log-odds: the higher of two ratings is right as often as a label (ours).

    About π/√6 where the gaps of the responses' values are the log-odds of labels.
    """
    gap_P = strengths.value[strengths.better] - strengths.value[strengths.worse]
    right = float(expit(strengths.log_odds).mean())

    def beyond(log_error: float) -> float:
        return float(ndtr(gap_P / (math.sqrt(2) * math.exp(log_error))).mean()) - right

    if beyond(_ERRORS[0]) <= 0:
        return math.exp(_ERRORS[0])
    if beyond(_ERRORS[1]) >= 0:
        return math.exp(_ERRORS[1])
    return math.exp(float(brentq(beyond, *_ERRORS)))  # pyright: ignore[reportArgumentType]


def stepped(values: Float64[np.ndarray, " U"], steps: int) -> Float64[np.ndarray, " U"]:
    """Values on a scale of equal steps over their middle nine tenths; 0 steps leave them as they are.

    Example:
        >>> stepped(np.array([0.0, 1.0, 2.0, 3.0, 4.0]), 2).round(1).tolist()
        [1.1, 1.1, 2.9, 2.9, 2.9]
    """
    if not steps:
        return values
    low, high = np.quantile(values, (0.05, 0.95))
    width = (high - low) / steps or 1.0
    place = np.clip(np.floor((values - low) / width), 0, steps - 1)
    return low + width * (place + 0.5)


def grades(seen_N: Float64[np.ndarray, " N"], pilot_n: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " N"]:
    """The probability that a label is right, by its grade: three grades, and the share right of each in a pilot.

    Args:
        seen_N: gaps as the annotator sees them, log-odds in favour of the better response.
        pilot_n: the same in a pilot whose right labels are known, which sets the grades' limits and shares.

    Example:
        >>> grades(np.array([0.1, -3.0]), np.array([-0.1, 0.2, 1.0, 1.1, 3.0, 4.0])).tolist()
        [0.5, 0.75]
    """
    limits = np.quantile(np.abs(pilot_n), (1 / 3, 2 / 3))
    pilot, own = (np.digitize(np.abs(values), limits) for values in (pilot_n, seen_N))
    shares = np.array([((pilot_n[pilot == grade] > 0).sum() + 1) / ((pilot == grade).sum() + 2) for grade in range(3)])
    return shares[own]


def calibrated(
    gap_n: Float64[np.ndarray, " n"], right_n: Bool[np.ndarray, " n"], *, level: bool
) -> tuple[float, float]:
    """The logistic regression of right labels on rating gaps: P(right) = σ(a + b·gap), with a = 0 unless `level`.

    Example:
        >>> a, b = calibrated(np.array([-1.0, 1.0, 2.0, 0.5]), np.array([True, True, True, False]), level=False)
        >>> a, b > 0
        (0.0, True)
    """
    sign = np.where(right_n, 1.0, -1.0)

    def surprise(at: np.ndarray) -> tuple[float, np.ndarray]:
        a, b = (at[0], at[1]) if level else (0.0, at[0])
        reach = sign * (a + b * gap_n)
        pull = -sign * expit(-reach)
        slopes = [pull.mean(), (pull * gap_n).mean()] if level else [(pull * gap_n).mean()]
        return float(np.logaddexp(0.0, -reach).mean()) + 1e-3 * float(at @ at), np.array(slopes) + 2e-3 * at

    found: Any = minimize(surprise, np.zeros(2 if level else 1), jac=True, method="BFGS")
    return (float(found.x[0]), float(found.x[1])) if level else (0.0, float(found.x[0]))
