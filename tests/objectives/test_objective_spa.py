"""`spa`: its formula in NumPy, the noise detector, and the method note's golden values."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_cases import GRID, Contract, gaps, loss, nls, refused, rows_of

from popmargin import losses
from popmargin.errors import DataError
from popmargin.objectives.base import OBJECTIVES, Rows
from popmargin.objectives.spa import SPAOptions, threshold_of

CONTRACT = Contract(  # nothing is suspected before the window is full; what is, is tried below
    formula=lambda rows, o: nls(o.beta * gaps(rows)[0]),
    options=({"beta": 0.5, "decoupling": 0.0}, {"alpha": 0.5, "window": 20, "warm_share": 0.0}),
)
KIND = OBJECTIVES.get("spa")


def at(threshold: float) -> dict[str, torch.Tensor]:
    return {"threshold": torch.tensor(threshold, dtype=torch.float64)}


@pytest.mark.parametrize(
    ("gap", "z", "value", "slope"),
    [
        (5.0, 1, 0.4740769842, -0.3775406688),
        (5.0, 0, 0.5240769842, -0.2775406688),
        (-3.0, 0, 0.8243552445, -0.4744425168),
    ],
)
def test_golden_values_of_the_note(gap: float, z: int, value: float, slope: float) -> None:
    """L and dL/dh = dL/dΔ / β, for α = β = 0.1."""
    leaf = torch.tensor([gap], dtype=torch.float64, requires_grad=True)
    threshold = at(0.1 * gap + (0.01 if z == 0 else -0.01))
    found = loss("spa", rows_of(leaf, state=threshold), decoupling=0.0)
    (gradient,) = torch.autograd.grad(found.sum(), leaf)
    assert found.item() == pytest.approx(value, abs=5e-11)
    assert gradient.item() / 0.1 == pytest.approx(slope, abs=5e-11)


@settings(max_examples=200, derandomize=True)
@given(
    pairs=st.lists(st.tuples(st.floats(-60, 60), st.floats(-60, 60)), min_size=1, max_size=6),
    alpha=st.floats(0, 0.5),
    threshold=st.floats(-6, 6) | st.just(float("nan")),
    progress=st.sampled_from([0.0, 0.19, 0.2, 0.7, 1.0]),
)
def test_suspected_rows_are_smoothed_after_the_warm_share(
    pairs: list[tuple[float, float]], alpha: float, threshold: float, progress: float
) -> None:
    delta, decoupled = np.array(pairs).T
    rows = rows_of(torch.tensor(delta), decoupled=torch.tensor(decoupled), state=at(threshold), progress=progress)
    z = np.array([not 0.1 * value <= threshold for value in decoupled], dtype=float)
    s = (alpha if progress >= 0.2 else 0.0) * (1 - z)
    expected = (1 - s) * nls(0.1 * delta) + s * nls(-0.1 * delta)
    np.testing.assert_allclose(loss("spa", rows, alpha=alpha).numpy(), expected, rtol=1e-12)
    assert KIND.diagnostics is not None
    noted = KIND.diagnostics(rows, SPAOptions(alpha=alpha))
    assert noted["suspected"].tolist() == (1 - z).tolist()
    assert noted["signs_agree"].tolist() == (np.sign(delta) == np.sign(decoupled)).tolist()
    np.testing.assert_allclose(noted["decoupled_margin"].numpy(), 0.1 * decoupled)


@pytest.mark.parametrize(
    "more",
    [
        {"state": at(-100.0)},  # z = 1 everywhere
        {"state": at(float("nan"))},  # the window is not full
        {"state": at(100.0), "alpha": 0.0},
        {"state": at(100.0), "progress": 0.19},  # the first fifth
    ],
)
@pytest.mark.parametrize("decoupling", [0.0, 0.5])
def test_nothing_smoothed_is_dpo_to_the_last_bit(more: dict[str, Any], decoupling: float) -> None:
    options = {"decoupling": decoupling} | {name: more[name] for name in ("alpha",) if name in more}
    fields = {name: more[name] for name in ("state", "progress") if name in more}
    for dtype in (torch.float32, torch.float64):
        chosen = GRID.to(dtype).requires_grad_()
        base = Rows(chosen=chosen, rejected=torch.zeros_like(chosen))
        mine, dpo = loss("spa", replace(base, decoupled=-chosen.detach(), **fields), **options), loss("dpo", base)
        assert torch.equal(mine, dpo) and mine.dtype == dtype
        slopes = [torch.autograd.grad(value.sum(), chosen)[0] for value in (mine, dpo)]
        assert torch.equal(*slopes)


def test_half_smoothed_everywhere_is_cdpo_of_undecided_labels() -> None:
    grid = GRID.clone().requires_grad_()
    mine = loss("spa", rows_of(grid, state=at(100.0)), alpha=0.5, decoupling=0.0)
    theirs = loss("cdpo", rows_of(grid, soft=0.5))
    assert torch.equal(mine, theirs)
    slopes = [torch.autograd.grad(value.sum(), grid)[0] for value in (mine, theirs)]
    assert torch.equal(*slopes) and slopes[0][GRID == 0].tolist() == [0.0]


def test_without_decoupling_the_detector_sees_h() -> None:
    """Δ̃ is not looked at, and no gradient goes through the detector."""
    leaf = torch.tensor([4.0, -4.0], dtype=torch.float64, requires_grad=True)
    assert KIND.diagnostics is not None
    rows = rows_of(leaf, state=at(0.0))
    noted = KIND.diagnostics(rows, SPAOptions(decoupling=0.0))
    assert noted["decoupled_margin"].tolist() == [0.4, -0.4] and not noted["decoupled_margin"].requires_grad
    assert noted["suspected"].tolist() == [0.0, 1.0]
    with pytest.raises(DataError, match="The rows have no decoupled, which this objective needs"):
        loss("spa", rows)


def test_as_a_function_on_tensors() -> None:
    """Δ̃ is asked for by name unless λ = 0."""
    chosen, rejected = torch.tensor([5.0]), torch.tensor([0.0])
    with pytest.raises(DataError, match=r"losses\.spa needs decoupled, gaps chosen"):
        losses.spa(chosen, rejected)
    found = losses.spa(chosen, rejected, decoupled=torch.tensor([3.0]), state={"threshold": 0.4})
    assert found.item() == pytest.approx(0.5240769842)
    assert losses.spa(chosen, rejected, decoupling=0.0).item() == pytest.approx(0.4740769842)


# -- the threshold -----------------------------------------------------------------------------------------------------


@settings(max_examples=200, derandomize=True)
@given(
    values=st.lists(st.integers(-3, 3).map(float) | st.floats(-5, 5), min_size=1, max_size=60),
    quantile=st.floats(0.01, 0.99),
)
def test_the_threshold_suspects_as_many_as_it_may_and_no_more(values: list[float], quantile: float) -> None:
    margins = torch.tensor(values, dtype=torch.float64)
    found = threshold_of(margins, quantile)
    share = [sum(value <= candidate for value in values) / len(values) for candidate in values]
    allowed = [value for value, part in zip(values, share, strict=True) if part * len(values) <= quantile * len(values)]
    if allowed:
        assert found.item() == max(allowed)
    else:
        assert found.isnan()


def test_the_threshold_of_a_full_window() -> None:
    """256 different values: 25 of them are 9.8%, 26 would be 10.2%."""
    margins = torch.randperm(256, generator=torch.Generator().manual_seed(0)).double()
    assert threshold_of(margins, 0.1).item() == 24.0


def follow(steps: list[list[float]], **options: Any) -> dict[str, torch.Tensor]:
    made = SPAOptions(**options)
    assert KIND.init_state is not None and KIND.update_state is not None
    state = KIND.init_state(made)
    for step in steps:
        state = KIND.update_state(state, {"decoupled_margin": torch.tensor(step, dtype=torch.float64)}, made)
    return state


def test_ties_of_the_first_step_suspect_neither_all_nor_chance() -> None:
    """With λ = 0 all h̃ of a round's first step are 0, also when these alone fill the window."""
    state = follow([[0.0] * 32] * 8)
    assert len(state["margins"]) == 256 and state["threshold"].isnan()
    rows = rows_of([0.0] * 4, state=state)
    assert torch.equal(loss("spa", rows, decoupling=0.0), loss("dpo", rows))
    moved = follow([[0.0] * 32] * 7 + [[-0.1] * 20 + [0.1] * 12])
    assert moved["threshold"].item() == -0.1  # 20 of 256; the zeros would be most of them


def test_nothing_is_suspected_before_the_window_is_full() -> None:
    random = np.random.default_rng(0)
    steps = [random.normal(size=32).tolist() for _ in range(12)]
    for count in range(8):
        assert follow(steps[:count])["threshold"].isnan(), count
    for count in range(8, 13):
        recent = np.sort(np.concatenate(steps[count - 8 : count]))
        assert follow(steps[:count])["threshold"].item() == recent[24], count


def test_the_window_holds_whole_steps_whatever_the_order_of_their_rows() -> None:
    """Steps of 24 rows: 11 of them are the fewest with 256 rows or more. Order within a step is that of processes."""
    random = np.random.default_rng(1)
    steps = [random.normal(size=24).tolist() for _ in range(20)]
    shuffled = [random.permutation(step).tolist() for step in steps]
    one, other = follow(steps), follow(shuffled)
    assert one["rows_of_steps"].tolist() == [24] * 11
    assert one["threshold"].item() == np.sort(np.concatenate(steps[-11:]))[25]
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_steps_of_all_sizes_pass_through_the_window() -> None:
    """One larger than the window stands alone; an empty one, of rows without a value, changes nothing."""
    options = {"window": 10, "quantile": 0.2}
    assert follow([[1.0] * 9, list(range(30)), []], **options)["threshold"].item() == 5.0
    assert follow([list(range(30)), [100.0]], **options)["rows_of_steps"].tolist() == [30, 1]
    assert len(follow([[1.0] * 9, list(range(30)), [-1.0] * 10], **options)["margins"]) == 10


# -- options -----------------------------------------------------------------------------------------------------------


def test_options_are_checked() -> None:
    refused("spa", "alpha must be 0 to 0.5, not 0.6", alpha=0.6)
    refused("spa", "quantile must be above 0 and below 1, not 1.0", quantile=1.0)
    refused("spa", r"window must hold 1/quantile rows or more \(20\), not 19", window=19, quantile=0.05)
    refused("spa", "decoupling must be a finite number, 0 or more, not -0.5", decoupling=-0.5)
    refused("spa", "warm_share must be 0 to 1, not 1.5", warm_share=1.5)


def test_what_it_requires_depends_on_the_decoupling() -> None:
    assert KIND.requires(SPAOptions()) == {"log_ratio", "decoupled"}
    assert KIND.requires(SPAOptions(decoupling=0.0)) == {"log_ratio"}
