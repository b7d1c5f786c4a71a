"""`robust_dpo`: its formula in NumPy and what is special about it."""

import pytest
import torch
from objective_cases import GRID, Contract, gaps, loss, nls, refused, rows_of

CONTRACT = Contract(
    formula=lambda rows, o: (
        ((1 - o.flip_rate) * nls(o.beta * gaps(rows)[0]) - o.flip_rate * nls(-o.beta * gaps(rows)[0]))
        / (1 - 2 * o.flip_rate)
    ),
    options=(
        {"flip_rate": 0.0},
        {"flip_rate": 0.4, "beta": 0.5},
    ),
    may_be_negative=True,
)


def test_robust_dpo_without_flips_is_dpo() -> None:
    assert torch.equal(loss("robust_dpo", rows_of(GRID), flip_rate=0.0), loss("dpo", rows_of(GRID)))


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.45])
def test_robust_dpo_is_unbiased(rate: float) -> None:
    """Its mean over labels flipped at the rate ε is the DPO loss on the clean ones."""
    kept, flipped = (loss("robust_dpo", rows_of(gaps), flip_rate=rate) for gaps in (GRID, -GRID))
    torch.testing.assert_close((1 - rate) * kept + rate * flipped, loss("dpo", rows_of(GRID)))
    refused("robust_dpo", "flip_rate must be 0", flip_rate=0.5)
