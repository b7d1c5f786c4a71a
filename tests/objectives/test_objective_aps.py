"""`aps`: its formula in NumPy and what is special about it."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from objective_cases import GRID, LOG2, Arrays, Contract, gaps, loss, nls, refused, rows_of, slope

from popmargin.objectives.aps import APSOptions, scales
from popmargin.objectives.base import OBJECTIVES


def entropy(u: torch.Tensor) -> torch.Tensor:
    p, q = torch.sigmoid(u), torch.sigmoid(-u)
    return -torch.xlogy(p, p) - torch.xlogy(q, q)


def tau_of(gaps: torch.Tensor, **options: Any) -> torch.Tensor:
    return scales(rows_of(gaps), APSOptions(**options))


def formula(rows: Arrays, o: Any) -> np.ndarray:
    d = o.beta * gaps(rows)[0]
    tau = np.ones_like(d)
    for _ in range(o.iterations):
        u = d / tau
        p = np.exp(-nls(u))
        g = nls(u) - math.log(2) + np.exp(-nls(-u)) * u + o.rho0 * (2 * tau if o.regularizer == "quadratic" else 1)
        h = d**2 / tau**3 * p * np.exp(-nls(-u)) + (2 * o.rho0 if o.regularizer == "quadratic" else 0)
        tau = np.clip(tau - g / np.maximum(h, 1e-6), o.tau0, o.tau_max)
    price = o.rho0 * tau**2 if o.regularizer == "quadratic" else o.rho0 * tau
    return tau * nls(d / tau) + price - math.log(2) * tau


CONTRACT = Contract(
    formula=formula,
    options=(
        {"regularizer": "quadratic"},
        {"beta": 1.0, "rho0": 0.5, "tau_max": 10.0, "iterations": 3},
        {"regularizer": "quadratic", "rho0": 0.05, "tau0": 0.5, "tau_max": 1.0},
    ),
    may_be_negative=True,
)


@pytest.mark.parametrize("rho0", [0.05, 0.1, 0.3, 0.5])
def test_aps_linear_regimes(rho0: float) -> None:
    """τ₀ where H(p) + ρ > 0 already at τ₀, τ_max where it is < 0 even at τ_max; p = σ(d/τ). Between them H(p) = −ρ."""
    gaps = 3 * GRID
    d, rho = 0.1 * gaps, rho0 - LOG2
    tau = tau_of(gaps, rho0=rho0, iterations=100)
    lowest, highest = entropy(d / 0.1) + rho > 0, entropy(d / 4) + rho < 0
    assert lowest.any() and highest.any()
    assert (tau[lowest] == 0.1).all() and (tau[highest] == 4).all()
    between = ~lowest & ~highest
    if rho0 > 0.1:  # where the iteration alternates, see the next test
        between &= (d.abs() < 0.6) | (d.abs() > 1.6)
    assert between.sum() > 10
    torch.testing.assert_close(entropy(d / tau)[between], torch.full_like(d, -rho)[between], rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("rho0", "tau_max", "d"),
    [(0.15, 4.0, 0.67), (0.15, 10.0, 6.7), (0.2, 4.0, 0.7), (0.3, 4.0, 0.8), (0.5, 5.0, 7.0), (0.5, 10.0, 15.0)],
)
def test_aps_linear_alternates_for_large_prices(rho0: float, tau_max: float, d: float) -> None:
    """A limit of the iteration as published, which the docstring of `scales` tells: no number of steps is enough."""
    once, again, third = (
        float(tau_of(torch.tensor([10 * d]), rho0=rho0, tau_max=tau_max, iterations=n)) for n in (400, 401, 402)
    )
    assert abs(once - again) > 0.1 and once == pytest.approx(third)


def test_aps_linear_refuses_a_price_that_no_margin_is_worth() -> None:
    """H(p) + ρ₀ − log 2 > 0 at every p. `quadratic` has scales above τ₀ up to ρ₀ = log 2/(2τ₀) = 3.47."""
    refused("aps", "every scale is tau0, as in `dpo` with β/tau0", rho0=LOG2)
    assert tau_of(torch.tensor([300.0]), rho0=LOG2 - 0.01, iterations=100) > 0.1
    assert tau_of(torch.tensor([300.0]), rho0=1.0, regularizer="quadratic") > 0.1


@pytest.mark.parametrize("rho0", [0.05, 0.1, 0.3, 0.5])
def test_aps_quadratic_scale(rho0: float) -> None:
    """τ* = max{τ₀, (log 2 − H(p*))/(2ρ₀)}, at most τ_max."""
    tau = tau_of(GRID, rho0=rho0, regularizer="quadratic", iterations=100)
    closed = ((LOG2 - entropy(0.1 * GRID / tau)) / (2 * rho0)).clamp(0.1, 4)
    torch.testing.assert_close(tau, closed, rtol=1e-9, atol=0)
    assert len(tau.unique()) > 5


@pytest.mark.parametrize("tau_max", [1.0, 4.0, 5.0, 10.0])
@pytest.mark.parametrize(
    ("regularizer", "rho0"),
    [("linear", 0.05), ("linear", 0.1), ("linear", 0.12), ("quadratic", 0.05), ("quadratic", 0.1), ("quadratic", 0.5)],
)
def test_aps_five_newton_steps_are_nearly_enough(regularizer: str, rho0: float, tau_max: float) -> None:
    gaps = torch.linspace(-250, 250, 20001, dtype=torch.float64)
    five = tau_of(gaps, regularizer=regularizer, rho0=rho0, tau_max=tau_max)
    settled = tau_of(gaps, regularizer=regularizer, rho0=rho0, tau_max=tau_max, iterations=100)
    torch.testing.assert_close(five, settled, rtol=0.05, atol=0)


@pytest.mark.parametrize("regularizer", ["linear", "quadratic"])
def test_aps_loss_is_the_minimum_over_scales(regularizer: str) -> None:
    d = (0.1 * GRID)[:, None]
    tau = torch.linspace(0.1, 4, 4001, dtype=torch.float64)
    price = (0.1 - LOG2) * tau if regularizer == "linear" else 0.1 * tau**2 - LOG2 * tau
    grid = (tau * torch.nn.functional.softplus(-d / tau) + price).min(1).values
    ours = loss("aps", rows_of(GRID), regularizer=regularizer, iterations=100)
    torch.testing.assert_close(ours, grid, rtol=0, atol=1e-6)


def test_aps_gradient_is_that_of_the_scaled_margin() -> None:
    """∂L/∂d = −σ(−d/τ*), so β times that for Δ."""
    torch.testing.assert_close(slope("aps", GRID), -0.1 * torch.sigmoid(-0.1 * GRID / tau_of(GRID)))


def test_aps_with_one_scale_is_dpo() -> None:
    fixed = loss("aps", rows_of(GRID), tau0=1.0, tau_max=1.0, rho0=0.3)
    torch.testing.assert_close(fixed, loss("dpo", rows_of(GRID)) + 0.3 - LOG2)


def test_aps_logs_scales() -> None:
    kind = OBJECTIVES.get("aps")
    assert kind.diagnostics is not None
    noted = kind.diagnostics(rows_of([0.0, 400.0, 10.0]), kind.options())
    assert noted["tau_at_min"].tolist() == [1, 0, 0] and noted["tau_at_max"].tolist() == [0, 1, 0]
    assert noted["tau_mean"][:2].tolist() == [0.1, 4] and 1 < float(noted["tau_mean"][2]) < 1.1
    assert torch.equal(noted["tau_square"], noted["tau_mean"].square())
    # Bins are (4 − 0.1)/8 = 0.4875 wide: τ between 1 and 1.1 lies in the second.
    bins = torch.stack([noted[f"tau_bin_{number}"] for number in range(1, 9)])
    assert bins.argmax(0).tolist() == [0, 7, 1] and bins.sum(0).tolist() == [1, 1, 1]
    same = kind.diagnostics(rows_of([0.0, 400.0]), kind.options(tau0=2.0, tau_max=2.0))
    assert same["tau_bin_1"].tolist() == [1, 1]


def test_aps_options() -> None:
    refused("aps", "tau0 5.0 is above tau_max 4.0", tau0=5.0)
    refused("aps", "iterations must be 1", iterations=0)
