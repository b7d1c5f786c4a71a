"""Closed forms of the method notes, limits, and the states that only training reaches."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from popmargin.objectives.amapo import AMaPOOptions, adaptive_margins
from popmargin.objectives.aps import APSOptions, scales
from popmargin.objectives.base import OBJECTIVES, Logps, Rows
from popmargin.objectives.ropo import ROPOOptions, ropo

Gaps = list[float] | torch.Tensor
GRID = torch.linspace(-60, 60, 241, dtype=torch.float64)
LOG2 = math.log(2)


def rows_of(gaps: Gaps, *, at: float = 0.0, soft: Gaps | float | None = None, **more: Any) -> Rows:
    """Rows with these gaps, whose rejected responses all score `at`."""
    gaps = torch.as_tensor(gaps, dtype=torch.float64)
    columns = {} if soft is None else {"soft_label": torch.as_tensor(soft, dtype=torch.float64).expand_as(gaps)}
    return Rows(chosen=at + gaps, rejected=torch.full_like(gaps, at), columns=columns, **more)


def loss(name: str, rows: Rows, **options: Any) -> torch.Tensor:
    kind = OBJECTIVES.get(name)
    return kind.function(rows, kind.options(**options))


def slope(name: str, gaps: Gaps, soft: Gaps | float | None = None, **options: Any) -> torch.Tensor:
    """∂L/∂Δ of every row (B,)."""
    leaf = torch.as_tensor(gaps, dtype=torch.float64).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(name, rows_of(leaf, soft=soft), **options).sum(), leaf)
    return gradient


def refused(name: str, message: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=message):
        OBJECTIVES.get(name).options(**options)


# -- AMaPO -------------------------------------------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("convention", ["code", "paper"])


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
    for gaps in ([0.0, 2.0], [1.0, 5.0]):
        noted = kind.diagnostics(rows_of(gaps, state=state), options)
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


# -- APS ---------------------------------------------------------------------------------------------------------------


def entropy(u: torch.Tensor) -> torch.Tensor:
    p, q = torch.sigmoid(u), torch.sigmoid(-u)
    return -torch.xlogy(p, p) - torch.xlogy(q, q)


def tau_of(gaps: torch.Tensor, **options: Any) -> torch.Tensor:
    return scales(rows_of(gaps), APSOptions(**options))


@pytest.mark.parametrize("rho0", [0.05, 0.1, 0.3, 0.5])
def test_aps_linear_regimes(rho0: float) -> None:
    """τ₀ where H(p) + ρ > 0 already at τ₀, τ_max where it is < 0 even at τ_max; p = σ(d/τ). Between them H(p) = −ρ."""
    gaps = 3 * GRID
    d, rho = 0.1 * gaps, rho0 - LOG2
    tau = tau_of(gaps, rho0=rho0, iterations=100)
    lowest, highest = entropy(d / 0.1) + rho > 0, entropy(d / 4) + rho < 0
    assert lowest.any() and highest.any()
    assert (tau[lowest] == 0.1).all() and (tau[highest] == 4).all()
    between = ~lowest & ~highest
    if rho0 > 0.1:  # where the iteration alternates, see the next test
        between &= (d.abs() < 0.6) | (d.abs() > 1.6)
    assert between.sum() > 10
    torch.testing.assert_close(entropy(d / tau)[between], torch.full_like(d, -rho)[between], rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("rho0", "tau_max", "d"),
    [(0.15, 4.0, 0.67), (0.15, 10.0, 6.7), (0.2, 4.0, 0.7), (0.3, 4.0, 0.8), (0.5, 5.0, 7.0), (0.5, 10.0, 15.0)],
)
def test_aps_linear_alternates_for_large_prices(rho0: float, tau_max: float, d: float) -> None:
    """A limit of the iteration as published, which the docstring of `scales` tells: no number of steps is enough."""
    once, again, third = (
        float(tau_of(torch.tensor([10 * d]), rho0=rho0, tau_max=tau_max, iterations=n)) for n in (400, 401, 402)
    )
    assert abs(once - again) > 0.1 and once == pytest.approx(third)


def test_aps_linear_refuses_a_price_that_no_margin_is_worth() -> None:
    """H(p) + ρ₀ − log 2 > 0 at every p. `quadratic` has scales above τ₀ up to ρ₀ = log 2/(2τ₀) = 3.47."""
    refused("aps", "every scale is tau0, as in `dpo` with β/tau0", rho0=LOG2)
    assert tau_of(torch.tensor([300.0]), rho0=LOG2 - 0.01, iterations=100) > 0.1
    assert tau_of(torch.tensor([300.0]), rho0=1.0, regularizer="quadratic") > 0.1


@pytest.mark.parametrize("rho0", [0.05, 0.1, 0.3, 0.5])
def test_aps_quadratic_scale(rho0: float) -> None:
    """τ* = max{τ₀, (log 2 − H(p*))/(2ρ₀)}, at most τ_max."""
    tau = tau_of(GRID, rho0=rho0, regularizer="quadratic", iterations=100)
    closed = ((LOG2 - entropy(0.1 * GRID / tau)) / (2 * rho0)).clamp(0.1, 4)
    torch.testing.assert_close(tau, closed, rtol=1e-9, atol=0)
    assert len(tau.unique()) > 5


@pytest.mark.parametrize("tau_max", [1.0, 4.0, 5.0, 10.0])
@pytest.mark.parametrize(
    ("regularizer", "rho0"),
    [("linear", 0.05), ("linear", 0.1), ("linear", 0.12), ("quadratic", 0.05), ("quadratic", 0.1), ("quadratic", 0.5)],
)
def test_aps_five_newton_steps_are_nearly_enough(regularizer: str, rho0: float, tau_max: float) -> None:
    gaps = torch.linspace(-250, 250, 20001, dtype=torch.float64)
    five = tau_of(gaps, regularizer=regularizer, rho0=rho0, tau_max=tau_max)
    settled = tau_of(gaps, regularizer=regularizer, rho0=rho0, tau_max=tau_max, iterations=100)
    torch.testing.assert_close(five, settled, rtol=0.05, atol=0)


@pytest.mark.parametrize("regularizer", ["linear", "quadratic"])
def test_aps_loss_is_the_minimum_over_scales(regularizer: str) -> None:
    d = (0.1 * GRID)[:, None]
    tau = torch.linspace(0.1, 4, 4001, dtype=torch.float64)
    price = (0.1 - LOG2) * tau if regularizer == "linear" else 0.1 * tau**2 - LOG2 * tau
    grid = (tau * torch.nn.functional.softplus(-d / tau) + price).min(1).values
    ours = loss("aps", rows_of(GRID), regularizer=regularizer, iterations=100)
    torch.testing.assert_close(ours, grid, rtol=0, atol=1e-6)


def test_aps_gradient_is_that_of_the_scaled_margin() -> None:
    """∂L/∂d = −σ(−d/τ*), so β times that for Δ."""
    torch.testing.assert_close(slope("aps", GRID), -0.1 * torch.sigmoid(-0.1 * GRID / tau_of(GRID)))


def test_aps_with_one_scale_is_dpo() -> None:
    fixed = loss("aps", rows_of(GRID), tau0=1.0, tau_max=1.0, rho0=0.3)
    torch.testing.assert_close(fixed, loss("dpo", rows_of(GRID)) + 0.3 - LOG2)


def test_aps_logs_scales() -> None:
    kind = OBJECTIVES.get("aps")
    assert kind.diagnostics is not None
    noted = kind.diagnostics(rows_of([0.0, 400.0, 10.0]), kind.options())
    assert noted["tau_at_min"].tolist() == [1, 0, 0] and noted["tau_at_max"].tolist() == [0, 1, 0]
    assert noted["tau_mean"][:2].tolist() == [0.1, 4] and 1 < float(noted["tau_mean"][2]) < 1.1
    assert torch.equal(noted["tau_square"], noted["tau_mean"].square())
    # Bins are (4 − 0.1)/8 = 0.4875 wide: τ between 1 and 1.1 lies in the second.
    bins = torch.stack([noted[f"tau_bin_{number}"] for number in range(1, 9)])
    assert bins.argmax(0).tolist() == [0, 7, 1] and bins.sum(0).tolist() == [1, 1, 1]
    same = kind.diagnostics(rows_of([0.0, 400.0]), kind.options(tau0=2.0, tau_max=2.0))
    assert same["tau_bin_1"].tolist() == [1, 1]


def test_aps_options() -> None:
    refused("aps", "tau0 5.0 is above tau_max 4.0", tau0=5.0)
    refused("aps", "iterations must be 1", iterations=0)


# -- ROPO --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [2.5, 6.0, 14.0, 30.0])
def test_ropo_weight_is_at_most_1(alpha: float) -> None:
    """The maximum is at σ(h) = (α − 1)/(2α), and is exactly 1."""
    h = torch.linspace(-30, 30, 6001, dtype=torch.float64)
    weight = -slope("ropo", h, alpha=alpha, beta=1.0)
    assert float(weight.max()) <= 1 + 1e-12
    at = torch.logit(torch.tensor([(alpha - 1) / (2 * alpha)], dtype=torch.float64))
    assert float(-slope("ropo", at, alpha=alpha, beta=1.0)) == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize(("alpha", "limit"), [(6.0, 0.49), (14.0, 0.249), (30.0, 0.125)])
def test_ropo_lets_go_of_contradicted_preferences(alpha: float, limit: float) -> None:
    weight = float(-slope("ropo", [-100.0], alpha=alpha, beta=1.0))
    assert weight == pytest.approx(4 * alpha / (1 + alpha) ** 2, rel=1e-12) and weight == pytest.approx(limit, abs=1e-3)


def test_ropo_is_dpo_plus_a_bounded_loss() -> None:
    """The second part is α·σ(−h): 0 ≤ L/factor − DPO ≤ α."""
    rest = loss("ropo", rows_of(GRID)) * 15**2 / 56 - loss("dpo", rows_of(GRID))
    torch.testing.assert_close(rest, 14 * torch.sigmoid(-0.1 * GRID))


class AnyAlpha(ROPOOptions):
    """α below what the paper allows, to look at the limit of the formula."""

    def __post_init__(self) -> None:
        pass


@pytest.mark.parametrize("small", [1e-3, 1e-6])
def test_ropo_without_its_bounded_loss_is_dpo(small: float) -> None:
    """L·(1 + α)²/(4α) = DPO + α·σ(−h), which differs from DPO by α at most."""
    values = ropo(rows_of(GRID), AnyAlpha(alpha=small)) * (1 + small) ** 2 / (4 * small)
    rest = values - loss("dpo", rows_of(GRID))
    assert (rest > 0).all() and (rest <= small).all() and rest.max() > 0.9 * small


@pytest.mark.parametrize("small", [1e-3, 1e-6])
@pytest.mark.parametrize("p", [0.2, 0.7, 1.0])
def test_geometric_ropo_without_its_bounded_loss_is_geometric_dpo(small: float, p: float) -> None:
    """L = α(1 − σ(g)) + γ·GDPO: γ times GDPO up to α, in gradient up to α·β·|2p − 1|/4."""
    settings, rows = {"beta": 0.2, "alpha": small, "gamma": 0.7}, rows_of(GRID, soft=p)
    rest = loss("geometric_ropo", rows, **settings) - 0.7 * loss("geometric_dpo", rows, beta=0.2)
    assert (rest > 0).all() and (rest <= small).all() and rest.max() > 0.9 * small
    pull = slope("geometric_ropo", GRID, soft=p, **settings) - 0.7 * slope("geometric_dpo", GRID, soft=p, beta=0.2)
    assert pull.abs().max() == pytest.approx(small * 0.2 * abs(2 * p - 1) / 4)


def test_ropo_needs_alpha_above_2() -> None:
    refused("ropo", "alpha must be above 2, not 2.0", alpha=2.0)


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


def test_gdpo_gradient_scale() -> None:
    """(2p − 1)·(1 − σ(β(2p − 1)r)) times β."""
    expected = 0.3 * 0.6 * torch.sigmoid(-0.3 * 0.6 * GRID)
    torch.testing.assert_close(-slope("geometric_dpo", GRID, soft=0.8), expected)


@pytest.mark.parametrize("name", ["geometric_dpo", "geometric_ropo"])
def test_a_beta_that_soft_labels_shrink_is_warned_of(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Both scale Δ by β·(2p − 1), which is E[2p − 1] times DPO's β; `geometric_ipo` has a target instead."""
    for beta in (0.3, 0.11):
        OBJECTIVES.get(name).options(beta=beta)
    OBJECTIVES.get("geometric_ipo").options(beta=0.1)
    assert not caplog.records
    OBJECTIVES.get(name).options(beta=0.1)
    assert f"{name}: β 0.1 is not above DPO's 0.1" in caplog.text


def test_geometric_ipo_gradient_scale() -> None:
    """(2p − 1)² of the base's, with the same target; cIPO keeps the scale and moves the target."""
    torch.testing.assert_close(slope("geometric_ipo", GRID, soft=0.75), 0.25 * slope("ipo", GRID))
    torch.testing.assert_close(slope("cipo", GRID, soft=0.75), slope("ipo", GRID + 2.5))


@pytest.mark.parametrize("p", [0.1, 0.4, 0.5, 0.8, 0.99])
def test_cdpo_is_smallest_at_the_logit_of_the_label(p: float) -> None:
    at = math.log(p / (1 - p)) / 0.1
    assert float(slope("cdpo", [at], soft=p)) == pytest.approx(0, abs=1e-15)
    below, above = slope("cdpo", [at - 1, at + 1], soft=p).tolist()
    assert below < 0 < above
    least = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert float(loss("cdpo", rows_of([at], soft=p))) == pytest.approx(least)


@pytest.mark.parametrize("p", [0.1, 0.4, 0.8])
def test_cipo_target(p: float) -> None:
    assert float(loss("cipo", rows_of([(2 * p - 1) / 0.2], soft=p))) == pytest.approx(0, abs=1e-20)
    target = 5.0 if p > 0.5 else -5.0
    assert float(loss("geometric_ipo", rows_of([target], soft=p))) == pytest.approx(0, abs=1e-20)


# -- the standard set --------------------------------------------------------------------------------------------------


def test_robust_dpo_without_flips_is_dpo() -> None:
    assert torch.equal(loss("robust_dpo", rows_of(GRID), flip_rate=0.0), loss("dpo", rows_of(GRID)))


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.45])
def test_robust_dpo_is_unbiased(rate: float) -> None:
    """Its mean over labels flipped at the rate ε is the DPO loss on the clean ones."""
    kept, flipped = (loss("robust_dpo", rows_of(gaps), flip_rate=rate) for gaps in (GRID, -GRID))
    torch.testing.assert_close((1 - rate) * kept + rate * flipped, loss("dpo", rows_of(GRID)))
    refused("robust_dpo", "flip_rate must be 0", flip_rate=0.5)


def test_hinge_opens_at_a_reward_margin_of_1() -> None:
    assert slope("hinge", [-5.0, 9.0, 11.0]).tolist() == [-0.1, -0.1, 0]
    assert loss("hinge", rows_of([10.0]), beta=0.1).tolist() == [0]


def test_dpop_is_dpo_until_the_chosen_response_loses() -> None:
    assert torch.equal(loss("dpop", rows_of(GRID), penalty=0.0), loss("dpo", rows_of(GRID)))
    gained = GRID[GRID >= 0]
    assert torch.equal(loss("dpop", rows_of(gained)), loss("dpo", rows_of(gained)))
    one = loss("dpop", rows_of([5.0], at=-7.0), penalty=3.0)  # ρ(y_w) = −2 is charged 6 of the gap 5
    torch.testing.assert_close(one, loss("dpo", rows_of([-1.0])))
    refused("dpop", "penalty must be", penalty=-1.0)


def sums(chosen: torch.Tensor, rejected: torch.Tensor, tokens: float) -> Logps:
    count = torch.full_like(chosen, tokens)
    return Logps(
        chosen=chosen,
        rejected=rejected,
        chosen_reference=None,
        rejected_reference=None,
        chosen_tokens=count,
        rejected_tokens=count,
    )


def test_cpo_is_dpo_without_reference_plus_the_sft_regularizer() -> None:
    from popmargin.regularizers.base import REGULARIZERS

    chosen, rejected = torch.tensor([-8.0, -1.0]), torch.tensor([-3.0, -20.0])
    rows = Rows(chosen=chosen, rejected=rejected, logps=sums(chosen, rejected, 4.0))
    assert torch.equal(loss("cpo", rows, sft_weight=0.0), loss("dpo", rows))
    sft = REGULARIZERS.get("sft")
    assert rows.logps is not None
    expected = loss("dpo", rows) + 0.5 * sft.function(rows.logps, sft.options())
    torch.testing.assert_close(loss("cpo", rows, sft_weight=0.5), expected)
    refused("cpo", "sft_weight must be", sft_weight=-1.0)


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


def in_trl(trainer: Any, **settings: Any) -> Any:
    """A trainer of TRL without its constructor: only its loss function is wanted."""

    class Accelerator:
        device = torch.device("cpu")

    made = trainer.__new__(trainer)
    vars(made).update(settings, accelerator=Accelerator())
    return made


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_orpo_and_cpo_agree_with_trl() -> None:
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    torch.manual_seed(0)
    chosen, rejected = (-torch.rand(200, dtype=torch.float64) * 6 - 0.01 for _ in range(2))
    theirs = -in_trl(ORPOTrainer, beta=0.7).odds_ratio_loss(chosen.float(), rejected.float())[0]
    ours = loss("orpo", Rows(chosen=chosen.float(), rejected=rejected.float()), beta=0.7) + chosen.float()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)

    settings = {"beta": 0.7, "alpha": 0.0, "loss_type": "sigmoid", "label_smoothing": 0.0}
    theirs = in_trl(CPOTrainer, **settings).cpo_loss(chosen, rejected)[0]
    ours = loss("cpo", Rows(chosen=chosen, rejected=rejected), beta=0.7, sft_weight=0.0)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
