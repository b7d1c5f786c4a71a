"""The win rate at equal length against scipy's optimizer and known answers."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from popmargin.evaluation.equal_length import win_rate_at_equal_length


@pytest.mark.parametrize("seed", range(5))
def test_the_fit_is_the_minimum_that_scipy_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    difference = rng.normal(5, 30, 80)
    wins = rng.choice([0.0, 0.5, 1.0], 80, p=[0.3, 0.1, 0.6])
    weights = rng.integers(0, 4, 80).astype(float)
    scaled = np.tanh(difference / difference.std())

    def objective(parameters: np.ndarray) -> float:
        z = parameters[0] + parameters[1] * scaled
        loss = weights * (np.logaddexp(0, z) - wins * z)
        return float(loss.sum() + 0.5 * 0.1 * parameters[1] ** 2)

    best = minimize(objective, np.zeros(2), method="BFGS", options={"gtol": 1e-9})
    assert win_rate_at_equal_length(wins, difference, weights[None, :])[0] == pytest.approx(expit(best.x[0]), abs=1e-6)


def test_equal_lengths_leave_the_win_rate_as_it_is() -> None:
    assert win_rate_at_equal_length(np.array([1.0, 0.5, 0.0, 1.0]), np.zeros(4))[0] == pytest.approx(0.625, abs=1e-6)


def test_the_known_win_rate_at_equal_length_is_recovered() -> None:
    """P(win) = σ(0.4 + 1.5·tanh(d / sd)): at equal length σ(0.4) = 0.599, although 0.8 of all comparisons are won."""
    rng = np.random.default_rng(0)
    difference = rng.normal(60, 40, 20_000)
    chance = expit(0.4 + 1.5 * np.tanh(difference / difference.std()))
    wins = (rng.random(20_000) < chance).astype(float)
    assert wins.mean() > 0.78
    assert win_rate_at_equal_length(wins, difference)[0] == pytest.approx(expit(0.4), abs=0.04)


def test_extreme_data_stay_finite() -> None:
    difference = np.array([1.0, 2.0, -1.0, -2.0])
    assert win_rate_at_equal_length(np.ones(4), difference)[0] > 0.999
    assert win_rate_at_equal_length(np.zeros(4), difference)[0] < 0.001
    separated = win_rate_at_equal_length(np.array([1.0, 1.0, 0.0, 0.0]), difference, np.full((1, 4), 1e4))
    assert separated[0] == pytest.approx(0.5)


def test_many_fits_at_once_are_the_single_fits() -> None:
    rng = np.random.default_rng(1)
    wins, difference = rng.integers(0, 2, 50).astype(float), rng.normal(size=50)
    weights = rng.integers(0, 3, (6, 50)).astype(float)
    weights[5] = 0
    together = win_rate_at_equal_length(wins, difference, weights)
    alone = [win_rate_at_equal_length(wins, difference, row[None, :])[0] for row in weights[:5]]
    assert together[:5] == pytest.approx(alone)
    assert np.isnan(together[5])
