"""Whether a strength scale is good enough: its rank correlation with the true strengths, and what a better one needs.

Axis suffixes: N preferences, E comparisons, K draws.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order
from scipy.special import expit
from scipy.stats import rankdata

from popmargin.pop.likelihood import Observations, Posterior
from popmargin.pop.newton import Fit, maximise, posterior_mean, strength_draws
from popmargin.pop.observations import with_rankings
from popmargin.statistics.intervals import UNDEFINED, Interval

_EXACT = 1000
_DRAWS = 64
_FEW = 8  # draws of which a mean variance is taken
_ROUNDS = 12
_NEAR = 2_000  # preferences from which the spread is estimated
_MEAN_UP_TO = 20_000  # preferences; for more, the mode, which takes a third of the time
_PAIRS = 4000  # of which the information is averaged
_MOST = 1e4  # multiples of the comparisons so far


@dataclass(frozen=True)
class ScalePrecision:
    """How well comparisons have ordered preferences.

    Attributes:
        preferences: that were compared.
        comparisons: decided.
        spearman: rank correlation of the fitted strengths with the true ones, with a 95% interval, if the model holds.
        target: of that correlation.
        more: further comparisons, spread evenly, until it is reached; its ends are those at the ends of `spearman`, and
            0 is "reached".
        information: what another comparison of a random pair is expected to say of its two strengths, as a share of
            what the first one said.
    """

    preferences: int
    comparisons: int
    spearman: Interval
    target: float
    more: Interval
    information: float

    @property
    def reached(self) -> bool:
        """Whether the whole interval is at the target or above."""
        return self.spearman.low >= self.target


def scale_precision(
    stronger: ArrayLike,
    weaker: ArrayLike,
    count: int,
    *,
    rankings: Sequence[Sequence[int]] = (),
    target: float = 0.9,
    seed: int = 0,
) -> ScalePrecision:
    """How well comparisons order preferences, by Bradley–Terry, and rankings, by Plackett–Luce.

    The correlation is that of the fitted strengths with draws from their posterior (normal, with all correlations): its
    mean, and the range of 95% of them, wider by what is unsure about the prior's spread. That spread is estimated from
    the comparisons (empirical Bayes, by EM): a fixed one that is wider than the truth makes a scale look better than it
    is. For more comparisons, the precision that the comparisons have given grows in proportion to their number, by the
    same amount for every preference.

    Args:
        stronger: row number of the stronger preference of each comparison (E,).
        weaker: row number of the other one (E,).
        count: preferences, N; each in a comparison or ranking.
        rankings: row numbers of the preferences of each ranking, the strongest first; m − 1 comparisons each.
        target: of the rank correlation.
        seed: of the draws.

    Example:
        >>> found = scale_precision([0, 1, 2] * 20, [1, 2, 3] * 20, 4)
        >>> found.comparisons, found.spearman.estimate > 0.9
        (60, True)
    """
    ones, others = np.asarray(stronger, dtype=np.int64), np.asarray(weaker, dtype=np.int64)
    compared = len(ones) + sum(len(order) - 1 for order in rankings)
    if count < 3 or not compared:
        return ScalePrecision(count, compared, UNDEFINED, target, UNDEFINED, 1.0)
    rng = np.random.default_rng(seed)
    seen = with_rankings(Observations.of(ones, others, count), rankings)
    ridge, unsure = _ridge(_near(seen, rankings), rng)
    posterior, fit = _fit(seen, ridge)
    draws_NK = fit.theta[:count, None] + strength_draws(posterior, fit.at, _DRAWS, rng)
    spearman = _correlation(fit.theta[:count], draws_NK, ridge, unsure)
    more = _needed(draws_NK, spearman, target, ridge, compared)
    return ScalePrecision(count, compared, spearman, target, more, _information(draws_NK, ridge, rng))


def _fit(seen: Observations, ridge: float) -> tuple[Posterior, Fit]:
    posterior = Posterior(observations=seen, model="bradley_terry", ridge=ridge)
    mode = maximise(posterior, posterior.start(), tolerance=1e-2)
    if seen.count > _MEAN_UP_TO:
        return posterior, mode
    return posterior, posterior_mean(posterior, mode, exact=seen.count <= _EXACT)


def _near(seen: Observations, rankings: Sequence[Sequence[int]]) -> Observations:
    """The comparisons between preferences around the one that was compared most often; all of them, if they are few."""
    count = seen.count
    if count <= _NEAR:
        return seen
    graph: Any = coo_matrix((np.ones(len(seen.first)), (seen.first, seen.second)), shape=(count, count)).tocsr()
    most = int(np.bincount(np.concatenate([seen.first, seen.second]), minlength=count).argmax())
    chosen = breadth_first_order(graph, most, directed=False, return_predecessors=False)[:_NEAR]
    place = np.full(count, -1)
    place[chosen] = np.arange(len(chosen))
    pairs = slice(seen.ranked[0].start if seen.ranked else None)
    ones, others = place[seen.first[pairs]], place[seen.second[pairs]]
    inside = (ones >= 0) & (others >= 0)
    left = [[int(place[row]) for row in order if place[row] >= 0] for order in rankings]
    near = Observations.of(ones[inside], others[inside], len(chosen))
    return with_rankings(near, [order for order in left if len(order) > 1])


def _ridge(seen: Observations, rng: np.random.Generator) -> tuple[float, float]:
    """The ridge whose inverse is the mean of z² and its variance, and the standard error of its logarithm.

    The error is √(2 / n) for n known strengths, and larger by the share of the spread that is known (ours).

    EM by its own steps takes many where comparisons are few; twice a step's logarithm is taken.
    """
    ridge, unsure = 0.3, 0.0
    for _ in range(_ROUNDS):
        posterior, fit = _fit(seen, ridge)
        squares_NK = strength_draws(posterior, fit.at, _FEW, rng) ** 2
        known = float((fit.theta[: seen.count] ** 2).mean())
        step = 1 / (known + float(squares_NK.mean())) / ridge
        unsure = math.sqrt(2 / seen.count) * (known + float(squares_NK.mean())) / max(known, 1e-9)
        ridge = float(np.clip(ridge * step**2, 1e-3, 1e3))
        if abs(math.log(step)) < 0.02:
            break
    return ridge, min(unsure, 1.0)


def _correlation(
    strength_N: Float64[np.ndarray, " N"], draws_NK: Float64[np.ndarray, "N K"], ridge: float, unsure: float
) -> Interval:
    rank_N, ranks_NK = rankdata(strength_N), rankdata(draws_NK, axis=0)
    rank_N = rank_N - rank_N.mean()
    ranks_NK = ranks_NK - ranks_NK.mean(axis=0)
    size_K = np.sqrt((ranks_NK**2).sum(axis=0) * (rank_N**2).sum())
    if not size_K.all():
        return UNDEFINED
    most = 1 - 6 / (len(rank_N) * (len(rank_N) ** 2 - 1))  # half-way from 1 to what one exchange of neighbours leaves
    z_K = np.arctanh(np.clip(rank_N @ ranks_NK / size_K, -most, most))
    known_N, middle = _known(draws_NK, ridge), float(z_K.mean())
    missing = [1 - _normal_rank((1 / (one + known_N)).mean() * one) for one in (ridge, ridge * math.exp(unsure))]
    # By how much more is missing to a correlation of 1 with a narrower prior; dz = d log(1 − ρ) / (1 + ρ).
    spread = math.hypot(float(z_K.std(ddof=1)), math.log(missing[1] / missing[0]) / (1 + math.tanh(middle)))
    half = 1.96 * spread
    return Interval(math.tanh(middle), math.tanh(middle - half), math.tanh(middle + half))


def _known(draws_NK: Float64[np.ndarray, "N K"], ridge: float) -> Float64[np.ndarray, " N"]:
    """Precision that the comparisons give to each strength."""
    return np.maximum(1 / np.minimum(draws_NK.var(axis=1, ddof=1), 1 / ridge) - ridge, 0.0)


def _normal_rank(left: float) -> float:
    """Spearman's ρ of two normal variables, from the share of the variance of one that the other does not explain."""
    return 6 / math.pi * math.asin(math.sqrt(max(0.0, 1 - left)) / 2)


def _needed(
    draws_NK: Float64[np.ndarray, "N K"], spearman: Interval, target: float, ridge: float, comparisons: int
) -> Interval:
    if not math.isfinite(spearman.estimate):
        return UNDEFINED
    known_N = _known(draws_NK, ridge)
    spread = float(draws_NK.var(axis=0, ddof=1).mean())

    def expected(times: float) -> float:
        """The correlation with that many times the comparisons."""
        return _normal_rank(float((1 / (ridge + known_N + (times - 1) * known_N.mean())).mean()) / spread)

    now = expected(1.0)
    ends = (spearman.estimate, spearman.high, spearman.low)  # the lower the correlation, the more are needed
    return Interval(*(comparisons * (_times(expected, target + now - end) - 1) for end in ends))


def _times(expected: Callable[[float], float], wanted: float) -> float:
    if expected(1.0) >= wanted:
        return 1.0
    if expected(_MOST) < wanted:
        return math.inf

    def missing(times: float) -> float:
        return expected(times) - wanted

    found: Any = brentq(missing, 1.0, _MOST)
    return float(found)


def _information(draws_NK: Float64[np.ndarray, "N K"], ridge: float, rng: np.random.Generator) -> float:
    """Mean over random pairs of ½·log(1 + p(1 − p)·V), which chooses pairs in `active.py`, as a share of the first."""
    count = len(draws_NK)
    one, other = rng.integers(count, size=(2, _PAIRS))
    apart = draws_NK[one[one != other]] - draws_NK[other[one != other]]
    chance = expit(apart.mean(axis=1))
    left = 0.5 * np.log1p(chance * (1 - chance) * apart.var(axis=1, ddof=1))
    return float(left.mean() / (0.5 * math.log1p(0.25 * 2 / ridge)))
