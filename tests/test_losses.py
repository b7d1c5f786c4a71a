"""The flat functions on tensors: the registered objectives, with their options, on whatever scores a user has."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from popmargin import Rows, losses, objective
from popmargin.errors import ConfigError, DataError
from popmargin.margin import Margin
from popmargin.objectives.base import OBJECTIVES, Golden, Objective
from popmargin.objectives.rows import Logps

NAMES = OBJECTIVES.names()
GOLDEN = [(OBJECTIVES.get(name), golden) for name in NAMES for golden in OBJECTIVES.get(name).golden]


def arguments(entry: Objective, golden: Golden) -> dict[str, Any]:
    """A golden case as the arguments of the flat function."""
    values: dict[str, Any] = {name: torch.tensor(value) for name, value in golden.rows.items()}
    if "has_weaker" in values:
        values["has_weaker"] = values["has_weaker"].bool()
    if entry.score_kind(entry.make_options(golden.options)).startswith("mean_") and "chosen_tokens" in values:
        for side in ("chosen", "rejected"):  # its scores are means already; with counts, sums are taken
            values[side] = values[side] * values[f"{side}_tokens"]
    if "chosen_tokens" in values and "rejected_tokens" not in values:
        values["rejected_tokens"] = torch.ones_like(values["chosen_tokens"])
    if golden.state:
        values["state"] = dict(golden.state)
    return values | dict(golden.options)


@pytest.mark.parametrize(("entry", "golden"), GOLDEN, ids=lambda part: getattr(part, "name", ""))
def test_every_golden_case_is_the_flat_functions_too(entry: Objective, golden: Golden) -> None:
    values = arguments(entry, golden)
    taken = inspect.signature(getattr(losses, entry.name)).parameters
    values = {name: value for name, value in values.items() if name in taken}  # shares that a control does not read
    got = getattr(losses, entry.name)(**values)
    torch.testing.assert_close(got, torch.tensor(golden.expected, dtype=got.dtype), rtol=1e-5, atol=1e-6)
    mean = getattr(losses, entry.name)(**values, reduction="mean")
    torch.testing.assert_close(mean, got.mean())


@pytest.mark.parametrize("name", NAMES)
def test_gradients_flow_to_both_scores(name: str) -> None:
    entry = OBJECTIVES.get(name)
    chosen, rejected = (torch.tensor(values, requires_grad=True) for values in ([0.3, -1.0, 0.4], [-0.2, 0.5, 0.1]))
    given = {"soft_label": [0.8, 0.7, 0.6], "margin": [1.0, 0.5, 0.0], "scale": [0.1, 0.5, 1.0],
             "target": [1.0, 0.5, 2.0], "decoupled": [0.6, -1.4, 0.4],
             "chosen_tokens": [3, 4, 5], "rejected_tokens": [3, 4, 5],
             "weaker_chosen": [0.1, 0.2, 0.3], "weaker_rejected": [0.0, 0.1, 0.9]}  # fmt: skip
    needed = [
        parameter.name
        for parameter in inspect.signature(getattr(losses, name)).parameters.values()
        if parameter.default is parameter.empty and parameter.name not in ("chosen", "rejected")
    ]
    inputs = {key: torch.tensor(given[key]) for key in needed}
    losses_B = getattr(losses, name)(chosen, rejected, **inputs)
    assert losses_B.shape == (3,) and entry.summary in (getattr(losses, name).__doc__ or "")
    losses_B.sum().backward()
    assert chosen.grad is not None and rejected.grad is not None
    assert chosen.grad.abs().sum() > 0 and rejected.grad.abs().sum() > 0


def test_names_complete_and_a_wrong_one_is_corrected() -> None:
    assert dir(losses) == NAMES
    with pytest.raises(AttributeError, match=r"has no loss 'dppo'\. Did you mean 'dpop'|Did you mean 'dpo'"):
        _ = losses.dppo


def test_an_objective_of_ones_own_is_there_too() -> None:
    before = {name: OBJECTIVES.get(name) for name in OBJECTIVES.names()}
    try:
        options = type(OBJECTIVES.get("hinge").make_options({}))

        @objective("my_square", options=options, score="log_ratio", origin="ours")
        def square(rows: Rows, own: Any) -> Tensor:
            """The square of what lacks to a reward margin of 1."""
            return (1 - own.beta * rows.gap).relu().square()

        assert "my_square" in dir(losses)
        got = losses.my_square(torch.tensor([5.0]), torch.tensor([0.0]), beta=0.1)
        assert got.tolist() == pytest.approx([0.25])
    finally:
        OBJECTIVES._entries = before


def log_probs() -> dict[str, Tensor]:
    return {
        "chosen": torch.tensor([-10.0, -20.0]),
        "rejected": torch.tensor([-12.0, -15.0]),
        "reference_chosen": torch.tensor([-11.0, -18.0]),
        "reference_rejected": torch.tensor([-11.5, -16.0]),
    }


def test_log_probs_with_those_of_the_reference_are_log_ratios() -> None:
    sums = log_probs()
    ratios = {side: sums[side] - sums[f"reference_{side}"] for side in ("chosen", "rejected")}
    torch.testing.assert_close(losses.dpo(**sums, beta=0.3), losses.dpo(**ratios, beta=0.3))


def test_means_are_made_of_sums_and_token_counts() -> None:
    """(−10/5) − (−12/4) = 1 and (−20/10) − (−15/5) = 1: β·1 − γ = 1 gives log(1 + e⁻¹)."""
    sums = {name: value for name, value in log_probs().items() if not name.startswith("reference")}
    tokens = {"chosen_tokens": torch.tensor([5, 10]), "rejected_tokens": torch.tensor([4, 5])}
    got = losses.simpo(**sums, **tokens, beta=2.0, gamma=1.0)
    assert got.tolist() == pytest.approx([0.31326168751822286] * 2)
    torch.testing.assert_close(
        got, losses.simpo(torch.tensor([-2.0, -2.0]), torch.tensor([-3.0, -3.0]), beta=2.0, gamma=1.0)
    )


def test_ipo_on_sums_is_its_length_normalized_form() -> None:
    """Δ = (1/5 − −0.5/4, −2/10 − 1/5) = (0.325, −0.4), ½/β = 1."""
    tokens = {"chosen_tokens": torch.tensor([5, 10]), "rejected_tokens": torch.tensor([4, 5])}
    got = losses.ipo(**log_probs(), **tokens, beta=0.5, length_normalized=True)
    assert got.tolist() == pytest.approx([(0.325 - 1) ** 2, (-0.4 - 1) ** 2], rel=1e-5)


def test_cpo_reads_the_token_counts() -> None:
    """log 2 at equal scores, plus 8/4 nats a token."""
    same = torch.tensor([-8.0])
    got = losses.cpo(same, same, chosen_tokens=torch.tensor([4]), rejected_tokens=torch.tensor([4]))
    assert got.tolist() == pytest.approx([0.6931471805599453 + 2.0])
    with pytest.raises(DataError, match=r"losses\.cpo needs chosen_tokens, token counts .*; rejected_tokens, the same"):
        losses.cpo(same, same)
    taken = inspect.signature(losses.cpo).parameters
    assert taken["chosen_tokens"].default is taken["rejected_tokens"].default is inspect.Parameter.empty
    assert losses.cpo(same, same, sft_weight=0.0).tolist() == pytest.approx([0.6931471805599453])


@pytest.mark.parametrize(("name", "unit"), [("pop", "nats,"), ("simpo_pop", "nats per token, even where")])
def test_the_target_is_in_the_unit_of_the_scores(name: str, unit: str) -> None:
    """−1 − (−2) = 1 nat a token, and a target of 1 nat a token: log 2, also of the sums −5 and −8."""
    (line,) = [line for line in inspect.getdoc(getattr(losses, name)).splitlines() if "target: " in line]  # type: ignore[union-attr]
    assert f"(B,), {unit}" in line
    if name == "simpo_pop":
        sums = [torch.tensor([value]) for value in (-5.0, -8.0)]
        tokens = {"chosen_tokens": torch.tensor([5]), "rejected_tokens": torch.tensor([4])}
        assert losses.simpo_pop(*sums, **tokens, target=torch.ones(1)).tolist() == pytest.approx([0.6931471805599453])


def test_the_target_of_pop_gets_no_gradient() -> None:
    target = torch.tensor([1.0], requires_grad=True)
    loss = losses.pop(torch.tensor([1.0], requires_grad=True), torch.tensor([0.0]), target=target)
    loss.sum().backward()
    assert target.grad is None


def test_a_weighted_mean() -> None:
    chosen, rejected = torch.tensor([0.0, 10.0]), torch.tensor([0.0, 0.0])
    got = losses.dpo(chosen, rejected, weight=torch.tensor([3.0, 1.0]), reduction="mean")
    assert float(got) == pytest.approx((3 * 0.6931471805599453 + 0.31326168751822286) / 4)


ONE, TWO = torch.zeros(1), torch.zeros(2)
WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "option": (lambda: losses.dpo(ONE, ONE, bta=1.0), ConfigError, "takes no 'bta'. Did you mean 'beta'"),
    "value": (lambda: losses.dpo(ONE, ONE, beta=-1.0), ConfigError, "beta must be a finite number above 0"),
    "column": (lambda: losses.dpo_rating_margin(ONE, ONE), DataError, "needs margin, by how much chosen is to lead"),
    "target": (lambda: losses.pop(ONE, ONE), DataError, "needs target, the weaker sides' gaps"),
    "shape": (lambda: losses.dpo(ONE, TWO), DataError, r"here chosen \(1,\), rejected \(2,\)"),
    "matrix": (lambda: losses.dpo(TWO[:, None], TWO[:, None]), DataError, r"here chosen \(2, 1\)"),
    "list": (lambda: losses.dpo(ONE, [0.0]), DataError, "rejected is a list; it must be a tensor"),  # pyright: ignore[reportArgumentType]
    "half": (lambda: losses.dpo(ONE, ONE, reference_chosen=ONE), DataError, "come together, or neither does"),
    "mean": (
        lambda: losses.ipo(ONE, ONE, chosen_tokens=ONE + 1, rejected_tokens=ONE + 1, length_normalized=True),
        DataError,
        "with both reference and tokens",
    ),
    "reduction": (lambda: losses.dpo(ONE, ONE, reduction="sum"), ConfigError, "reduction is 'none' or 'mean'"),  # pyright: ignore[reportArgumentType]
    "has_weaker": (lambda: losses.pop(ONE, ONE, target=ONE, has_weaker=ONE), DataError, "has_weaker is torch.float32"),
    "tokens": (lambda: losses.simpo(ONE, ONE, chosen_tokens=-ONE, rejected_tokens=ONE), DataError, "each above 0"),
    "label": (lambda: losses.cdpo(ONE, ONE, soft_label=ONE + 2), DataError, "a probability, 0 to 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_get_a_sentence(case: str) -> None:
    call, kind, words = WRONG[case]
    with pytest.raises(kind, match=words):
        call()


def test_what_a_loss_gets_is_what_the_objective_gets() -> None:
    """All inputs at once, against `Rows` made by hand."""
    sums, margin = log_probs(), torch.tensor([0.5, 1.0])
    tokens = torch.tensor([4.0, 5.0])
    entry = OBJECTIVES.get("dpo_rating_margin")
    logps = Logps(chosen=sums["chosen"], rejected=sums["rejected"], chosen_reference=sums["reference_chosen"],
                  rejected_reference=sums["reference_rejected"], chosen_tokens=tokens,
                  rejected_tokens=tokens)  # fmt: skip
    rows = Rows(chosen=torch.tensor([1.0, -2.0]), rejected=torch.tensor([-0.5, 1.0]), columns={"margin": margin},
                logps=logps)  # fmt: skip
    expected = entry.function(rows, entry.make_options({"beta": 0.2}))
    got = losses.dpo_rating_margin(**sums, margin=margin, chosen_tokens=tokens, rejected_tokens=tokens, beta=0.2)
    torch.testing.assert_close(got, expected)
    turned = replace(rows, target=Margin(values=margin, unit="nats"), has_weaker=torch.tensor([True, False]))
    pop = OBJECTIVES.get("pop")
    torch.testing.assert_close(
        losses.pop(**sums, target=margin, has_weaker=torch.tensor([True, False])),
        pop.function(turned, pop.make_options({})),
    )


def test_the_mean_of_rows_without_weight_is_0() -> None:
    chosen = torch.ones(2, requires_grad=True)
    loss = losses.dpo(chosen, -torch.ones(2), weight=torch.zeros(2), reduction="mean")
    loss.backward()
    assert loss.item() == 0 and chosen.grad is not None and chosen.grad.tolist() == [0.0, 0.0]
