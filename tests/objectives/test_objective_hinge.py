"""`hinge`: its formula in NumPy and what is special about it."""

import numpy as np
from objective_cases import Contract, gaps, loss, rows_of, slope

CONTRACT = Contract(formula=lambda rows, o: np.maximum(0.0, 1 - o.beta * gaps(rows)[0]), options=({"beta": 0.25},))


def test_hinge_opens_at_a_reward_margin_of_1() -> None:
    assert slope("hinge", [-5.0, 9.0, 11.0]).tolist() == [-0.1, -0.1, 0]
    assert loss("hinge", rows_of([10.0]), beta=0.1).tolist() == [0]
