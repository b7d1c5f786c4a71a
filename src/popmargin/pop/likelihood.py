"""The likelihood of comparisons given strengths, with its first and second derivatives.

Every observation depends on the parameters through three numbers: d, the difference of two strengths; t = log ν, how
common ties are; and h = logit η, how reliable its annotator is. Axis suffixes: N preferences, E observations, A
annotators, P parameters = N strengths, then t (if ties are modelled), then the A annotators' h (if reliability is).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.sparse import csr_matrix
from scipy.special import expit, log_expit, log_ndtr

from popmargin.errors import ConfigError, DataError, counted
from popmargin.pop.plackett_luce import RankedRows, ranked_derivatives

Model = Literal["bradley_terry", "thurstone"]
_Rows = Int64[np.ndarray, " E"]
_Values = Float64[np.ndarray, " E"]
_PARAMETERS = ("d", "t", "h")


@dataclass(frozen=True, kw_only=True)
class Observations:
    """What was observed: one row says that `first` was called stronger than `second`, or that they were called equal.

    Attributes:
        first: row number of a preference (E,).
        second: row number of the other one (E,).
        weight: how much an observation counts (E,), 0 or more.
        tie: whether the two were called equal (E,).
        annotator: number of the annotator (E,).
        count: preferences, N.
        ranked: blocks of rows that are the pairs of rankings; all other rows are comparisons of two.
    """

    first: _Rows
    second: _Rows
    weight: _Values
    tie: Bool[np.ndarray, " E"]
    annotator: _Rows
    count: int
    ranked: tuple[RankedRows, ...] = ()

    @staticmethod
    def of(first: Any, second: Any, count: int, *, weight: Any = 1.0) -> "Observations":
        """Observations without ties, from arrays.

        Raises:
            DataError: a preference is compared with itself, or a row number is not below `count`.
        """
        sides = [np.asarray(side, dtype=np.int64) for side in (first, second)]
        both = np.stack(sides)
        if both.size and (both.min() < 0 or both.max() >= count):
            raise DataError(
                f"Comparisons name row {both.min()} to {both.max()}, but there are {counted(count, 'preference')}."
            )
        if (sides[0] == sides[1]).any():
            raise DataError("A preference is compared with itself; remove this comparison.")
        shape = sides[0].shape
        return Observations(
            first=sides[0],
            second=sides[1],
            weight=np.broadcast_to(np.asarray(weight, dtype=np.float64), shape).copy(),
            tie=np.zeros(shape, dtype=bool),
            annotator=np.zeros(shape, dtype=np.int64),
            count=count,
        )


@dataclass(frozen=True)
class _Link:
    """log P(first), log P(second), log P(tie) and their derivatives at (d, t); `slope` and `bend` are in d.

    The derivatives in t are those of −log(normaliser), the same for both winners; they are 0 without modelled ties.
    """

    log_first: _Values
    log_second: _Values
    log_tie: _Values
    slope_first: _Values
    slope_second: _Values
    slope_tie: _Values
    bend_first: _Values
    bend_second: _Values
    bend_tie: _Values
    tie: _Values
    tie_slope: _Values


def link(model: Model, d: _Values, t: float) -> _Link:
    """The probabilities of the three outcomes.

    Bradley–Terry with Davidson's ties: P(first) ∝ e^{d/2}, P(second) ∝ e^{−d/2}, P(tie) ∝ ν = e^t; with t = −∞ it is
    σ(d). Thurstone's case V: P(first) = Φ(d), without ties.
    """
    zero = np.zeros_like(d)
    if model == "thurstone":
        log_first, log_second = log_ndtr(d), log_ndtr(-d)
        log_density = -0.5 * d**2 - 0.5 * np.log(2 * np.pi)
        up, down = np.exp(log_density - log_first), np.exp(log_density - log_second)
        bends = (-up * (d + up), down * (d - down))
        return _Link(log_first, log_second, zero, up, -down, zero, *bends, zero, zero, zero)
    win, lose = log_expit(d), log_expit(-d)
    # log(e^{d/2} + e^{−d/2} + e^t) without overflow: |d|/2 is the largest part of the first two.
    log_two = np.logaddexp(d / 2, -d / 2)
    log_all = log_two if np.isneginf(t) else np.logaddexp(log_two, t)
    two = np.exp(log_two - log_all)
    first, second, tie = np.exp(win) * two, np.exp(lose) * two, np.exp(t - log_all)
    half = (first - second) / 2
    bend = -((first + second) / 4 - half**2)
    return _Link(
        d / 2 - log_all,
        -d / 2 - log_all,
        t - log_all if np.isfinite(t) else zero,
        0.5 - half,
        -0.5 - half,
        -half,
        bend,
        bend,
        bend,
        tie,
        -tie * half,
    )


@dataclass(frozen=True)
class Derivatives:
    """log-posterior of the parameters, its gradient, and the curvature that makes up its Hessian.

    Attributes:
        value: minus the log-posterior (up to a constant), which is minimised.
        log_likelihood: of the observations alone.
        gradient: of `value` (P,).
        curvature: second derivatives of −log-likelihood in (d, t, h) by pair of names, (E,) each.
        prior: second derivative of the priors' part (P,).
    """

    value: float
    log_likelihood: float
    gradient: Float64[np.ndarray, " P"]
    curvature: dict[tuple[str, str], _Values]
    prior: Float64[np.ndarray, " P"]

    def nonnegative(self) -> "Derivatives":
        """The same with every observation's curvature clipped at 0, which gives a positive semi-definite Hessian.

        Only reliabilities cause negative curvature: the more a label contradicts the strengths, the less it counts.
        """
        names = [name for name in _PARAMETERS if (name, name) in self.curvature]
        blocks = np.zeros((len(self.curvature["d", "d"]), len(names), len(names)))
        for (one, other), values in self.curvature.items():
            i, j = names.index(one), names.index(other)
            blocks[:, i, j] = blocks[:, j, i] = values
        size, axes = np.linalg.eigh(blocks)
        blocks = (axes * np.maximum(size, 0.0)[:, None, :]) @ axes.transpose(0, 2, 1)
        known = {(a, b): blocks[:, i, j] for i, a in enumerate(names) for j, b in enumerate(names) if i <= j}
        return replace(self, curvature=known)


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """The posterior of strengths: the likelihood, with normal priors of mean 0 and variance 1/ridge.

    log P(a says that first is stronger) = log(η_a·P(first) + (1 − η_a)·P(second)) with reliabilities (Crowd-BT, Chen et
    al. 2013), whose prior is Beta(reliability_prior) on the logit scale; without them η = 1. Ties do not depend on η.
    A ranking has the probability of Plackett and Luce (`plackett_luce.py`), which knows neither ties nor η.

    Attributes:
        observations: the data.
        model: bradley_terry or thurstone.
        ridge: precision of the prior of every strength, and of log ν.
        ties: whether ties are modelled (Davidson).
        annotators: annotators with a reliability, A; 0 for none.
        reliability_prior: the two pseudo-counts: of right and of wrong labels.
    """

    observations: Observations
    model: Model = "bradley_terry"
    ridge: float = 0.1
    ties: bool = False
    annotators: int = 0
    reliability_prior: tuple[float, float] = (4.0, 1.0)

    def __post_init__(self) -> None:
        if self.ridge < 0 or not np.isfinite(self.ridge):
            raise ConfigError(f"ridge is {self.ridge}; the precision of a prior must be a finite number ≥ 0.")
        if self.model == "thurstone" and self.ties:
            raise ConfigError("Davidson's ties are only for bradley_terry; with thurstone, use ties='half' or 'drop'.")
        if self.observations.ranked and (self.model == "thurstone" or self.annotators):
            raise ConfigError(
                "Rankings have a likelihood in the model bradley_terry without reliabilities only. Fit that, or empty "
                "the column 'ranking' of the edges, which counts their neighbours as single comparisons (biased, see "
                "docs/scale.md)."
            )

    @property
    def size(self) -> int:
        """Number of parameters, P."""
        return self.observations.count + self.ties + self.annotators

    @cached_property
    def designs(self) -> dict[str, Any]:
        """Sparse (E, P) matrices from the parameters to each observation's d, and to its t and h if modelled."""
        seen, count = self.observations, self.observations.count
        rows = np.arange(len(seen.first))
        ones = np.ones(len(rows))
        columns = np.stack([seen.first, seen.second], axis=1).ravel()
        signs, starts = np.tile([1.0, -1.0], len(rows)), 2 * np.arange(len(rows) + 1)
        designs: dict[str, Any] = {"d": csr_matrix((signs, columns, starts), shape=(len(rows), self.size))}
        if self.ties:
            designs["t"] = csr_matrix((ones, (rows, np.full(len(rows), count))), shape=(len(rows), self.size))
        if self.annotators:
            column = count + self.ties + seen.annotator
            designs["h"] = csr_matrix((ones, (rows, column)), shape=(len(rows), self.size))
        return designs

    @cached_property
    def transposed(self) -> dict[str, Any]:
        """The same, from observations to parameters."""
        return {name: design.T.tocsr() for name, design in self.designs.items()}

    def start(self) -> Float64[np.ndarray, " P"]:
        """Starting point of a fit: all strengths 0, ties at their observed rate, reliabilities at their prior."""
        theta = np.zeros(self.size)
        count, seen = self.observations.count, self.observations
        if self.ties:
            two = slice(seen.ranked[0].start if seen.ranked else None)
            tie, weight = seen.tie[two], seen.weight[two]
            share = np.clip(np.average(tie, weights=weight) if weight.sum() else 0.5, 0.01, 0.99)
            theta[count] = np.log(2 * share / (1 - share))
        if self.annotators:
            right, wrong = self.reliability_prior
            theta[count + self.ties :] = np.log(right / wrong)
        return theta

    def derivatives(self, theta: Float64[np.ndarray, " P"], spread: _Values | None = None) -> Derivatives:
        """Value, gradient and curvature at the parameters.

        Args:
            theta: the parameters (P,).
            spread: standard deviation of every d (E,): all values are then means over a normal d (Gauss–Hermite).
        """
        seen, count = self.observations, self.observations.count
        d = theta[seen.first] - theta[seen.second]
        t = float(theta[count]) if self.ties else -np.inf
        h = theta[count + self.ties :][seen.annotator] if self.annotators else None
        log_p, slopes, bends = self._pointwise(d, t, h) if spread is None else self._averaged(d, spread, t, h)
        for block in seen.ranked:
            parts = ranked_derivatives(block, d, spread)
            log_p[block.rows], slopes["d"][block.rows], bends["d", "d"][block.rows] = parts
            slopes["t"][block.rows] = bends["d", "t"][block.rows] = bends["t", "t"][block.rows] = 0.0
        likelihood = float(seen.weight @ log_p)
        value, gradient, prior = self._prior(theta)
        for name in self.designs:
            gradient -= self.transposed[name] @ (seen.weight * slopes[name])
        known = {pair: -seen.weight * values for pair, values in bends.items() if set(pair) <= set(self.designs)}
        return Derivatives(value - likelihood, likelihood, gradient, known, prior)

    def _averaged(self, d: Any, spread: Any, t: float, h: Any) -> tuple[Any, dict[str, Any], dict[Any, Any]]:
        log_p, slopes, bends = np.zeros_like(d), dict[str, Any](), dict[Any, Any]()
        # The likelihood is not concave if an annotator may be wrong.
        nodes, weights = np.polynomial.hermite_e.hermegauss(15 if self.annotators else 5)
        for node, share in zip(nodes, weights / weights.sum(), strict=True):
            one_log_p, one_slopes, one_bends = self._pointwise(d + node * spread, t, h)
            log_p += share * one_log_p
            slopes = {name: slopes.get(name, 0.0) + share * values for name, values in one_slopes.items()}
            bends = {pair: bends.get(pair, 0.0) + share * values for pair, values in one_bends.items()}
        return log_p, slopes, bends

    def _pointwise(self, d: Any, t: float, h: Any) -> tuple[Any, dict[str, Any], dict[Any, Any]]:
        """log P of every observation, and its first and second derivatives in d, t and h."""
        at, tie = link(self.model, d, t), self.observations.tie
        log_first, slope, bend = at.log_first, at.slope_first, at.bend_first
        slopes, bends = dict[str, Any](), dict[Any, Any]()
        if h is not None:
            eta, apart = expit(h), at.slope_first - at.slope_second
            right = expit(h + at.log_first - at.log_second)
            log_first = np.logaddexp(log_expit(h) + at.log_first, log_expit(-h) + at.log_second)
            mixed = right * (1 - right)
            slope = right * at.slope_first + (1 - right) * at.slope_second
            bend = right * at.bend_first + (1 - right) * at.bend_second + mixed * apart**2
            slopes["h"] = np.where(tie, 0.0, right - eta)
            bends["h", "h"] = np.where(tie, 0.0, mixed - eta * (1 - eta))
            bends["d", "h"] = np.where(tie, 0.0, mixed * apart)
        slopes |= {"d": np.where(tie, at.slope_tie, slope), "t": tie - at.tie}
        bends |= {
            ("d", "d"): np.where(tie, at.bend_tie, bend),
            ("d", "t"): -at.tie_slope,
            ("t", "t"): -at.tie * (1 - at.tie),
        }
        return np.where(tie, at.log_tie, log_first), slopes, bends

    def _prior(self, theta: Any) -> tuple[float, Any, Any]:
        """Minus the log-prior, its gradient and its curvature."""
        ruled = self.observations.count + self.ties
        value = 0.5 * self.ridge * float(theta[:ruled] @ theta[:ruled])
        gradient, curvature = self.ridge * theta, np.full(self.size, self.ridge)
        if self.annotators:
            h = theta[ruled:]
            right, wrong = self.reliability_prior
            value -= float((right * log_expit(h) + wrong * log_expit(-h)).sum())
            gradient[ruled:] = (right + wrong) * expit(h) - right
            curvature[ruled:] = (right + wrong) * expit(h) * expit(-h)
        return value, gradient, curvature

    def hessian(self, at: Derivatives) -> Any:
        """The Hessian of `value` as a sparse (P, P) matrix."""
        total = csr_matrix((at.prior, (np.arange(self.size),) * 2), shape=(self.size, self.size))
        for (one, other), values in at.curvature.items():
            block = self.transposed[one] @ self.designs[other].multiply(values[:, None]).tocsr()
            total = total + (block if one == other else block + block.T)
        return total.tocsr()
