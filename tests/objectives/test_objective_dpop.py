"""`dpop`: its formula in NumPy and what is special about it."""

import numpy as np
import torch
from objective_cases import GRID, Contract, gaps, loss, nls, refused, rows_of

CONTRACT = Contract(
    formula=lambda rows, o: nls(o.beta * (gaps(rows)[0] - o.penalty * np.maximum(0.0, -rows["chosen"]))),
    options=(
        {"penalty": 0.0},
        {"penalty": 5.0, "beta": 0.3},
    ),
)


def test_dpop_is_dpo_until_the_chosen_response_loses() -> None:
    assert torch.equal(loss("dpop", rows_of(GRID), penalty=0.0), loss("dpo", rows_of(GRID)))
    gained = GRID[GRID >= 0]
    assert torch.equal(loss("dpop", rows_of(gained)), loss("dpo", rows_of(gained)))
    one = loss("dpop", rows_of([5.0], at=-7.0), penalty=3.0)  # ρ(y_w) = −2 is charged 6 of the gap 5
    torch.testing.assert_close(one, loss("dpo", rows_of([-1.0])))
    refused("dpop", "penalty must be", penalty=-1.0)
