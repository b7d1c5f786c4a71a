"""The budget for the chosen response."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from few_fast import few_fast
from popmargin.config import RunConfig
from popmargin.files import read_jsonl
from popmargin.objectives.base import OBJECTIVES, Logps, Rows
from popmargin.regularizers.base import REGULARIZERS
from popmargin.regularizers.budget import BudgetOptions, budget
from popmargin.training.build import make_loss
from popmargin.training.run import train


def logps_of(chosen: list[float], *, tokens: float = 1.0, reference: float = -10.0) -> Logps:
    values = torch.tensor(chosen, dtype=torch.float64, requires_grad=True)
    same = torch.full_like(values, reference).detach()
    count = torch.full_like(same, tokens)
    return Logps(
        chosen=values,
        rejected=same,
        chosen_reference=same,
        rejected_reference=same,
        chosen_tokens=count,
        rejected_tokens=count,
    )


def test_only_what_exceeds_the_budget_is_charged() -> None:
    """From −10 nats: a gain, nothing, a loss within the budget of 3, and one of 7 beyond which 4 are charged."""
    logps = logps_of([-8.0, -10.0, -12.5, -17.0])
    term = budget(logps, BudgetOptions(budget=3.0, beta=0.5))
    assert term.tolist() == [0, 0, 0, 2]
    term.sum().backward()
    assert logps.chosen.grad is not None and logps.chosen.grad.tolist() == [0, 0, 0, -0.5]


def test_per_token() -> None:
    """A loss of 6 nats over 4 tokens is 1.5 a token, 0.5 above the budget."""
    logps = logps_of([-16.0, -13.0], tokens=4.0)
    assert budget(logps, BudgetOptions(budget=1.0, per_token=True, beta=2.0)).tolist() == [1, 0]
    assert budget(logps, BudgetOptions(budget=1.0, beta=2.0)).tolist() == [10, 4]


def test_a_budget_of_0_is_the_hinge_of_dpo_positive() -> None:
    """Inside the sigmoid, λ times the same hinge: DPOP at gap Δ is DPO at Δ − λ·R/β."""
    logps = logps_of([-7.0, -12.0, -30.0])
    assert logps.chosen_reference is not None
    rows = Rows(chosen=logps.chosen - logps.chosen_reference, rejected=torch.zeros(3, dtype=torch.float64))
    dpop, dpo = OBJECTIVES.get("dpop"), OBJECTIVES.get("dpo")
    term = budget(logps, BudgetOptions(budget=0.0, beta=0.1))
    charged = Rows(chosen=rows.chosen - 5.0 * term / 0.1, rejected=rows.rejected)
    torch.testing.assert_close(
        dpop.function(rows, dpop.options(penalty=5.0)), dpo.function(charged, dpo.options()), rtol=1e-12, atol=0
    )
    assert term.tolist() == pytest.approx([0, 0.2, 2.0])


def test_an_endless_budget_is_none() -> None:
    logps = logps_of([-1e4, 0.0])
    term = budget(logps, BudgetOptions(budget=math.inf))
    term.sum().backward()
    assert logps.chosen.grad is not None and term.tolist() == logps.chosen.grad.tolist() == [0, 0]


def test_what_is_logged() -> None:
    kind = REGULARIZERS.get("budget")
    assert kind.diagnostics is not None and kind.reference
    noted = kind.diagnostics(logps_of([-8.0, -12.0, -17.0]), kind.options(budget=3.0))
    assert noted["budget_lost"].tolist() == [-2, 2, 7] and noted["budget_exceeded"].tolist() == [0, 0, 1]


def test_options() -> None:
    for values, message in (({"budget": -1.0}, "budget must be 0"), ({"beta": 0.0}, "beta must be")):
        with pytest.raises(ValueError, match=message):
            BudgetOptions(**values)
    with pytest.raises(ValueError, match="budget must be 0"):
        BudgetOptions(budget=math.nan)


DOWN = """
from dataclasses import dataclass

from popmargin import regularizer


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    pass


@regularizer("down", options=NoOptions, reference=False)
def down(logps, options):
    return logps.chosen / logps.chosen_tokens
"""


@pytest.mark.parametrize(("objective", "budget_nats"), few_fast([("dpo", 2.0), ("simpo", 0.1)], (0,)))
def test_it_holds_the_chosen_response_in_training(
    tmp_path: Path, configure: Callable[..., RunConfig], objective: str, budget_nats: float
) -> None:
    """Against a term that pushes its likelihood down, whatever the objective."""
    (tmp_path / "down.py").write_text(DOWN.replace('"down"', f'"down_{objective}"'))  # two files, two names
    train_settings = {"max_steps": 12, "batch_size": 32, "learning_rate": 1e-2}
    down = {"name": f"{tmp_path / 'down.py'}:down"}
    hold = {"name": "budget", "budget": budget_nats, "beta": 1.0, "weight": 10}
    last: list[float] = []
    for terms in ([down], [down, hold]):
        values = {"objective": {"name": objective}, "train": train_settings, "regularizers": terms}
        run, _ = train(configure(values, {"output": str(tmp_path / str(len(terms)))}))
        lines = read_jsonl(run.path / "metrics.jsonl")
        last.append(lines[-1]["chosen_logps"] - lines[0]["chosen_logps"])
    assert last[0] < -30 < -10 < last[1]


@pytest.mark.parametrize(
    ("objective", "per_token"), [("dpo", False), ("pop", False), ("simpo", True), ("amapo", True), ("orpo", True)]
)
def test_a_run_measures_in_the_units_of_its_objective(
    configure: Callable[..., RunConfig], objective: str, per_token: bool
) -> None:
    """SimPO's β belongs to nats per token: by whole responses the budget would outweigh the loss many times over."""
    config = configure({"objective": {"name": objective}, "regularizers": [{"name": "budget"}]})
    ((_, _, options),) = make_loss(config).regularizers
    assert isinstance(options, BudgetOptions) and options.per_token == per_token
    ours = configure({"objective": {"name": objective}, "regularizers": [{"name": "budget", "per_token": False}]})
    ((_, _, options),) = make_loss(ours).regularizers
    assert isinstance(options, BudgetOptions) and not options.per_token


@pytest.mark.parametrize("tokens", [None, {"name": "selective", "share": 0.2}])
def test_what_is_lost_is_logged_over_all_tokens(
    configure: Callable[..., RunConfig], tokens: dict[str, object] | None
) -> None:
    """A token selector chooses what the objective sees, not what the budget sees."""
    entry = {"name": "budget", "budget": 0.5}
    changes = {"regularizers": [entry], "tokens": tokens, "objective": {"name": "dpo", "beta": 2.0}}
    run, _ = train(configure(changes, {"train": {"max_steps": 4, "learning_rate": 0.01}}))
    lines = read_jsonl(run.path / "metrics.jsonl")
    assert lines[0]["budget_lost"] == pytest.approx(0, abs=1e-4) and lines[0]["budget_exceeded"] == 0
    for line in lines:
        assert line["budget_lost"] == pytest.approx(-line["chosen_logratio"], abs=1e-5)
    assert any(0 < line["budget_exceeded"] < 1 for line in lines)
    assert (tokens is None) or lines[-1]["tokens_kept"] < 0.6
