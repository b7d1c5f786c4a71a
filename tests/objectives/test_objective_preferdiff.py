"""`preferdiff`: its formula in NumPy, and what is special about it."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from objective_cases import Arrays, Contract, gaps, loss, nls, refused, rows_of

from popmargin.objectives.base import Logps, Rows
from popmargin.regularizers.sft import SFTOptions, sft


def formula(rows: Arrays, o: Any) -> np.ndarray:
    error, gap = -rows["chosen"], gaps(rows)[0]
    if o.batch_mean:
        gap = np.full_like(gap, gap.mean())
    return o.regression * error + (1 - o.regression) * nls(o.beta * gap)


CONTRACT = Contract(
    formula=formula,
    options=({"beta": 1.0, "regression": 0.7}, {"batch_mean": True}, {"regression": 0.0}),
    may_be_negative=True,
)
ROWS = {"chosen": [-0.04, -0.36], "rejected": [-0.25, -0.16]}


def rows_with(**more: Any) -> Rows:
    return Rows(**{name: torch.tensor(values, dtype=torch.float64) for name, values in (ROWS | more).items()})


def test_the_notes_golden_values() -> None:
    assert loss("preferdiff", rows_with()).tolist() == pytest.approx([0.1960350878, 0.9319570125], abs=5e-11)
    assert float(loss("preferdiff", rows_with()).mean()) == pytest.approx(0.5639960502, abs=1e-10)
    assert float(loss("preferdiff", rows_with(), batch_mean=True).mean()) == pytest.approx(0.4884351821, abs=5e-11)


def test_one_is_regression_and_no_gamma_is_a_constant() -> None:
    """With λ = 1 not even the gradient sees the rejected side."""
    rejected = torch.tensor(ROWS["rejected"], dtype=torch.float64, requires_grad=True)
    rows = Rows(chosen=torch.tensor(ROWS["chosen"], dtype=torch.float64), rejected=rejected)
    values = loss("preferdiff", rows, regression=1.0)
    assert values.tolist() == [0.04, 0.36]
    assert torch.autograd.grad(values.sum(), rejected)[0].tolist() == [0, 0]
    expected = [0.4 * error + 0.6 * math.log(2) for error in (0.04, 0.36)]
    assert loss("preferdiff", rows_with(), beta=0.0).tolist() == pytest.approx(expected)


def test_without_regression_it_is_dpo_of_the_errors() -> None:
    rows = rows_of([0.3, -0.2])
    torch.testing.assert_close(loss("preferdiff", rows, regression=0.0), loss("dpo", rows, beta=5.0))


def test_with_regression_it_is_dpo_and_a_supervised_term() -> None:
    """(1 − λ)·(dpo + λ / (1 − λ)·sft): so margins and PoP edges, which dpo takes, compose with it."""
    rows = rows_with()
    one = torch.ones(2, dtype=torch.float64)
    logps = Logps(
        chosen=rows.chosen, rejected=rows.rejected, chosen_reference=None, rejected_reference=None, chosen_tokens=one,
        rejected_tokens=one,
    )  # fmt: skip
    both = loss("dpo", rows, beta=5.0) + 0.4 / 0.6 * sft(logps, SFTOptions())
    torch.testing.assert_close(loss("preferdiff", rows), 0.6 * both)


def test_the_mean_of_the_batch_has_its_own_gradient() -> None:
    """Losses of rows whose mean is the loss of the means, in value and gradient."""
    leaf = torch.tensor([ROWS["chosen"], ROWS["rejected"]], dtype=torch.float64, requires_grad=True)
    found = torch.autograd.grad(
        loss("preferdiff", Rows(chosen=leaf[0], rejected=leaf[1]), batch_mean=True).mean(), leaf
    )[0]
    gap = (leaf[0] - leaf[1]).mean()
    whole = -0.4 * leaf[0].mean() + 0.6 * torch.nn.functional.softplus(-5 * gap)
    torch.testing.assert_close(found, torch.autograd.grad(whole, leaf)[0])


def test_the_mean_is_over_all_processes() -> None:
    """Two processes with a row each: the mean of their losses, and its gradient, are those of one with both."""
    both = torch.tensor([0.21, -0.2], dtype=torch.float64)
    parts: list[torch.Tensor] = []
    for row in range(2):
        rows = Rows(chosen=both[row : row + 1], rejected=torch.zeros(1, dtype=torch.float64), gather=lambda _: both)
        parts.append(loss("preferdiff", rows, batch_mean=True))
    whole = loss("preferdiff", Rows(chosen=both, rejected=torch.zeros(2, dtype=torch.float64)), batch_mean=True)
    torch.testing.assert_close(torch.cat(parts), whole)


def test_preferdiff_options() -> None:
    refused("preferdiff", "beta must be", beta=-1.0)
    refused("preferdiff", "regression must be between 0 and 1", regression=1.5)
