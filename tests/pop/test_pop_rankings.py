"""Rankings in the strength scale: Plackett–Luce against brute force, scipy and simulated truth; what is refused."""

from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.stats import spearmanr

from popmargin.errors import ConfigError, DataError
from popmargin.pop.edges import PopEdges
from popmargin.pop.fit import fit_strengths
from popmargin.pop.labelled import labels_between
from popmargin.pop.likelihood import Posterior
from popmargin.pop.observations import observations_of
from popmargin.pop.plackett_luce import choices
from popmargin.pop.precision import scale_precision
from popmargin.pop.rankings import edges_without, rankings_of


def names(count: int) -> list[str]:
    return [f"p{i}" for i in range(count)]


def drawn_orders(truth: Any, rankings: int, size: int, rng: np.random.Generator) -> list[list[int]]:
    """Orders drawn as Luce's choices are: by strength plus a Gumbel variable."""
    chosen = [rng.choice(len(truth), size, replace=False) for _ in range(rankings)]
    return [members[np.argsort(-(truth[members] + rng.gumbel(size=size)))].tolist() for members in chosen]


def edges_of(orders: list[list[int]], *, ranked: bool = True, pairs: Any = (), **columns: Any) -> PopEdges:
    """The edges of rankings, and after them those of single comparisons."""
    rows = [(one, other, f"r{number}" if ranked else None) for number, order in enumerate(orders)
            for one, other in pairwise(order)]  # fmt: skip
    rows += [(one, other, None) for one, other in pairs]
    table = {
        "stronger": [f"p{row[0]}" for row in rows],
        "weaker": [f"p{row[1]}" for row in rows],
        "ranking": pa.array([row[2] for row in rows], pa.string()),
    }
    return PopEdges(pa.table({**table, **columns}))


def independent(z: Any, orders: list[list[int]], pairs: Any, ridge: float) -> float:
    """Minus the log-posterior, written from the formula of Plackett and Luce."""
    total = 0.0
    for order in [*orders, *pairs]:
        strength = np.exp(z[list(order)])
        total += sum(np.log(strength[place] / strength[place:].sum()) for place in range(len(order)))
    return float(-total + ridge / 2 * (z @ z))


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_the_probabilities_of_all_orders_sum_to_one_and_each_is_a_product_of_choices(size: int) -> None:
    z = np.random.default_rng(size).normal(size=size)
    orders = list(permutations(range(size)))
    found = np.exp(choices(z[np.array(orders)])[0].sum(axis=1))
    assert found.sum() == pytest.approx(1.0)
    assert found == pytest.approx([np.exp(-independent(z, [list(order)], (), 0.0)) for order in orders])


def test_a_fit_of_rankings_and_pairs_is_the_maximum_of_an_independent_likelihood() -> None:
    rng = np.random.default_rng(4)
    truth = rng.normal(size=9)
    orders = drawn_orders(truth, 4, 4, rng) + drawn_orders(truth, 3, 3, rng) + drawn_orders(truth, 1, 6, rng)
    pairs = [(0, 1), (4, 2), (8, 3), (5, 6)]
    scale = fit_strengths(edges_of(orders, pairs=pairs), names(9), ridge=0.3, estimate="mode")
    best = minimize(independent, np.zeros(9), (orders, pairs, 0.3), method="BFGS", options={"gtol": 1e-8})
    assert scale.converged and scale.parameters["rankings"] == 8
    np.testing.assert_allclose(scale.strength, best.x, atol=1e-5)
    assert scale.log_likelihood == pytest.approx(-best.fun + 0.15 * (best.x @ best.x), rel=1e-6)


def test_gradient_and_curvature_are_those_of_the_independent_likelihood() -> None:
    rng = np.random.default_rng(5)
    z = rng.normal(size=7)
    orders, pairs = drawn_orders(z, 6, 5, rng) + drawn_orders(z, 4, 3, rng), [(0, 1), (2, 3)]
    seen, _, _ = observations_of(edges_of(orders, pairs=pairs), names(7), "davidson", "weight")
    posterior = Posterior(observations=seen, ridge=0.1)
    at = posterior.derivatives(z)
    gradient = approx_fprime(z, lambda x: independent(x, orders, pairs, 0.1), 1e-7)
    np.testing.assert_allclose(at.gradient, gradient, atol=1e-5)
    step = 1e-6 * np.eye(7)
    curvature = [
        (posterior.derivatives(z + one).gradient - posterior.derivatives(z - one).gradient) / 2e-6 for one in step
    ]
    np.testing.assert_allclose(posterior.hessian(at).toarray(), curvature, atol=1e-6)


@pytest.mark.parametrize("size", [3, 5])
def test_means_over_a_normal_distribution_are_those_of_draws(size: int) -> None:
    rng = np.random.default_rng(size)
    z, root = rng.normal(size=size), 0.4 * rng.normal(size=(size, size))
    seen, _, _ = observations_of(edges_of([list(range(size))]), names(size), "davidson", "weight")
    posterior = Posterior(observations=seen, ridge=0.1)
    covariance = root @ root.T
    own = np.diag(covariance)
    spread = np.sqrt(own[seen.first] + own[seen.second] - 2 * covariance[seen.first, seen.second])
    at = posterior.derivatives(z, spread)
    drawn = z + rng.normal(size=(50_000, size)) @ root.T
    log_p, _, bend = choices(drawn)
    assert at.log_likelihood == pytest.approx(log_p.sum(axis=1).mean(), abs=0.02)
    np.testing.assert_allclose(-at.curvature["d", "d"], bend.mean(axis=0), atol=0.01)


def fitted(size: int, *, ranked: bool, rankings: int) -> tuple[float, float]:
    """How much of the true differences the estimates show (1: all), and the share of intervals that hold the truth."""
    rng = np.random.default_rng(1)
    truth = rng.normal(size=12)
    truth -= truth.mean()
    edges = edges_of(drawn_orders(truth, rankings, size, rng), ranked=ranked)
    scale = fit_strengths(edges, names(12), ridge=1.0)
    strength = scale.strength - scale.strength.mean()
    inside = np.abs(strength - truth) < 1.96 * scale.standard_error
    return float(strength @ truth / (truth @ truth)), float(inside.mean())


def test_rankings_recover_simulated_strengths_and_neighbours_taken_as_single_comparisons_shrink_them() -> None:
    slope, inside = fitted(4, ranked=True, rankings=300)
    assert abs(slope - 1) < 0.1 and inside > 0.9
    assert fitted(4, ranked=False, rankings=300)[0] < 0.8


def test_intervals_of_rankings_cover() -> None:
    shares = list[float]()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=30)
        scale = fit_strengths(edges_of(drawn_orders(truth, 30, 4, rng)), names(30), ridge=1.0)
        shares.append(float((np.abs(scale.strength - truth) < 1.96 * scale.standard_error).mean()))
    assert 0.9 < np.mean(shares) < 0.99


def test_a_ranking_without_some_of_its_preferences_is_the_ranking_of_the_others() -> None:
    edges = edges_of([[0, 1, 2, 3], [3, 2]], pairs=[(1, 0)])
    left = edges_without(edges, [False, False, True, True, False], {"p1"})
    assert [(row["stronger"], row["weaker"]) for row in left.table.to_pylist()] == [
        ("p0", "p2"), ("p2", "p3"), ("p3", "p2")]  # fmt: skip
    assert [ranking.order for ranking in rankings_of(left.table)] == [("p0", "p2", "p3"), ("p3", "p2")]
    labelled = PopEdges(edges.table, {"labels": 5, "labelled": "x"})
    assert labels_between(labelled, ["p0", "p2", "p3"], "here", "").table.equals(left.table)


def test_a_ranking_of_two_is_a_single_comparison() -> None:
    one, other = (fit_strengths(edges_of([[0, 1], [2, 1]], ranked=ranked)) for ranked in (True, False))
    np.testing.assert_array_equal(one.strength, other.strength)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([0, 2], {}, "ranking 'r0' .row 0 and others. are not one order"),
        ([0, 1, 2, 0], {}, "are not one order"),
        ([0, 1, 2], {"confidence": [1.0, 0.5, 1.0]}, "differ in 'confidence'"),
        ([0, 1, 2], {"annotator": ["a", "a", "b"]}, "differ in 'annotator'"),
    ],
)
def test_damaged_rankings_are_refused(rows: list[int], columns: dict[str, Any], message: str) -> None:
    edges = PopEdges(pa.table({**_columns(edges_of([[0, 1, 2, 3]]).table.take(rows)), **columns}))
    with pytest.raises(DataError, match=message):
        fit_strengths(edges)


def _columns(table: Any) -> dict[str, Any]:
    return {name: table[name] for name in table.column_names}


def test_models_without_a_likelihood_of_rankings_refuse_them() -> None:
    edges = edges_of([[0, 1, 2]])
    for options in ({"model": "thurstone"}, {"reliability": True}):
        with pytest.raises(ConfigError, match="Rankings have a likelihood in the model bradley_terry"):
            fit_strengths(edges, **options)
    unsure = edges_of([[0, 1, 2]], confidence=[0.8, 0.8])
    with pytest.raises(DataError, match="as a probability has no meaning"):
        fit_strengths(unsure, confidence="probability")
    with pytest.raises(DataError, match="row 0: an edge of a ranking has a weaker side and is no tie"):
        edges_of([[0, 1, 2]], tie=[True, False])


def test_a_weight_counts_the_whole_ranking() -> None:
    twice = fit_strengths(edges_of([[0, 1, 2, 3]] * 2, confidence=[0.5] * 6), names(4), estimate="mode")
    once = fit_strengths(edges_of([[0, 1, 2, 3]]), names(4), estimate="mode")
    np.testing.assert_allclose(twice.strength, once.strength, atol=1e-9)


def test_the_precision_of_a_scale_of_rankings_covers_its_true_order() -> None:
    covered = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=20)
        orders = drawn_orders(truth, 30, 3, rng)
        found = scale_precision([], [], 20, rankings=orders)
        strength = fit_strengths(edges_of(orders), names(20), ridge=1.0, estimate="mode").strength
        assert found.comparisons == 60
        covered += found.spearman.low < spearmanr(truth, strength).statistic < found.spearman.high
    assert covered >= 8
