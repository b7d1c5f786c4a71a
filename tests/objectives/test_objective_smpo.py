"""`smpo`: its formula in NumPy, golden factors, and DPO as its special case."""

import math

import pytest
import torch
from objective_cases import GRID, Contract, nls, slope, soft

from popmargin.objectives.base import Rows
from popmargin.objectives.dpo import DPOOptions, dpo
from popmargin.objectives.smpo import SmPOOptions, diagnostics, smoothing_factor, smpo

CONTRACT = Contract(
    formula=soft(lambda p, r, o: nls(o.beta * o.gamma * (2 * p - 1) * r)), options=({"beta": 0.2, "gamma": 1.0},)
)
LOW, HIGH = 0.115435265, 0.2820157111
"""Least and largest PickScore of the published data."""


@pytest.mark.parametrize(
    ("better", "worse", "label", "factor"),
    [(0.22, 0.20, 0.5299795237, 0.5995904741), (HIGH, LOW, 0.7310585786, 4.6211715726)],
)
def test_golden_factors(better: float, worse: float, label: float, factor: float) -> None:
    p = torch.tensor([(better - worse) / (HIGH - LOW)], dtype=torch.float64).sigmoid()
    assert p.item() == pytest.approx(label, abs=1e-9)
    assert smoothing_factor(p, 10.0).item() == pytest.approx(factor, abs=1e-8)
    assert 10 * math.tanh((better - worse) / (HIGH - LOW) / 2) == pytest.approx(factor, abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [2000.0, 0.3])
def test_without_smoothing_it_is_dpo_bit_for_bit(dtype: torch.dtype, beta: float) -> None:
    """α = γ = 1: p = 1 at γ = 1, in value and gradient."""
    found: list[torch.Tensor] = []
    for loss in (
        lambda rows: smpo(rows, SmPOOptions(beta=beta, gamma=1.0)),
        lambda rows: dpo(rows, DPOOptions(beta=beta)),
    ):
        gap = (GRID.to(dtype) / beta).requires_grad_()
        rows = Rows(chosen=gap, rejected=torch.zeros_like(gap), columns={"soft_label": torch.ones_like(gap)})
        value = loss(rows)
        found += [value.detach(), *torch.autograd.grad(value.sum(), gap)]
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])


def test_equal_scores_have_no_gradient() -> None:
    assert not slope("smpo", GRID, soft=0.5).any()


def test_every_row_has_its_own_factor() -> None:
    """The factor of a batch's first row scales none of the others (a trap of the public code)."""
    label = torch.tensor([0.5, 0.6, 0.73], dtype=torch.float64)
    rows = Rows(chosen=torch.full((3,), 1e-3).double(), rejected=torch.zeros(3).double(), columns={"soft_label": label})
    together = smpo(rows, SmPOOptions(beta=2000.0))
    alone = [
        smpo(Rows(chosen=rows.chosen[i:][:1], rejected=rows.rejected[:1], columns={"soft_label": label[i:][:1]}),
             SmPOOptions(beta=2000.0)) for i in range(3)
    ]  # fmt: skip
    assert torch.equal(together, torch.cat(alone)) and len(set(together.tolist())) == 3
    assert diagnostics(rows, SmPOOptions())["smoothing_factor"].tolist() == pytest.approx([0.0, 2.0, 4.6])
