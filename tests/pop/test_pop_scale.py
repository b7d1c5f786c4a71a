"""The strength scale against choix, scipy and simulated truth; its file; what is refused."""

import json
from pathlib import Path
from typing import Any

import choix
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm

from popmargin.errors import ConfigError, DataError
from popmargin.pop.edges import PopEdges
from popmargin.pop.fit import fit_arrays, fit_strengths
from popmargin.pop.likelihood import Observations, Posterior
from popmargin.pop.newton import exact_inverse_diagonal, maximise, posterior_mean
from popmargin.pop.scale import StrengthScale


def names(count: int) -> list[str]:
    return [f"p{i}" for i in range(count)]


def draw(count: int, comparisons: int, seed: int, *, spread: float = 2.0) -> tuple[Any, Any, Any]:
    """True strengths, and the stronger and weaker sides of random comparisons labelled by Bradley-Terry."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=count) * spread
    first = rng.integers(count, size=comparisons)
    second = (first + rng.integers(1, count, size=comparisons)) % count
    label = rng.random(comparisons) < expit(truth[first] - truth[second])
    return truth, np.where(label, first, second), np.where(label, second, first)


def edges_of(stronger: Any, weaker: Any, **columns: Any) -> PopEdges:
    both = {"stronger": [f"p{i}" for i in stronger], "weaker": [f"p{i}" for i in weaker]}
    return PopEdges(pa.table({**both, **columns}))


@pytest.mark.parametrize("seed", range(5))
def test_bradley_terry_is_that_of_choix(seed: int) -> None:
    """choix adds alpha·Σz², we ridge/2·Σz²: alpha = ridge/2."""
    _, stronger, weaker = draw(30, 200, seed)
    pairs = list(zip(stronger.tolist(), weaker.tolist(), strict=True))
    for ridge in (0.1, 1.0):
        scale = fit_strengths(edges_of(stronger, weaker), names(30), ridge=ridge, estimate="mode")
        expected = choix.opt_pairwise(30, pairs, alpha=ridge / 2, tol=1e-10)
        assert scale.converged
        np.testing.assert_allclose(scale.strength, expected, atol=1e-6)


def test_without_a_ridge_it_is_the_maximum_likelihood_of_choix() -> None:
    _, stronger, weaker = draw(12, 600, 3, spread=0.7)
    expected = choix.ilsr_pairwise(12, list(zip(stronger.tolist(), weaker.tolist(), strict=True)), tol=1e-12)
    fitted, _ = fit_arrays(stronger, weaker, 12, ridge=0.0, estimate="mode", errors="none")
    np.testing.assert_allclose(fitted - fitted.mean(), expected - expected.mean(), atol=1e-6)


def independent(parameters: Any, count: int, data: Any, model: str, ridge: float) -> float:
    """Minus the log-posterior, written from the papers' formulas: win, lose, tie; the last parameter is log ν."""
    z, nu = parameters[:count], np.exp(parameters[count])
    first, second, tie = data
    if model == "thurstone":
        likely = norm.cdf(z[first] - z[second])
    else:
        a, b = np.exp(z[first]), np.exp(z[second])
        middle = nu * np.sqrt(a * b)
        likely = np.where(tie, middle, a) / (a + b + middle)
    return float(-np.log(likely).sum() + ridge / 2 * (parameters @ parameters))


@pytest.mark.parametrize("model", ["bradley_terry", "thurstone"])
def test_davidson_and_thurstone_are_the_maximum_of_an_independent_likelihood(model: Any) -> None:
    _, first, second = draw(10, 150, 1, spread=1.0)
    tie = np.zeros(150, dtype=bool)
    if model == "bradley_terry":
        tie[np.random.default_rng(0).random(150) < 0.3] = True
    scale = fit_strengths(edges_of(first, second, tie=tie), names(10), model=model, ridge=0.3, estimate="mode")
    start, options = np.zeros(11), {"gtol": 1e-10, "maxiter": 5000}
    found = minimize(independent, start, args=(10, (first, second, tie), model, 0.3), method="BFGS", options=options)
    np.testing.assert_allclose(scale.strength, found.x[:10], atol=2e-5)
    if model == "bradley_terry":
        assert scale.tie == pytest.approx(np.exp(found.x[10]), abs=1e-4)
        assert scale.parameters["ties_seen"] == tie.sum()
        i, j = np.arange(9), np.arange(1, 10)
        np.testing.assert_allclose(scale.probability(i, j) + scale.probability(j, i), 1.0)
    else:
        assert scale.tie is None


def test_standard_errors_are_the_curvature_of_the_independent_likelihood() -> None:
    _, first, second = draw(8, 100, 2, spread=1.0)
    tie = np.arange(100) % 4 == 0
    scale = fit_strengths(edges_of(first, second, tie=tie), names(8), ridge=0.5, estimate="mode")
    assert scale.tie is not None
    at, step, size = np.append(scale.strength, np.log(scale.tie)), 1e-3, 9
    value = lambda x: independent(x, 8, (first, second, tie), "bradley_terry", 0.5)  # noqa: E731
    hessian = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            a, b = np.eye(size)[i] * step, np.eye(size)[j] * step
            hessian[i, j] = (
                (value(at + a + b) - value(at + a - b) - value(at - a + b) + value(at - a - b)) / 4 / step**2
            )
    expected = np.sqrt(np.diag(np.linalg.inv(hessian)))[:8]
    np.testing.assert_allclose(scale.standard_error, expected, rtol=1e-4)


def covered(simulations: int, model: Any = "bradley_terry", ridge: float = 0.1, **options: Any) -> float:
    """Share of true strengths inside their 95% interval; the truth is drawn from the prior."""
    rng = np.random.default_rng(11)
    count, comparisons, inside = 40, 200, list[float]()
    for _ in range(simulations):
        truth = rng.normal(size=count) / np.sqrt(ridge)
        first = rng.integers(count, size=comparisons)
        second = (first + rng.integers(1, count, size=comparisons)) % count
        gap = truth[first] - truth[second]
        label = rng.random(comparisons) < (expit(gap) if model == "bradley_terry" else norm.cdf(gap))
        sides = np.where(label, first, second), np.where(label, second, first)
        strength, error = fit_arrays(*sides, count, model=model, ridge=ridge, **options)
        inside.append(float((np.abs(strength - truth) < 1.96 * error).mean()))
    return float(np.mean(inside))


def test_the_mean_is_nearer_to_the_truth_than_the_mode_where_few_comparisons_meet_a_wide_prior() -> None:
    squares = np.zeros(2)
    for seed in range(20):
        truth, stronger, weaker = draw(60, 300, seed, spread=10**0.5)
        for place, estimate in enumerate(("mean", "mode")):
            strength, _ = fit_arrays(stronger, weaker, 60, estimate=estimate)
            squares[place] += ((strength - truth) ** 2).mean()
    assert squares[0] < 0.92 * squares[1]


def test_exact_and_drawn_spreads_give_the_same_mean() -> None:
    _, first, second = draw(400, 2000, 0)
    posterior = Posterior(observations=Observations.of(first, second, 400))
    mode = maximise(posterior, posterior.start())
    exact, drawn = (posterior_mean(posterior, mode, exact=exact).theta for exact in (True, False))
    error = np.sqrt(exact_inverse_diagonal(posterior, mode.at).values)
    moved, apart = (np.sqrt(np.mean(((exact - other) / error) ** 2)) for other in (mode.theta, drawn))
    assert apart < 0.1 and apart < moved / 3


def test_intervals_cover() -> None:
    assert 0.93 < covered(60) < 0.97


@pytest.mark.slow
@pytest.mark.parametrize(("model", "ridge"), [("bradley_terry", 0.1), ("bradley_terry", 1.0), ("thurstone", 1.0)])
def test_intervals_cover_over_1000_simulations(model: Any, ridge: float) -> None:
    """Row 18 of the reliability targets."""
    assert 0.93 < covered(1000, model, ridge) < 0.97


def test_the_estimated_errors_are_close_to_the_exact_ones() -> None:
    _, stronger, weaker = draw(1500, 7500, 0)
    _, exact = fit_arrays(stronger, weaker, 1500, errors="exact")
    _, estimated = fit_arrays(stronger, weaker, 1500, errors="estimated")
    _, local = fit_arrays(stronger, weaker, 1500, errors="local")
    ratio = estimated / exact
    assert abs(ratio.mean() - 1) < 0.003 and ratio.std() < 0.03 and np.abs(ratio - 1).max() < 0.15
    assert (local < exact).all() and (local > 0.85 * exact).all()
    scale = fit_strengths(edges_of(stronger, weaker), names(1500), errors="estimated")
    assert scale.parameters["standard_error_error"] == pytest.approx(ratio.std(), rel=0.3)


def test_good_random_and_adversarial_annotators_are_told_apart() -> None:
    eta = {"good": 0.97, "fair": 0.8, "coin": 0.5, "liar": 0.05}
    truth, stronger, weaker = draw(60, 3000, 5)
    rng = np.random.default_rng(0)
    who = rng.choice(list(eta), size=3000)
    wrong = rng.random(3000) > np.array([eta[name] for name in who])
    edges = edges_of(np.where(wrong, weaker, stronger), np.where(wrong, stronger, weaker), annotator=who)
    scale, plain = fit_strengths(edges, names(60), reliability=True), fit_strengths(edges, names(60))
    assert scale.converged and set(scale.reliability) == set(eta)
    for name, value in eta.items():
        low, high = scale.reliability_interval[name]
        assert low < scale.reliability[name] < high and abs(scale.reliability[name] - value) < 0.06, name
    correlation = [np.corrcoef(fitted.strength, truth)[0, 1] for fitted in (scale, plain)]
    assert correlation[0] > 0.93 > correlation[1] + 0.05
    # Turned round as a whole, the labels fit as well: the prior says that most annotators are right.
    assert (np.corrcoef(fit_strengths(edges.swap(), names(60), reliability=True).strength, truth)[0, 1]) < -0.5


def test_rows_without_an_annotator_are_one_named_after_the_source() -> None:
    _, stronger, weaker = draw(10, 60, 0)
    assert set(fit_strengths(edges_of(stronger, weaker), names(10), reliability=True).reliability) == {"file"}


def test_confidence_is_a_weight_or_a_probability() -> None:
    """Weight ½ twice is the label once; a label that is right with probability ½ says that the two are equal."""
    once = edges_of([0, 1], [1, 2], confidence=[1.0, None])
    twice = edges_of([0, 0, 1, 1], [1, 1, 2, 2], confidence=[0.5] * 4)
    np.testing.assert_allclose(fit_strengths(once).strength, fit_strengths(twice).strength, atol=1e-8)
    coin = fit_strengths(edges_of([0, 1], [1, 2], confidence=[0.5, 0.5]), confidence="probability")
    np.testing.assert_allclose(coin.strength, 0.0, atol=1e-8)
    assert (coin.standard_error < fit_strengths(once, ridge=0.1).standard_error + 1).all()
    sure = fit_strengths(edges_of([0, 1], [1, 2], confidence=[0.5, 0.5]), confidence="ignore")
    np.testing.assert_allclose(sure.strength, fit_strengths(once).strength, atol=1e-8)


def test_ties_are_modelled_halved_or_dropped() -> None:
    edges = edges_of([0, 1, 0], [1, 2, 2], tie=[False, True, False])
    dropped = fit_strengths(edges, names(3), ties="drop")
    assert dropped.parameters["comparisons"] == 2 and dropped.tie is None and dropped.comparisons.tolist() == [2, 1, 1]
    halves = edges_of([0, 1, 2, 0], [1, 2, 1, 2], confidence=[1.0, 0.5, 0.5, 1.0])
    halved = fit_strengths(edges, names(3), ties="half")
    np.testing.assert_allclose(halved.strength, fit_strengths(halves, names(3)).strength, atol=1e-8)
    assert halved.parameters["comparisons"] == 3
    assert fit_strengths(edges, names(3)).tie is not None


def test_disconnected_graphs_edges_without_a_weaker_side_and_unknown_preferences_are_counted() -> None:
    edges = PopEdges.from_columns(["a", "c", "e"], ["b", "d", None])
    scale = fit_strengths(edges, ["a", "b", "c", "d", "e", "f"])
    assert scale.unknown == 2 == scale.parameters["without_comparison"]
    assert scale.parameters["without_weaker_side"] == 1 and scale.parameters["components"] == 4
    assert scale.component[0] == scale.component[1] != scale.component[2] == scale.component[3]
    np.testing.assert_allclose(scale.strength[[0, 2]], -scale.strength[[1, 3]])
    assert (scale.strength[4:] == 0).all()
    np.testing.assert_allclose(scale.standard_error[4:], 0.1**-0.5)


@settings(max_examples=12)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8), st.booleans()), min_size=1, max_size=40))
def test_every_graph_has_a_finite_scale(drawn: list[tuple[int, int, bool]]) -> None:
    """Sums within components are 0, turned labels turn the scale, and the order of the edges does not matter."""
    rows = [row for row in drawn if row[0] != row[1]] or [(0, 1, False)]
    first, second, tie = (np.array(side) for side in zip(*rows, strict=True))
    edges = edges_of(first, second, tie=tie)
    scale = fit_strengths(edges, names(9))
    assert scale.converged and np.isfinite(scale.strength).all() and (scale.standard_error > 0).all()
    sums = np.bincount(scale.component, weights=scale.strength)
    np.testing.assert_allclose(sums, 0.0, atol=1e-6)
    np.testing.assert_allclose(fit_strengths(edges.swap(), names(9)).strength, -scale.strength, atol=1e-6)
    turned = edges_of(first[::-1], second[::-1], tie=tie[::-1])
    np.testing.assert_allclose(fit_strengths(turned, names(9)).strength, scale.strength, atol=1e-6)


def test_a_start_saves_steps_and_changes_nothing() -> None:
    _, stronger, weaker = draw(100, 500, 0)
    first = fit_strengths(edges_of(stronger, weaker), names(100), estimate="mode")
    again = fit_strengths(edges_of(stronger, weaker), names(100), estimate="mode", start=first)
    assert again.parameters["newton_steps"] == 0 < first.parameters["newton_steps"]
    np.testing.assert_allclose(again.strength, first.strength, atol=1e-8)


def test_extreme_comparisons_do_not_overflow() -> None:
    """A long chain of unanimous comparisons with hardly any prior: gaps far beyond what exp can hold."""
    stronger, weaker = np.arange(0, 30).repeat(50), np.arange(1, 31).repeat(50)
    for model in ("bradley_terry", "thurstone"):
        strength, error = fit_arrays(stronger, weaker, 31, ridge=1e-6, model=model)
        assert (np.diff(strength) < 0).all() and np.isfinite(error).all()


def test_a_scale_is_saved_and_loaded(tmp_path: Path) -> None:
    _, stronger, weaker = draw(20, 100, 0)
    scale = fit_strengths(edges_of(stronger, weaker, tie=np.arange(100) % 5 == 0), names(20), reliability=True)
    scale.save(tmp_path / "folder" / "scale.parquet")
    back = StrengthScale.load(tmp_path / "folder" / "scale.parquet")
    for name in ("strength", "standard_error", "comparisons", "component"):
        np.testing.assert_array_equal(getattr(back, name), getattr(scale, name))
    facts = ("ids", "model", "tie", "reliability", "reliability_interval", "converged", "parameters", "log_likelihood")
    assert all(getattr(back, name) == getattr(scale, name) for name in facts)
    table = pq.read_table(tmp_path / "folder" / "scale.parquet")
    assert table.column_names == ["id", "strength", "standard_error", "comparisons", "component"]
    part = back.select(["p3", "p1"])
    assert part.ids == ["p3", "p1"] and part.strength.tolist() == scale.strength[[3, 1]].tolist()
    with pytest.raises(DataError, match="no strength for 1 of 2 preferences, such as 'new'"):
        back.strengths_of(["p0", "new"])


def test_files_that_hold_no_scale_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        StrengthScale.load(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text(json.dumps({}))
    PopEdges.from_columns(["a"], ["b"]).save(tmp_path / "edges.parquet")
    for file in ("text.parquet", "edges.parquet"):
        with pytest.raises(DataError, match=rf"{file}: not a strength scale .*pop scale"):
            StrengthScale.load(tmp_path / file)


def test_bad_settings_and_data_are_named() -> None:
    edges = PopEdges.from_columns(["a"], ["b"])
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"ridge": -1.0}, "ridge is -1.0"),
        ({"model": "thurstone", "ties": "davidson"}, "Davidson's ties are only for bradley_terry"),
        ({"reliability_prior": (0.0, 1.0)}, "two pseudo-counts"),
        ({"ridge": 0.0}, "no posterior mean"),
        ({"probes": 1}, "probes is 1"),
    ]
    for options, message in wrong:
        with pytest.raises(ConfigError, match=message):
            fit_strengths(edges, **options)
    with pytest.raises(DataError, match=r"No PoP edge \(of 1\) compares two preferences"):
        fit_strengths(PopEdges.from_columns(["a"], [None]))
    with pytest.raises(DataError, match="1 preference in column 'weaker' that the data lacks, such as 'b'"):
        fit_strengths(edges, ["a", "c"])
    with pytest.raises(DataError, match="ridge above 0"):
        fit_strengths(edges, ridge=0.0, estimate="mode", errors="exact")
    with pytest.raises(DataError, match="row 0 to 5, but there are 3"):
        fit_arrays([0], [5], 3)
    with pytest.raises(DataError, match="compared with itself"):
        fit_arrays([1], [1], 3)
