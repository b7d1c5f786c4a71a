"""`geometric_dpo`: its formula in NumPy and what is special about it."""

import torch
from objective_cases import GRID, Contract, nls, slope, soft

CONTRACT = Contract(formula=soft(lambda p, r, o: nls(o.beta * (2 * p - 1) * r)), options=({"beta": 0.1},))


def test_gdpo_gradient_scale() -> None:
    """(2p − 1)·(1 − σ(β(2p − 1)r)) times β."""
    expected = 0.3 * 0.6 * torch.sigmoid(-0.3 * 0.6 * GRID)
    torch.testing.assert_close(-slope("geometric_dpo", GRID, soft=0.8), expected)
