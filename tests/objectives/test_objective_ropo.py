"""`ropo`: its formula in NumPy and what is special about it."""

from typing import Any

import numpy as np
import pytest
import torch
from objective_cases import GRID, Arrays, Contract, gaps, loss, nls, refused, rows_of, slope

from popmargin.objectives.ropo import ROPOOptions, ropo


def formula(rows: Arrays, o: Any) -> np.ndarray:
    h = o.beta * gaps(rows)[0]
    return 4 * o.alpha / (1 + o.alpha) ** 2 * (nls(h) + o.alpha * np.exp(-nls(-h)))


CONTRACT = Contract(
    formula=formula,
    options=(
        {"alpha": 6.0, "beta": 0.5},
        {"alpha": 30.0},
    ),
)


@pytest.mark.parametrize("alpha", [2.5, 6.0, 14.0, 30.0])
def test_ropo_weight_is_at_most_1(alpha: float) -> None:
    """The maximum is at σ(h) = (α − 1)/(2α), and is exactly 1."""
    h = torch.linspace(-30, 30, 6001, dtype=torch.float64)
    weight = -slope("ropo", h, alpha=alpha, beta=1.0)
    assert float(weight.max()) <= 1 + 1e-12
    at = torch.logit(torch.tensor([(alpha - 1) / (2 * alpha)], dtype=torch.float64))
    assert float(-slope("ropo", at, alpha=alpha, beta=1.0)) == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize(("alpha", "limit"), [(6.0, 0.49), (14.0, 0.249), (30.0, 0.125)])
def test_ropo_lets_go_of_contradicted_preferences(alpha: float, limit: float) -> None:
    weight = float(-slope("ropo", [-100.0], alpha=alpha, beta=1.0))
    assert weight == pytest.approx(4 * alpha / (1 + alpha) ** 2, rel=1e-12) and weight == pytest.approx(limit, abs=1e-3)


def test_ropo_is_dpo_plus_a_bounded_loss() -> None:
    """The second part is α·σ(−h): 0 ≤ L/factor − DPO ≤ α."""
    rest = loss("ropo", rows_of(GRID)) * 15**2 / 56 - loss("dpo", rows_of(GRID))
    torch.testing.assert_close(rest, 14 * torch.sigmoid(-0.1 * GRID))


class AnyAlpha(ROPOOptions):
    """α below what the paper allows, to look at the limit of the formula."""

    def __post_init__(self) -> None:
        pass


@pytest.mark.parametrize("small", [1e-3, 1e-6])
def test_ropo_without_its_bounded_loss_is_dpo(small: float) -> None:
    """L·(1 + α)²/(4α) = DPO + α·σ(−h), which differs from DPO by α at most."""
    values = ropo(rows_of(GRID), AnyAlpha(alpha=small)) * (1 + small) ** 2 / (4 * small)
    rest = values - loss("dpo", rows_of(GRID))
    assert (rest > 0).all() and (rest <= small).all() and rest.max() > 0.9 * small


def test_ropo_needs_alpha_above_2() -> None:
    refused("ropo", "alpha must be above 2, not 2.0", alpha=2.0)
