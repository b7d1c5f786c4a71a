"""`geometric_ipo`: its formula in NumPy and what is special about it."""

import torch
from objective_cases import GRID, Contract, slope, soft

CONTRACT = Contract(
    formula=soft(lambda p, r, o: (2 * p - 1) ** 2 * (r - 1 / (2 * o.beta)) ** 2),
    options=({"beta": 0.5},),
    finite_target=True,
)


def test_geometric_ipo_gradient_scale() -> None:
    """(2p − 1)² of the base's, with the same target; cIPO keeps the scale and moves the target."""
    torch.testing.assert_close(slope("geometric_ipo", GRID, soft=0.75), 0.25 * slope("ipo", GRID))
    torch.testing.assert_close(slope("cipo", GRID, soft=0.75), slope("ipo", GRID + 2.5))
