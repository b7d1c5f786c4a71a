"""Objectives that must coincide, and the state of the Lagrangian."""

import math
from typing import Any

import pytest
import torch

from popmargin.margin import Margin
from popmargin.objectives.base import OBJECTIVES, Rows


def loss(name: str, rows: Rows, **options: Any) -> torch.Tensor:
    kind = OBJECTIVES.get(name)
    return kind.function(rows, kind.options(**options))


@pytest.fixture
def scores() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    names = ("chosen", "rejected", "weaker_chosen", "weaker_rejected")
    return {name: torch.randn(8, dtype=torch.float64) * 6 for name in names}


def edge_rows(scores: dict[str, torch.Tensor], target: torch.Tensor, **more: Any) -> Rows:
    settings = {"has_weaker": torch.ones(8, dtype=torch.bool), "target": Margin(values=target, unit="nats")}
    return Rows(**scores, **(settings | more))


def test_the_control_is_dpo(scores: dict[str, torch.Tensor]) -> None:
    rows = edge_rows(scores, torch.full((8,), 7.0, dtype=torch.float64))
    assert torch.equal(loss("dpo_stronger", rows, beta=0.3), loss("dpo", rows, beta=0.3))


@pytest.mark.parametrize("target", [0.0, -4.0])
def test_pop_without_a_margin_is_the_control(scores: dict[str, torch.Tensor], target: float) -> None:
    rows = edge_rows(scores, torch.full((8,), target, dtype=torch.float64))
    assert torch.equal(loss("pop", rows), loss("dpo_stronger", rows))


def test_pop_ignores_targets_of_rows_without_a_weaker_side(scores: dict[str, torch.Tensor]) -> None:
    rows = edge_rows(scores, torch.full((8,), 5.0, dtype=torch.float64), has_weaker=torch.zeros(8, dtype=torch.bool))
    assert torch.equal(loss("pop", rows), loss("dpo", rows))


def test_pop_with_one_target_is_the_fixed_margin(scores: dict[str, torch.Tensor]) -> None:
    """PoP's margin is in nats before β, the fixed one in reward units after it: 4 nats at β = 0.25 are 1."""
    rows = edge_rows(scores, torch.full((8,), 4.0, dtype=torch.float64))
    torch.testing.assert_close(loss("pop", rows, beta=0.25), loss("dpo_fixed_margin", rows, beta=0.25, margin=1.0))


def test_the_rating_margin_is_in_reward_units(scores: dict[str, torch.Tensor]) -> None:
    ones = torch.ones(8, dtype=torch.float64)
    rows = edge_rows(scores, torch.zeros(8, dtype=torch.float64), columns={"margin": ones})
    torch.testing.assert_close(loss("dpo_rating_margin", rows), loss("dpo_fixed_margin", rows, margin=1.0))


def test_pop_rank_without_ranking_is_dpo(scores: dict[str, torch.Tensor]) -> None:
    zeros = torch.zeros(8, dtype=torch.float64)
    rows = edge_rows(scores, zeros, stronger_share=torch.ones(8, dtype=torch.float64), weaker_share=zeros)
    assert torch.equal(loss("pop_rank", rows, rank_weight=0.0), loss("dpo", rows))


def test_pop_rank_pulls_the_weaker_gap_down(scores: dict[str, torch.Tensor]) -> None:
    weaker = scores["weaker_chosen"].requires_grad_()
    zeros = torch.zeros(8, dtype=torch.float64)
    rows = edge_rows(scores | {"weaker_chosen": weaker}, zeros, stronger_share=zeros + 1, weaker_share=zeros)
    (gradient,) = torch.autograd.grad(loss("pop_rank", rows).sum(), weaker)
    assert (gradient > 0).all()


def test_edges_are_in_order_where_the_stronger_preference_leads() -> None:
    """Gaps 3 against 1, 1 against 3, and a tie, which is no order."""
    kind = OBJECTIVES.get("pop_rank")
    assert kind.diagnostics is not None
    rows = Rows(
        chosen=torch.tensor([3.0, 1.0, 2.0]),
        rejected=torch.zeros(3),
        has_weaker=torch.ones(3, dtype=torch.bool),
        weaker_chosen=torch.tensor([0.0, 0.0, 2.0]),
        weaker_rejected=torch.tensor([-1.0, -3.0, 0.0]),
    )
    assert kind.diagnostics(rows, kind.options())["edges_ordered"].tolist() == [1, 0, 0]


def lagrangian(violation: float, steps: int, **options: Any) -> list[float]:
    kind = OBJECTIVES.get("pop_lagrangian")
    assert kind.init_state is not None and kind.update_state is not None
    made = kind.options(**options)
    state, course = kind.init_state(made), list[float]()
    for _ in range(steps):
        state = kind.update_state(state, {"violation": violation}, made)
        course.append(math.exp(float(state["log_lambda"])))
    return course


def test_the_multiplier_ascends_while_the_order_is_violated() -> None:
    """log λ rises by lr · violation a step: λ = exp(0.1 · 0.5 · t)."""
    course = lagrangian(0.5, 10, lambda_lr=0.1)
    assert course == pytest.approx([math.exp(0.05 * step) for step in range(1, 11)])
    assert lagrangian(-0.5, 3, lambda_lr=0.1)[-1] < 1


def test_the_multiplier_is_bounded() -> None:
    course = lagrangian(5.0, 200, lambda_lr=1.0, lambda_max=7.0)
    assert course[-1] == pytest.approx(7.0) and max(course) <= 7.0 + 1e-9


def test_violation_is_positive_where_the_weaker_leads(scores: dict[str, torch.Tensor]) -> None:
    kind = OBJECTIVES.get("pop_lagrangian")
    assert kind.diagnostics is not None and kind.init_state is not None
    options = kind.options()
    rows = edge_rows(scores, torch.zeros(8, dtype=torch.float64), state=kind.init_state(options))
    violation = kind.diagnostics(rows, options)["violation"]
    assert torch.equal(violation > 0, rows.weaker_gap > rows.gap)


def test_target_diagnostics_count_clipped_and_leave_out_missing() -> None:
    kind = OBJECTIVES.get("pop")
    assert kind.diagnostics is not None
    rows = Rows(
        chosen=torch.zeros(4),
        rejected=torch.zeros(4),
        has_weaker=torch.tensor([True, True, True, False]),
        target=Margin(values=torch.tensor([2.0, 12.0, -1.0, 0.0]), unit="nats"),
    )
    noted = kind.diagnostics(rows, kind.options())
    assert noted["target_margin_mean"][:3].tolist() == [2.0, 10.0, 0.0]
    assert noted["target_margin_clipped"][:3].tolist() == [0.0, 1.0, 1.0]
    assert all(values[3].isnan() for values in noted.values())
