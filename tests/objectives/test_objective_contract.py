"""The contract that every registered objective keeps; a new objective file is tested here without an edit.

The independent formulas at the top are written from the method notes in NumPy; an objective without one there still
passes through every other test.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popmargin.errors import ConfigError
from popmargin.margin import Margin
from popmargin.objectives.base import OBJECTIVES, Objective, Rows

# Other tests may have registered a user's own.
REGISTERED = {name: OBJECTIVES.get(name) for name in OBJECTIVES.names()}
OWN = {name: kind for name, kind in REGISTERED.items() if kind.function.__module__.startswith("popmargin.objectives.")}
Arrays = dict[str, np.ndarray]


def nls(value: np.ndarray) -> np.ndarray:
    """−log σ(value)."""
    return np.logaddexp(0.0, -value)


def gaps(rows: Arrays) -> tuple[np.ndarray, np.ndarray]:
    return rows["chosen"] - rows["rejected"], rows["weaker_chosen"] - rows["weaker_rejected"]


def numpy_pop(rows: Arrays, o: Any) -> np.ndarray:
    margin = np.minimum(np.maximum(rows["target"], o.margin_min), o.margin_max)
    return nls(o.beta * (gaps(rows)[0] - np.where(rows["has_weaker"] > 0, margin, 0.0)))


def numpy_lagrangian(rows: Arrays, o: Any) -> np.ndarray:
    stronger, weaker = gaps(rows)
    both = (nls(o.beta * stronger) + nls(o.beta * weaker)) / 2
    constraint = o.lambda_init * (nls(o.beta * (stronger - weaker)) - math.log(2))
    return np.where(rows["has_weaker"] > 0, both + constraint, nls(o.beta * stronger))


def numpy_rank(rows: Arrays, o: Any) -> np.ndarray:
    stronger, weaker = gaps(rows)
    ranking = np.where(rows["has_weaker"] > 0, nls(o.beta * (stronger - weaker)), 0.0)
    own = rows["stronger_share"] * nls(o.beta * stronger) + rows["weaker_share"] * nls(o.beta * weaker)
    return own + o.rank_weight * ranking


FORMULAS: dict[str, Callable[[Arrays, Any], np.ndarray]] = {
    "dpo": lambda rows, o: nls(o.beta * gaps(rows)[0]),
    "dpo_stronger": lambda rows, o: nls(o.beta * gaps(rows)[0]),
    "dpo_fixed_margin": lambda rows, o: nls(o.beta * gaps(rows)[0] - o.margin),
    "dpo_rating_margin": lambda rows, o: nls(o.beta * gaps(rows)[0] - o.margin_scale * rows["margin"]),
    "ipo": lambda rows, o: (gaps(rows)[0] - 1 / (2 * o.beta)) ** 2,
    "simpo": lambda rows, o: nls(o.beta * gaps(rows)[0] - o.gamma),
    "pop": numpy_pop,
    "simpo_pop": numpy_pop,
    "pop_lagrangian": numpy_lagrangian,
    "pop_rank": numpy_rank,
}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "dpo": [{"beta": 0.5}],
    "dpo_fixed_margin": [{"beta": 0.25, "margin": -0.5}],
    "dpo_rating_margin": [{"margin_scale": 0.25}],
    "ipo": [{"beta": 0.5}, {"length_normalized": True}],
    "simpo": [{"beta": 1.0, "gamma": 0.0}],
    "pop": [{"margin_min": -2.0, "margin_max": 3.0}],
    "pop_lagrangian": [{"lambda_init": 3.0, "beta": 0.5}],
    "pop_rank": [{"rank_weight": 0.0}, {"rank_weight": 2.5}],
}
GRADIENTS = ("chosen", "rejected", "weaker_chosen", "weaker_rejected")
FIELDS = (*GRADIENTS, "target", "margin", "soft_label", "stronger_share", "weaker_share", "has_weaker")


def build(kind: Objective, values: Mapping[str, Any], dtype: torch.dtype, options: Any, **state: float) -> Rows:
    """Rows with only what the objective needs, as the trainer makes them."""
    needs = kind.needs
    wanted = {"chosen", "rejected", "has_weaker", "stronger_share", "weaker_share"}
    wanted |= {"margin"} if needs.margin else set()
    wanted |= {"soft_label"} if needs.soft_label else set()
    wanted |= {"target"} if needs.weaker == "target" else set()
    wanted |= {"weaker_chosen", "weaker_rejected"} if needs.weaker == "gradient" else set()
    fields: dict[str, Any] = {}
    for name in wanted & set(values):
        value = values[name]
        tensor = value if isinstance(value, torch.Tensor) else torch.tensor(np.asarray(value, dtype=float), dtype=dtype)
        fields[name] = tensor > 0 if name == "has_weaker" else tensor
    for name, unit in (("target", "nats"), ("margin", "reward")):
        if name in fields:
            fields[name] = Margin(values=fields[name], unit=unit)
    made = kind.init_state(options) if kind.init_state else {}
    made |= {name: torch.tensor(value, dtype=torch.float64) for name, value in state.items()}
    return Rows(**fields, state=made)


def arrays(count: int, *, scale: float = 5.0, seed: int = 0) -> Arrays:
    random = np.random.default_rng(seed)
    values = {name: random.normal(size=count) * scale for name in (*GRADIENTS, "target")}
    values |= {name: random.random(count) for name in ("soft_label", "stronger_share", "weaker_share")}
    values["margin"] = random.normal(size=count)
    values["has_weaker"] = (random.random(count) < 0.7).astype(float)
    return values


def all_options(kind: Objective) -> list[Any]:
    return [kind.options(**values) for values in [{}, *OPTIONS.get(kind.name, [])]]


CASES = [(name, index) for name in OWN for index in range(len(all_options(OWN[name])))]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request: pytest.FixtureRequest) -> tuple[Objective, Any]:
    name, index = request.param
    return OWN[name], all_options(OWN[name])[index]


@pytest.mark.parametrize("name", list(OWN))
def test_golden_cases(name: str) -> None:
    kind = OWN[name]
    assert kind.golden, f"{name} has no golden case"
    for golden in kind.golden:
        options = kind.make_options(golden.options)
        rows = build(kind, golden.rows, torch.float64, options, **golden.state)
        np.testing.assert_allclose(kind.function(rows, options).numpy(), golden.expected, rtol=1e-12)


@pytest.mark.parametrize("name", list(OWN))
def test_every_objective_says_what_it_is(name: str) -> None:
    kind = OWN[name]
    assert kind.summary.endswith(".") and len(kind.summary) < 120
    parameters = kind.options.__dataclass_params__
    assert parameters.frozen and all(field.kw_only for field in dataclasses.fields(kind.options))
    assert kind.needs.edges or kind.needs.weaker == "none"
    assert (kind.init_state is None) == (kind.update_state is None)


def test_gradients_in_fp64(case: tuple[Objective, Any]) -> None:
    kind, options = case
    values: dict[str, Any] = arrays(5, scale=2.0)
    names = GRADIENTS if kind.needs.weaker == "gradient" else GRADIENTS[:2]
    inputs = [torch.tensor(values[name], dtype=torch.float64, requires_grad=True) for name in names]

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        return kind.function(
            build(kind, values | dict(zip(names, tensors, strict=True)), torch.float64, options), options
        )

    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_finite_at_extremes(case: tuple[Objective, Any], size: float) -> None:
    kind, options = case
    for name in (*GRADIENTS, "target", "margin"):
        values: dict[str, Any] = arrays(4, scale=1.0) | {name: np.full(4, size)}
        chosen = torch.tensor(values["chosen"], dtype=torch.float32, requires_grad=True)
        loss = kind.function(build(kind, values | {"chosen": chosen}, torch.float32, options), options)
        loss.sum().backward()
        assert torch.isfinite(loss).all() and chosen.grad is not None and torch.isfinite(chosen.grad).all(), name


def test_one_loss_per_row_in_the_rows_own_place(case: tuple[Objective, Any]) -> None:
    """A batch broadcast into a matrix, or a target of the wrong row, would show here."""
    kind, options = case
    values = arrays(7)
    rows = build(kind, values, torch.float64, options)
    loss = kind.function(rows, options)
    assert loss.shape == (7,) and loss.dtype == torch.float64
    alone = [
        kind.function(build(kind, {k: v[[i]] for k, v in values.items()}, torch.float64, options), options)
        for i in range(7)
    ]
    torch.testing.assert_close(loss, torch.cat(alone), rtol=1e-12, atol=0)


def test_order_of_rows_does_not_matter(case: tuple[Objective, Any]) -> None:
    kind, options = case
    values, order = arrays(9), np.random.default_rng(1).permutation(9)
    loss = kind.function(build(kind, values, torch.float64, options), options)
    shuffled = kind.function(build(kind, {k: v[order] for k, v in values.items()}, torch.float64, options), options)
    torch.testing.assert_close(shuffled, loss[torch.from_numpy(order)], rtol=1e-12, atol=0)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As users run it: without the type checker of the tests, which would refuse first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", [name for name in FIELDS if name != "chosen"])
def test_columns_are_refused(name: str) -> None:
    fields: dict[str, Any] = {"chosen": torch.zeros(3), "rejected": torch.zeros(3)}
    column = torch.ones(3, 1, dtype=torch.bool) if name == "has_weaker" else torch.ones(3, 1)
    with pytest.raises(ValueError, match=rf"{name} has the shape \(3, 1\), chosen \(3,\)"):
        Rows(**fields | {name: Margin(values=column, unit="nats") if name in ("target", "margin") else column})


@pytest.mark.usefixtures("unchecked")
def test_a_matrix_of_scores_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must have the shape \(B,\), not \(3, 1\)"):
        Rows(chosen=torch.zeros(3, 1), rejected=torch.zeros(3, 1))


def test_swap_turns_the_gradient_around(case: tuple[Objective, Any]) -> None:
    """Near equality every objective raises the chosen response and, with labels exchanged, lowers it."""
    kind, options = case
    values: dict[str, Any] = arrays(6, scale=0.05) | {"margin": np.full(6, 0.2), "weaker_share": np.full(6, 0.5)}
    chosen = torch.tensor(values["chosen"], requires_grad=True)
    rows = build(kind, values | {"chosen": chosen}, torch.float64, options)
    (before,) = torch.autograd.grad(kind.function(rows, options).sum(), chosen)
    (after,) = torch.autograd.grad(kind.function(rows.swap(), options).sum(), chosen)
    assert (before < 0).all() and (after > 0).all()


def test_swap_twice_is_nothing_and_turns_labels_too() -> None:
    values = {name: torch.from_numpy(value) for name, value in arrays(3).items()}
    rows = Rows(
        chosen=values["chosen"],
        rejected=values["rejected"],
        margin=Margin(values=values["margin"], unit="reward"),
        soft_label=values["soft_label"],
    )
    once, twice = rows.swap(), rows.swap().swap()
    assert once.margin is not None and once.soft_label is not None and twice.margin is not None
    torch.testing.assert_close(once.gap, -rows.gap)
    torch.testing.assert_close(once.margin.values, -values["margin"])
    torch.testing.assert_close(once.soft_label, 1 - values["soft_label"])
    torch.testing.assert_close(twice.gap, rows.gap)
    torch.testing.assert_close(twice.margin.values, values["margin"])


def exact(low: float, high: float) -> st.SearchStrategy[float]:
    """Multiples of 1/64, so that gaps are exact in fp32 and only the loss itself is measured."""
    return st.integers(int(low * 64), int(high * 64)).map(lambda number: number / 64)


ROW = st.fixed_dictionaries({
    **{name: exact(-64, 64) for name in (*GRADIENTS, "target")},
    "margin": exact(-4, 4),
    "soft_label": exact(0, 1),
    "stronger_share": exact(0, 4),
    "weaker_share": exact(0, 4),
    "has_weaker": st.sampled_from([0.0, 1.0]),
})  # fmt: skip


def check_formula(name: str, drawn: list[dict[str, float]], which: int) -> None:
    kind = OWN[name]
    options = all_options(kind)[which % len(all_options(kind))]
    values = {field: np.array([row[field] for row in drawn]) for field in FIELDS}
    loss = kind.function(build(kind, values, torch.float32, options), options)
    expected = FORMULAS[name](values, options)
    error = np.abs(loss.double().numpy() - expected) / np.maximum(1.0, np.abs(expected))
    assert loss.shape == (len(drawn),) and error.max() <= 1e-6
    if name != "ipo" and name != "pop_lagrangian":
        assert (loss >= 0).all()


quick = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
many = settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("name", [name for name in OWN if name in FORMULAS])
@quick
@given(drawn=st.lists(ROW, min_size=1, max_size=6), which=st.integers(0, 7))
def test_agrees_with_numpy(name: str, drawn: list[dict[str, float]], which: int) -> None:
    check_formula(name, drawn, which)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OWN if name in FORMULAS])
@many
@given(drawn=st.lists(ROW, min_size=1, max_size=6), which=st.integers(0, 7))
def test_agrees_with_numpy_on_many(name: str, drawn: list[dict[str, float]], which: int) -> None:
    check_formula(name, drawn, which)


@pytest.mark.parametrize("name", [name for name in OWN if name not in ("ipo",)])
@quick
@given(row=ROW, more=exact(0.25, 16))
def test_a_larger_gap_never_costs_more(name: str, row: dict[str, float], more: float) -> None:
    kind = OWN[name]
    options = kind.options()
    raised = row | {"chosen": row["chosen"] + more}
    values = {field: np.array([row[field], raised[field]]) for field in FIELDS}
    low, high = kind.function(build(kind, values, torch.float64, options), options).tolist()
    assert high <= low


@pytest.mark.parametrize("name", list(OWN))
def test_bad_options_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"objective '{name}' has no option 'betta'. Did you mean 'beta'"):
        OWN[name].make_options({"betta": 1})
    with pytest.raises(ConfigError, match=r"beta.*-1"):
        OWN[name].make_options({"beta": -1})
    with pytest.raises(ConfigError, match="beta"):
        OWN[name].make_options({"beta": "much"})
