"""The contract that every registered objective keeps.

Nothing of an objective is said here: `test_objective_NAME.py` holds its formula and what is special about it.
"""

import dataclasses
import importlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_cases import Arrays, Contract

from popmargin.errors import ConfigError, DataError
from popmargin.margin import Margin
from popmargin.objectives.base import OBJECTIVES, Logps, Objective, Rows
from popmargin.objectives.rows import COLUMN_KINDS

# Other tests may have registered a user's own.
REGISTERED = {name: OBJECTIVES.get(name) for name in OBJECTIVES.names()}
OWN = {name: kind for name, kind in REGISTERED.items() if kind.function.__module__.startswith("popmargin.objectives.")}
CONTRACTS: dict[str, Contract] = {
    name: importlib.import_module(f"test_objective_{name}").CONTRACT
    for name in OWN
    if Path(__file__).with_name(f"test_objective_{name}.py").is_file()
}
GRADIENTS = ("chosen", "rejected", "weaker_chosen", "weaker_rejected")
TOKENS = ("chosen_tokens", "rejected_tokens")
FIELDS = (*GRADIENTS, "target", "margin", "soft_label", "scale", "stronger_share", "weaker_share", "has_weaker",
          "decoupled")  # fmt: skip
OTHERS = tuple(sorted({name for kind in OWN.values() for name in kind.needs.columns} - {*FIELDS}))
"""Columns of the data without a meaning of their own."""
FIELDS += OTHERS


def build(kind: Objective, values: Mapping[str, Any], dtype: torch.dtype, options: Any, **state: float) -> Rows:
    """Rows with only what the objective needs, as the trainer makes them."""
    needs = kind.needs
    wanted = {"chosen", "rejected", "has_weaker", "stronger_share", "weaker_share"}
    wanted |= set(needs.columns)
    wanted |= {"target"} if needs.weaker == "target" else set()
    wanted |= {"decoupled"} if kind.decoupling_of(options) else set()
    wanted |= {"weaker_chosen", "weaker_rejected"} if needs.weaker == "gradient" else set()
    fields: dict[str, Any] = {}
    for name in wanted & set(values):
        value = values[name]
        tensor = value if isinstance(value, torch.Tensor) else torch.tensor(np.asarray(value, dtype=float), dtype=dtype)
        fields[name] = tensor > 0 if name == "has_weaker" else tensor
    if "target" in fields:
        fields["target"] = Margin(values=fields["target"], unit="nats")
    fields["columns"] = {name: fields.pop(name) for name in needs.columns if name in fields}
    made = kind.init_state(options) if kind.init_state else {}
    made |= {name: torch.tensor(value, dtype=torch.float64) for name, value in state.items()}
    return Rows(**fields, state=made, logps=build_logps(kind, options, values, fields["chosen"], fields["rejected"]))


def build_logps(kind: Objective, options: Any, values: Mapping[str, Any], *scores: torch.Tensor) -> Logps:
    """Sums that give these scores; a reference of log-prob 0 where they are ratios."""
    sums: dict[str, Any] = {}
    for side, score in zip(("chosen", "rejected"), scores, strict=True):
        tokens = torch.as_tensor(np.asarray(values.get(f"{side}_tokens", np.ones(len(score)))), dtype=score.dtype)
        sums[f"{side}_tokens"] = tokens
        sums[side] = score * tokens if kind.score_kind(options).startswith("mean") else score
        sums[f"{side}_reference"] = torch.zeros_like(score) if kind.uses_reference(options) else None
    return Logps(**sums)


def in_domain(kind: Objective, options: Any, values: Arrays) -> Arrays:
    """Log-probs are never positive; ratios may be."""
    if kind.score_kind(options) in ("logp", "mean_logp"):
        return values | {name: -np.abs(values[name]) for name in GRADIENTS}
    return values


def arrays(count: int, *, scale: float = 5.0, seed: int = 0) -> Arrays:
    random = np.random.default_rng(seed)
    values = {name: random.normal(size=count) * scale for name in (*GRADIENTS, "target")}
    values |= {name: random.random(count) for name in ("soft_label", "stronger_share", "weaker_share")}
    values["margin"] = random.normal(size=count)
    values["scale"] = np.abs(random.normal(size=count))
    values["has_weaker"] = (random.random(count) < 0.7).astype(float)
    values |= {name: random.integers(1, 20, count).astype(float) for name in TOKENS}
    values |= {name: random.normal(size=count) for name in OTHERS}
    return values | {"decoupled": random.normal(size=count) * scale}


def all_options(kind: Objective) -> list[Any]:
    return [kind.options(**values) for values in [{}, *CONTRACTS[kind.name].options]]


CASES = [(name, index) for name in CONTRACTS for index in range(len(all_options(OWN[name])))]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request: pytest.FixtureRequest) -> tuple[Objective, Any]:
    name, index = request.param
    return OWN[name], all_options(OWN[name])[index]


def test_every_objective_has_a_file_of_its_own() -> None:
    for name in OWN:
        assert name in CONTRACTS, f"write {Path(__file__).with_name(f'test_objective_{name}.py')} with its CONTRACT"


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
    assert not kind.every_row or (kind.diagnostics is not None and kind.update_state is not None)


@contextmanager
def detached_once(held: list[torch.Tensor]) -> Iterator[None]:
    """What is detached becomes a constant: recorded in the first pass, given back in every further one."""
    detach, first, place = torch.Tensor.detach, not held, iter(range(10**6))

    def constant(tensor: torch.Tensor) -> torch.Tensor:
        if first:
            held.append(detach(tensor))
        return held[next(place)]

    torch.Tensor.detach = constant  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        torch.Tensor.detach = detach


def test_gradients_in_fp64(case: tuple[Objective, Any]) -> None:
    """Numeric differences would see detached margins and scales move, so these are held where they were."""
    kind, options = case
    values: dict[str, Any] = in_domain(kind, options, arrays(5, scale=2.0))
    held: list[torch.Tensor] = []
    names = GRADIENTS if kind.needs.weaker == "gradient" else GRADIENTS[:2]
    inputs = [torch.tensor(values[name], dtype=torch.float64, requires_grad=True) for name in names]

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        rows = build(kind, values | dict(zip(names, tensors, strict=True)), torch.float64, options)
        with detached_once(held):
            return kind.function(rows, options)

    loss(*inputs)
    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_finite_at_extremes(case: tuple[Objective, Any], size: float) -> None:
    kind, options = case
    for name in (*GRADIENTS, "target", "margin", "scale"):
        values: dict[str, Any] = arrays(4, scale=1.0) | {name: np.full(4, size)}
        chosen = torch.tensor(values["chosen"], dtype=torch.float32, requires_grad=True)
        loss = kind.function(build(kind, values | {"chosen": chosen}, torch.float32, options), options)
        loss.sum().backward()
        assert torch.isfinite(loss).all() and chosen.grad is not None and torch.isfinite(chosen.grad).all(), name


def test_one_loss_per_row_in_the_rows_own_place(case: tuple[Objective, Any]) -> None:
    """A batch broadcast into a matrix, or a target of the wrong row, would show here.

    Statistics of the batch may change a loss, and must where they are declared, but carry no gradient between rows.
    """
    kind, options = case
    values: dict[str, Any] = in_domain(kind, options, arrays(7))
    chosen = torch.tensor(values["chosen"], requires_grad=True)
    loss = kind.function(build(kind, values | {"chosen": chosen}, torch.float64, options), options)
    assert loss.shape == (7,) and loss.dtype == torch.float64
    for row in range(7):
        (gradient,) = torch.autograd.grad(loss[row], chosen, retain_graph=True)
        assert torch.count_nonzero(gradient[torch.arange(7) != row]) == 0
    alone = torch.cat([kind.function(only(kind, values, [i], options), options) for i in range(7)])
    if kind.uses_batch_statistics(options):
        assert not torch.allclose(loss, alone)
    else:
        torch.testing.assert_close(loss, alone, rtol=1e-12, atol=0)


def only(kind: Objective, values: Arrays, places: list[int], options: Any) -> Rows:
    return build(kind, {name: value[places] for name, value in values.items()}, torch.float64, options)


def test_two_processes_have_the_losses_of_one(case: tuple[Objective, Any]) -> None:
    kind, options = case
    (parts, whole), gathered = in_two_processes(kind, options, kind.function)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    assert gathered == kind.uses_batch_statistics(options)


def test_two_processes_log_the_figures_of_one(case: tuple[Objective, Any]) -> None:
    """What is taken of all rows, as the statistics and the largest exponent of `amapo`, is the same in both."""
    kind, options = case
    diagnostics = kind.diagnostics
    if diagnostics is not None:
        (parts, whole), _ = in_two_processes(
            kind, options, lambda rows, made: torch.stack(list(diagnostics(rows, made).values()), dim=1)
        )
        torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0, equal_nan=True)  # nan: a row without a value


def in_two_processes(
    kind: Objective, options: Any, function: Callable[[Rows, Any], torch.Tensor]
) -> tuple[tuple[torch.Tensor, torch.Tensor], bool]:
    """Its values of 4 and 3 rows in two threads, whose `gather` waits for both as between processes, and of all 7.

    And whether anything was gathered.
    """
    values, places = in_domain(kind, options, arrays(7)), ([0, 1, 2, 3], [4, 5, 6])
    together = threading.Barrier(2, timeout=30)
    sent: dict[int, torch.Tensor] = {}

    def process(rank: int) -> torch.Tensor:
        def gather(tensor: torch.Tensor) -> torch.Tensor:
            assert not tensor.requires_grad
            sent[rank] = tensor
            together.wait()
            everyone = torch.cat([sent[0], sent[1]])
            together.wait()
            return everyone

        return function(dataclasses.replace(only(kind, values, places[rank], options), gather=gather), options)

    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(process, range(2)))
    whole = function(build(kind, values, torch.float64, options), options)
    return (torch.cat(parts), whole), bool(sent)


def test_order_of_rows_does_not_matter(case: tuple[Objective, Any]) -> None:
    kind, options = case
    values, order = in_domain(kind, options, arrays(9)), np.random.default_rng(1).permutation(9)
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
    value: Any = Margin(values=column, unit="nats") if name == "target" else column
    with pytest.raises(ValueError, match=rf"{name} has shape \(3, 1\), chosen \(3,\)"):
        Rows(**fields | ({"columns": {name: value}} if name in {*COLUMN_KINDS, *OTHERS} else {name: value}))


@pytest.mark.usefixtures("unchecked")
def test_a_matrix_of_scores_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has shape \(3, 1\).*must be \(B,\)"):
        Rows(chosen=torch.zeros(3, 1), rejected=torch.zeros(3, 1))


WANTED = {"none": set[str](), "target": {"target", "has_weaker"}, "gradient": {*GRADIENTS[2:], "has_weaker"}}


def test_what_is_missing_is_refused_by_name(case: tuple[Objective, Any]) -> None:
    """A field that is left out is one that the objective does not read, or that its error names."""
    kind, options = case
    rows = build(kind, in_domain(kind, options, arrays(4)), torch.float64, options)
    whole, refused = kind.function(rows, options), set[str]()
    for name in (*FIELDS[2:], "logps", "state"):
        if name in {*COLUMN_KINDS, *OTHERS}:
            without = rows.with_columns(**{name: None})
        else:
            without = dataclasses.replace(rows, **{name: {} if name == "state" else None})
        try:
            assert torch.equal(kind.function(without, options), whole), name
        except DataError as error:
            assert f"The rows have no {name}" in str(error)
            refused.add(name)
    wanted = {"state"} if rows.state else set[str]()
    wanted |= {"decoupled"} if kind.decoupling_of(options) else set[str]()
    assert {*kind.needs.columns} | WANTED[kind.needs.weaker] | wanted <= refused


BAD = {
    "margin": (
        [math.nan, 0.0, math.inf],
        r"margin must be a finite number\. Wrong in 2 of 3 rows: 0 \(nan\), 2 \(inf\)",
    ),
    "scale": ([1.0, -math.inf, 0.0], r"scale must be a finite number\. Wrong in 1 of 3 rows: 1 \(-inf\)"),
    "soft_label": ([1.7, 1.0, math.nan], r"a probability, 0 to 1\. Wrong in 2 of 3 rows: 0 \(1\.7\), 2 \(nan\)"),
}


@pytest.mark.parametrize(
    ("name", "field"), [(name, field) for name, kind in OWN.items() for field in kind.needs.columns]
)
def test_bad_numbers_of_the_data_are_refused_with_their_rows(name: str, field: str) -> None:
    of_others = ([0.0, math.nan, 1.0], rf"{field} must be a finite number\. Wrong in 1 of 3 rows: 1 \(nan\)")
    kind, (values, message) = OWN[name], BAD.get(field, of_others)
    with pytest.raises(DataError, match=message):
        build(kind, arrays(3) | {field: np.array(values)}, torch.float32, kind.options())


def test_numbers_on_a_device_are_not_waited_for() -> None:
    """Tensors on `meta` have no numbers: looking at them would fail, as it would wait on a GPU."""
    zeros = torch.zeros(3, device="meta")
    columns = dict.fromkeys(["margin", "scale", "soft_label", "weight", "another"], zeros)
    assert Rows(chosen=zeros, rejected=zeros, columns=columns).gap.shape == (3,)


def test_swap_turns_the_gradient_around(case: tuple[Objective, Any]) -> None:
    """Near equality every objective raises the chosen response and, with labels exchanged, lowers it.

    A soft label and a strength turn around with the responses, so that the swapped pair is the same preference: only
    the responses, or only the label, turn its gradient.
    """
    kind, options = case
    values: dict[str, Any] = in_domain(kind, options, arrays(6, scale=0.05))
    values |= {"margin": np.full(6, 0.2), "weaker_share": np.full(6, 0.5), "soft_label": np.full(6, 0.9)}
    chosen = torch.tensor(values["chosen"], requires_grad=True)
    rows = build(kind, values | {"chosen": chosen}, torch.float64, options)
    swapped = rows.swap()
    if kind.needs.soft_label:
        torch.testing.assert_close(kind.function(swapped, options), kind.function(rows, options), rtol=1e-12, atol=0)
        swapped = swapped.with_columns(soft_label=rows.soft_label)
    swapped = swapped.with_columns(scale=rows.columns.get("scale"))
    (before,) = torch.autograd.grad(kind.function(rows, options).sum(), chosen)
    (after,) = torch.autograd.grad(kind.function(swapped, options).sum(), chosen)
    assert (before < 0).all() and (after > 0).all()


def test_swap_twice_is_nothing_and_turns_labels_too() -> None:
    values = {name: torch.from_numpy(value) for name, value in arrays(3).items()}
    rows = Rows(
        chosen=values["chosen"],
        rejected=values["rejected"],
        columns={name: values[name] for name in ("margin", "soft_label", "scale", "stronger_share")},
        logps=Logps(
            chosen=values["chosen"],
            rejected=values["rejected"],
            chosen_reference=values["weaker_chosen"],
            rejected_reference=values["weaker_rejected"],
            chosen_tokens=values["chosen_tokens"],
            rejected_tokens=values["rejected_tokens"],
        ),
    )
    once, twice = rows.swap(), rows.swap().swap()
    assert once.margin is not None and once.soft_label is not None and twice.margin is not None
    torch.testing.assert_close(once.gap, -rows.gap)
    torch.testing.assert_close(once.margin.values, -values["margin"])
    torch.testing.assert_close(once.soft_label, 1 - values["soft_label"])
    assert once.scale is not None
    torch.testing.assert_close(once.scale.values, -values["scale"])
    assert torch.equal(once.column("stronger_share"), values["stronger_share"])  # of either response
    assert once.logps is not None and twice.logps is not None and rows.logps is not None
    for name, other in (("chosen", "rejected"), ("chosen_reference", "rejected_reference"), TOKENS):
        assert torch.equal(getattr(once.logps, name), getattr(rows.logps, other)), name
        assert torch.equal(getattr(once.logps, other), getattr(rows.logps, name)), other
    assert torch.equal(twice.logps.chosen, rows.logps.chosen)
    torch.testing.assert_close(twice.gap, rows.gap)
    torch.testing.assert_close(twice.margin.values, values["margin"])


def exact(low: float, high: float) -> st.SearchStrategy[float]:
    """Multiples of 1/64, so that gaps are exact in fp32 and only the loss itself is measured."""
    return st.integers(int(low * 64), int(high * 64)).map(lambda number: number / 64)


ROW = st.fixed_dictionaries({
    **{name: exact(-64, 64) for name in (*GRADIENTS, "target")},
    "margin": exact(-4, 4),
    "scale": exact(0, 4),
    "soft_label": exact(0, 1),
    "stronger_share": exact(0, 4),
    "weaker_share": exact(0, 4),
    "decoupled": exact(-64, 64),
    "has_weaker": st.sampled_from([0.0, 1.0]),
    **{name: st.integers(1, 64).map(float) for name in TOKENS},
    **{name: exact(-4, 4) for name in OTHERS},
})  # fmt: skip


def check_formula(name: str, drawn: list[dict[str, float]], which: int) -> None:
    kind = OWN[name]
    options = all_options(kind)[which % len(all_options(kind))]
    values = in_domain(kind, options, {name: np.array([row[name] for row in drawn]) for name in (*FIELDS, *TOKENS)})
    loss = kind.function(build(kind, values, torch.float32, options), options)
    expected = CONTRACTS[name].formula(values, options)
    error = np.abs(loss.double().numpy() - expected) / np.maximum(1.0, np.abs(expected))
    assert loss.shape == (len(drawn),) and error.max() <= 1e-6
    if not CONTRACTS[name].may_be_negative:
        assert (loss >= 0).all()


quick = settings(max_examples=15, derandomize=True)  # 1,000 in the slow suite
many = settings(max_examples=1000)


@pytest.mark.parametrize("name", list(CONTRACTS))
@quick
@given(drawn=st.lists(ROW, min_size=1, max_size=6), which=st.integers(0, 7))
def test_agrees_with_numpy(name: str, drawn: list[dict[str, float]], which: int) -> None:
    check_formula(name, drawn, which)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CONTRACTS))
@many
@given(drawn=st.lists(ROW, min_size=1, max_size=6), which=st.integers(0, 7))
def test_agrees_with_numpy_on_many(name: str, drawn: list[dict[str, float]], which: int) -> None:
    check_formula(name, drawn, which)


@pytest.mark.parametrize("name", [name for name in CONTRACTS if not CONTRACTS[name].finite_target])
@quick
@given(row=ROW, more=exact(0.25, 16))
def test_a_larger_gap_never_costs_more(name: str, row: dict[str, float], more: float) -> None:
    """Each row by itself, and with a label that does not favour the other response."""
    kind = OWN[name]
    options = kind.options()
    values = in_domain(kind, options, {name: np.array([value]) for name, value in row.items()})
    values["soft_label"] = np.maximum(values["soft_label"], 1 - values["soft_label"])
    lowered = values | {"chosen": values["chosen"] - more}
    low, high = (float(kind.function(build(kind, v, torch.float64, options), options)) for v in (lowered, values))
    assert high <= low


@pytest.mark.parametrize("name", list(OWN))
def test_bad_options_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"objective '{name}' has no option 'betta'. Did you mean 'beta'"):
        OWN[name].make_options({"betta": 1})
    with pytest.raises(ConfigError, match=r"beta.*-1"):
        OWN[name].make_options({"beta": -1})
    with pytest.raises(ConfigError, match="beta"):
        OWN[name].make_options({"beta": "much"})
