"""`amapo`: its formula in NumPy and what is special about it."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from objective_cases import Arrays, Contract, Gaps, gaps, loss, nls, refused, rows_of

from popmargin.objectives.amapo import AMaPOOptions, adaptive_margins
from popmargin.objectives.base import OBJECTIVES, Rows

BOTH = pytest.mark.parametrize("convention", ["code", "paper"])


def formula(rows: Arrays, o: Any) -> np.ndarray:
    r = gaps(rows)[0]
    if o.running:  # the state is empty here
        margin = np.zeros_like(r)
    else:
        mu = r.mean()
        s = r.std(ddof=1) if len(r) > 1 else 0.0
        z = (mu - r) / max(s, o.eps)
        if o.convention == "code":
            margin = np.where(r < mu - o.eps, o.beta * np.exp(np.minimum(z * mu, o.exponent_max)), 0.0)
        else:  # r carries β in the paper: z stays, μ is β times as large
            gamma = np.where(np.abs(r - mu) > o.eps, np.maximum(z * o.beta * mu, 0.0), 0.0)
            margin = np.where(gamma == 0, 0.0, o.beta * np.exp(np.minimum(gamma, o.exponent_max)))
    logit, e = o.beta * r - margin, o.label_smoothing
    return (1 - e) * nls(logit) + e * nls(-logit)


CONTRACT = Contract(
    formula=formula,
    options=(
        {"convention": "paper", "beta": 1.5},
        {"label_smoothing": 0.1, "exponent_max": 2.0},
        {"running": 0.9, "label_smoothing": 0.25},
    ),
)


@BOTH
@pytest.mark.parametrize("gap", [0.3, -2.0])
def test_amapo_of_one_row_has_no_margin(convention: str, gap: float) -> None:
    plain = torch.nn.functional.softplus(torch.tensor([-2 * gap], dtype=torch.float64))
    torch.testing.assert_close(loss("amapo", rows_of([gap]), convention=convention), plain)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [3, 7, 10])
def test_amapo_of_ties_has_no_margin(convention: str, dtype: torch.dtype, count: int) -> None:
    """0.1 has no exact mean: rounding must not turn into a margin of β."""
    rows = Rows(chosen=torch.full((count,), 0.1, dtype=dtype), rejected=torch.zeros(count, dtype=dtype))
    margins = adaptive_margins(rows, AMaPOOptions(convention=convention))
    assert not margins.lags.any() and torch.equal(margins.values, torch.zeros_like(margins.values))


@BOTH
def test_amapo_of_gaps_that_hardly_differ(convention: str) -> None:
    """s is far below eps, and the row behind is still within it."""
    values = loss("amapo", rows_of([0.5, 0.5 + 1e-9, 0.5 - 1e-9]), convention=convention)
    torch.testing.assert_close(values, torch.full_like(values, math.log1p(math.exp(-1.0))), rtol=1e-6, atol=0)


def test_amapo_margins_by_hand() -> None:
    """Gaps 0, 1, 2 have μ = 1, s = 1: only the first lags, by z = 1."""
    code = adaptive_margins(rows_of([0.0, 1.0, 2.0]), AMaPOOptions(beta=3.0))
    paper = adaptive_margins(rows_of([0.0, 1.0, 2.0]), AMaPOOptions(beta=3.0, convention="paper"))
    assert code.lags.tolist() == paper.lags.tolist() == [True, False, False]
    assert code.values.tolist() == pytest.approx([3 * math.e, 0, 0])
    assert paper.values.tolist() == pytest.approx([3 * math.exp(3), 0, 0])  # exponents differ by the factor β


def test_amapo_conventions_coincide_at_beta_1() -> None:
    rows = rows_of([-1.0, 0.5, 2.0, 3.5])
    code, paper = (loss("amapo", rows, beta=1.0, convention=name) for name in ("code", "paper"))
    torch.testing.assert_close(code, paper)


def test_amapo_with_a_negative_mean() -> None:
    """Gaps −2, −1, 0: μ = −1. `code` gives the laggard β·e⁻¹; `paper` turns to the row above the mean."""
    code = adaptive_margins(rows_of([-2.0, -1.0, 0.0]), AMaPOOptions())
    paper = adaptive_margins(rows_of([-2.0, -1.0, 0.0]), AMaPOOptions(convention="paper"))
    assert code.values.tolist() == pytest.approx([2 * math.exp(-1), 0, 0])
    assert paper.values.tolist() == pytest.approx([0, 0, 2 * math.exp(2)])


def test_amapo_without_margins_is_simpo_without_gamma() -> None:
    """Rows at the mean or above: β = 2 on both sides."""
    values = loss("amapo", rows_of([0.0, 3.0, 3.0]))
    torch.testing.assert_close(values[1:], loss("simpo", rows_of([3.0, 3.0]), gamma=0.0))
    assert values[0] > loss("simpo", rows_of([0.0]), gamma=0.0)


def test_amapo_smoothing_mixes_both_labels() -> None:
    assert loss("amapo", rows_of([1.0]), label_smoothing=0.25).tolist() == pytest.approx(
        [0.75 * math.log1p(math.exp(-2)) + 0.25 * math.log1p(math.exp(2))]
    )


def test_amapo_running_statistics() -> None:
    """Steps with (mean 1, square 2) and (mean 3, square 13): decay ½ gives weights ¼ and ½ of ¾ in all."""
    kind = OBJECTIVES.get("amapo")
    options = kind.options(running=0.5)
    assert kind.init_state is not None and kind.update_state is not None and kind.diagnostics is not None
    rows, state = [0.0, 5.0], kind.init_state(options)
    assert not adaptive_margins(rows_of(rows, state=state), options).lags.any()  # nothing is known yet
    for step in ([0.0, 2.0], [1.0, 5.0]):
        noted = kind.diagnostics(rows_of(step, state=state), options)
        state = kind.update_state(state, {name: float(value.mean()) for name, value in noted.items()}, options)
    mean, square = (1 / 4 + 3 / 2) / 0.75, (2 / 4 + 13 / 2) / 0.75
    s = math.sqrt(square - mean**2)
    margins = adaptive_margins(rows_of(rows, state=state), options)
    assert margins.mu.tolist() == pytest.approx([mean] * 2) and margins.s.tolist() == pytest.approx([s] * 2)
    assert margins.values.tolist() == pytest.approx([2 * math.exp(mean / s * mean), 0])


def test_amapo_running_statistics_of_ties() -> None:
    """E[r²] − μ² rounds below 0."""
    state = {name: torch.tensor(value, dtype=torch.float64) for name, value in (("weight", 1.0), ("mean", 0.1))}
    state["square"] = state["mean"].square() * (1 - 1e-15)
    values = loss("amapo", rows_of([0.1, -0.4], state=state), running=0.9)
    assert torch.isfinite(values).all() and values[1] == pytest.approx(2 * math.exp(20) + 0.8)


def test_amapo_logs_what_a_mean_can_carry() -> None:
    kind = OBJECTIVES.get("amapo")
    assert kind.diagnostics is not None
    noted = kind.diagnostics(rows_of([0.0, 1.0, 2.0]), kind.options())
    assert noted["margin_share"].tolist() == [1, 0, 0] and noted["exponent_mean"].tolist() == [1, 0, 0]
    assert noted["exponent_max"].tolist() == [1, 1, 1]
    assert noted["mu"].tolist() == noted["s"].tolist() == [1, 1, 1]
    assert noted["gap_mean"].tolist() == [0, 1, 2] and noted["gap_square"].tolist() == [0, 1, 4]


def test_amapo_logs_the_largest_exponent_of_the_rows_with_a_margin() -> None:
    """Gaps −2, −1, 0 have μ = −1, s = 1: the only exponent is −1. The option of the same name is a bound."""

    def largest(gaps: Gaps, **options: Any) -> list[float]:
        kind = OBJECTIVES.get("amapo")
        assert kind.diagnostics is not None
        return kind.diagnostics(rows_of(gaps), kind.options(**options))["exponent_max"].tolist()

    assert largest([-2.0, -1.0, 0.0]) == [-1, -1, -1]
    assert largest([1.0, 1.0]) == [0, 0]
    assert largest([0.0, 30.0, 60.0], exponent_max=7.0) == [7, 7, 7]


def test_amapo_options() -> None:
    refused("amapo", "running must be 0", running=1.0)
    refused("amapo", "label_smoothing must be 0", label_smoothing=0.5)
    refused("amapo", "eps must be", eps=0.0)
