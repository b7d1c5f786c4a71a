"""`geometric_ropo`: its formula in NumPy and what is special about it."""

import numpy as np
import pytest
from objective_cases import GRID, Contract, loss, nls, rows_of, slope, soft

CONTRACT = Contract(
    formula=soft(
        lambda p, r, o: (
            o.alpha * (1 - 1 / (1 + np.exp(-o.beta * (2 * p - 1) * r))) + o.gamma * nls(o.beta * (2 * p - 1) * r)
        )
    ),
    options=({"alpha": 0.5, "gamma": 2.0},),
)


@pytest.mark.parametrize("small", [1e-3, 1e-6])
@pytest.mark.parametrize("p", [0.2, 0.7, 1.0])
def test_geometric_ropo_without_its_bounded_loss_is_geometric_dpo(small: float, p: float) -> None:
    """L = α(1 − σ(g)) + γ·GDPO: γ times GDPO up to α, in gradient up to α·β·|2p − 1|/4."""
    settings, rows = {"beta": 0.2, "alpha": small, "gamma": 0.7}, rows_of(GRID, soft=p)
    rest = loss("geometric_ropo", rows, **settings) - 0.7 * loss("geometric_dpo", rows, beta=0.2)
    assert (rest > 0).all() and (rest <= small).all() and rest.max() > 0.9 * small
    pull = slope("geometric_ropo", GRID, soft=p, **settings) - 0.7 * slope("geometric_dpo", GRID, soft=p, beta=0.2)
    assert pull.abs().max() == pytest.approx(small * 0.2 * abs(2 * p - 1) / 4)
