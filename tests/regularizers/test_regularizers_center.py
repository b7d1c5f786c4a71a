"""Centring."""

import torch

from popmargin.objectives.base import Rows
from popmargin.regularizers.base import REGULARIZERS


def test_the_square_of_the_sum() -> None:
    """Rewards that cancel cost nothing; (1 + 2)² = 9 with gradient 2·3 on both."""
    chosen = torch.tensor([2.0, 1.0], requires_grad=True)
    rows = Rows(chosen=chosen, rejected=torch.tensor([-2.0, 2.0]))
    center = REGULARIZERS.get("center")
    term = center.function(center.sees(rows), center.options())
    assert term.tolist() == [0.0, 9.0] and center.of == "reward" and not center.reference
    term.sum().backward()
    assert chosen.grad is not None and chosen.grad.tolist() == [0.0, 6.0]
    assert center.diagnostics is not None
    assert center.diagnostics(rows, center.options())["reward_center"].tolist() == [0.0, 1.5]
