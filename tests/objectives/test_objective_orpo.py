"""`orpo`: its formula in NumPy and what is special about it."""

from typing import Any

import numpy as np
import pytest
import torch
from objective_cases import LOG2, Arrays, Contract, loss, nls, rows_of

from popmargin.objectives.base import Rows


def formula(rows: Arrays, o: Any) -> np.ndarray:
    w, lo = (np.minimum(rows[side], -1e-6) for side in ("chosen", "rejected"))
    odds_w, odds_l = (v - np.log(-np.expm1(v)) for v in (w, lo))
    return -rows["chosen"] + o.beta * nls(odds_w - odds_l)


CONTRACT = Contract(formula=formula, options=({"beta": 1.0},))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orpo_at_the_ends_of_probability(dtype: torch.dtype) -> None:
    """A certain response has finite odds, and an impossible one finite gradients."""
    chosen = torch.tensor([0.0, -1e-9, -1e-6, -0.7, -1e4], dtype=dtype, requires_grad=True)
    for other in (0.0, -1e-7, -1e4):
        rejected = torch.full((5,), other, dtype=dtype, requires_grad=True)
        value = loss("orpo", Rows(chosen=chosen, rejected=rejected))
        gradients = torch.autograd.grad(value.sum(), (chosen, rejected))
        assert torch.isfinite(value).all() and all(torch.isfinite(gradient).all() for gradient in gradients)


def test_orpo_of_equal_responses_is_the_likelihood_and_log_2() -> None:
    rows = rows_of([0.0, 0.0], at=-1.25)
    assert loss("orpo", rows, beta=0.5).tolist() == pytest.approx([1.25 + 0.5 * LOG2] * 2)
