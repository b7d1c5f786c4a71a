"""Objectives that must coincide, and what those of a family share."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from objective_cases import GRID, LOG2, loss, rows_of, slope

from popmargin.margin import Margin
from popmargin.objectives.base import OBJECTIVES, Rows


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


# -- soft labels -------------------------------------------------------------------------------------------------------

CERTAIN: list[tuple[str, Callable[[Rows], torch.Tensor]]] = [
    ("cdpo", lambda rows: loss("dpo", rows, beta=0.2)),
    ("cipo", lambda rows: loss("ipo", rows, beta=0.2)),
    ("geometric_dpo", lambda rows: loss("dpo", rows, beta=0.2)),
    ("geometric_ipo", lambda rows: loss("ipo", rows, beta=0.2)),
    # α(1 − σ) + γ·DPO = γ·(DPO + (α/γ)·σ(−h)): ROPO with α/γ = 20 without its factor 4·20/21².
    ("geometric_ropo", lambda rows: loss("ropo", rows, beta=0.2, alpha=20.0) * 0.1 * 21**2 / 80),
]


@pytest.mark.parametrize(("name", "base"), CERTAIN, ids=[name for name, _ in CERTAIN])
def test_certain_labels_are_the_base(name: str, base: Callable[[Rows], torch.Tensor]) -> None:
    torch.testing.assert_close(loss(name, rows_of(GRID, soft=1.0), beta=0.2), base(rows_of(GRID)))
    torch.testing.assert_close(loss(name, rows_of(-GRID, soft=0.0), beta=0.2), base(rows_of(GRID)))


@pytest.mark.parametrize(
    ("name", "value"), [("geometric_dpo", LOG2), ("geometric_ipo", 0.0), ("geometric_ropo", 1 + 0.1 * LOG2)]
)
def test_geometric_losses_ignore_undecided_pairs(name: str, value: float) -> None:
    torch.testing.assert_close(loss(name, rows_of(GRID, soft=0.5)), torch.full_like(GRID, value))
    assert torch.count_nonzero(slope(name, GRID, soft=0.5)) == 0


@pytest.mark.parametrize("name", ["geometric_dpo", "geometric_ropo"])
def test_a_beta_that_soft_labels_shrink_is_warned_of(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Both scale Δ by β·(2p − 1), which is E[2p − 1] times DPO's β; `geometric_ipo` has a target instead."""
    for beta in (0.3, 0.11):
        OBJECTIVES.get(name).options(beta=beta)
    OBJECTIVES.get("geometric_ipo").options(beta=0.1)
    assert not caplog.records
    OBJECTIVES.get(name).options(beta=0.1)
    assert f"{name}: β 0.1 is not above DPO's 0.1" in caplog.text
