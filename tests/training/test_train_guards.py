"""NaN and Inf stop a run before they reach the weights, and the rows are named."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import TrainerCallback

from popmargin.config import RunConfig
from popmargin.data.load import scan_preferences
from popmargin.errors import DataError, RunError
from popmargin.margin import Margin
from popmargin.objectives.base import OBJECTIVES
from popmargin.tasks import language
from popmargin.training import build as training
from popmargin.training.build import Run
from popmargin.training.checkpoints import checkpoints_in
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory
from popmargin.training.workspace import Workspace

Configure = Callable[..., RunConfig]


@pytest.fixture
def policies(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every policy that training makes, to look at its weights afterwards."""
    made: list[Any] = []
    original = language.make_policy

    def keep(*arguments: Any, **options: Any) -> Any:
        made.append(original(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(language, "make_policy", keep)
    return made


def untouched(policy: Any, workspace: Workspace) -> bool:
    start = workspace.task.start_model.state_dict()
    return all(torch.equal(tensor, start[name]) for name, tensor in policy.state_dict().items())


def test_edges_that_are_all_ties_are_refused(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "edges.jsonl").write_text('{"stronger": "p001", "weaker": "p002", "tie": true}\n')
    with pytest.raises(DataError, match=r"No PoP edge says which preference is stronger \(1 in\)"):
        train(configure({"objective": {"name": "pop"}, "pop": {"edges": str(tmp_path / "edges.jsonl")}}))


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_bad_log_probs_name_the_preference(configure: Configure, policies: list[Any], poison: float) -> None:
    config = configure({"train": {"batch_size": 32, "micro_batch_size": 4}})
    workspace = Run.read(config).workspace()
    victim = 11
    workspace.train.reference.chosen[victim][0] = poison
    with pytest.raises(
        RunError, match=rf"step 1 for the preferences {workspace.train.ids[victim]}\. No weights"
    ) as info:
        train(config, workspace=workspace)
    assert "learning_rate" in str(info.value)
    assert untouched(policies[0], workspace)
    assert not (Path(config.output) / "run.json").exists()


def test_broken_weights(configure: Configure, policies: list[Any]) -> None:
    config = configure({"objective": {"name": "simpo"}})
    workspace = Run.read(config).workspace()
    with torch.no_grad():
        workspace.task.start_model.get_parameter("model.norm.weight")[3] = torch.nan
    with pytest.raises(RunError, match="gives non-finite log-probs: are its weights intact"):
        train(config, workspace=workspace)
    assert not policies and not (Path(config.output) / "run.json").exists()


def test_a_bad_margin_of_a_row(configure: Configure) -> None:
    config = configure({"objective": {"name": "pop"}, "target": {"kind": "bank"}})
    workspace = Run.read(config).workspace()

    class Poisoned(training.MarginBank):
        def recall(self, preferences: torch.Tensor) -> torch.Tensor:
            return torch.full((len(preferences),), torch.nan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "MarginBank", Poisoned)
        with pytest.raises(RunError, match="not finite at step 1"):
            train(config, workspace=workspace)


@pytest.mark.parametrize("accumulation", [8, 2])
def test_a_bad_gradient_is_caught_before_the_step(configure: Configure, policies: list[Any], accumulation: int) -> None:
    """The loss is finite, its gradient is not: d√x at 0."""
    config = configure({"train": {"micro_batch_size": accumulation}})
    workspace = Run.read(config).workspace()
    original = training.make_loss

    def with_a_root(settings: RunConfig) -> Any:
        loss = original(settings)
        plain = loss.objective.function

        def rooted(rows: Any, options: Any) -> torch.Tensor:
            return plain(rows, options) + (rows.gap - rows.gap.detach()).sqrt()

        return replace(loss, objective=replace(loss.objective, function=rooted))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "make_loss", with_a_root)
        with pytest.raises(RunError, match="gradient is not finite at step 1 for the preferences p"):
            train(config, workspace=workspace)
    assert untouched(policies[0], workspace)


@pytest.mark.parametrize(("steps", "saved"), [(1, 0), (2, 1)])
def test_what_the_last_step_does_to_the_weights_is_checked(
    tmp_path: Path, configure: Configure, steps: int, saved: int
) -> None:
    """Each step is checked before it is taken; after the last one there is no next step that would notice."""
    config = configure({"train": {"max_steps": steps, "save_steps": 1, "learning_rate": 1e-3}})
    workspace = Run.read(config).workspace()

    class Blown(TrainerCallback):
        def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if state.global_step == steps - 1:
                next(iter(model.parameters())).data.fill_(math.inf)

    class Blowing(training.PreferenceTrainer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.add_callback(Blown())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "PreferenceTrainer", Blowing)
        with pytest.raises(
            RunError, match=rf"Weights are not finite after step {steps} \(.*lower train\.learning_rate"
        ):
            train(config, workspace=workspace)
    run = RunDirectory(Path(config.output))
    assert not run.finished and not run.model.exists() and len(checkpoints_in(run.checkpoints)) == saved


def test_a_rate_without_bounds_is_no_success(configure: Configure) -> None:
    with pytest.raises(RunError, match="Weights are not finite after step 1"):
        train(configure({"train": {"max_steps": 1, "learning_rate": 1e39, "max_grad_norm": 0.0}}))


@pytest.mark.parametrize(
    "name",
    [name for name in OBJECTIVES.names() if OBJECTIVES.get(name).needs.margin or OBJECTIVES.get(name).needs.soft_label],
)
@pytest.mark.parametrize("value", [None, math.nan])
def test_a_preference_without_margin_or_label_is_named(
    tmp_path: Path, configure: Configure, name: str, value: float | None
) -> None:
    rows = [
        {"id": f"row-{i}", "prompt": f"which is {i}?", "chosen": "a good one", "rejected": "a bad one",
         "chosen_rating": 4.0, "rejected_rating": 1.0, "soft_label": 0.9}
        for i in range(12)
    ]  # fmt: skip
    rows[7] |= {"chosen_rating": value, "rejected_rating": value, "soft_label": value}
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    pq.write_table(pa.Table.from_pylist([rows[0] | {"id": "other", "prompt": "another?"}]), tmp_path / "test.parquet")
    data = {"train": str(tmp_path / "rows.parquet"), "test_size": 0, "test": str(tmp_path / "test.parquet")}
    with pytest.raises(DataError, match=r"row-7|row 7 \(from 0\)"):
        train(configure({"data": data, "objective": {"name": name}, "train": {"max_steps": 1}}))


def poisoned(kind: str, loss: Any) -> Any:
    """The loss with one thing in it that is not finite."""
    objective = loss.objective

    def function(rows: Any, options: Any) -> torch.Tensor:
        values = objective.function(rows, options)
        return values + rows.column("margin").square() if kind == "data" else values / torch.zeros_like(values)

    if kind != "margin":
        return replace(loss, objective=replace(objective, function=function))
    source, options = loss.margin

    def first_without_bound(rows: Any, _: Any) -> Margin:
        place = torch.arange(len(rows.chosen)) == 0
        return Margin(values=torch.where(place, -math.inf, 0.0 * rows.gap.detach()), unit="reward")

    return replace(loss, margin=(replace(source, function=first_without_bound), options))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("objective", r"The loss is not finite .* the objective overflows on them. Lower train\.learning_rate"),
        ("margin", r"The margin is not finite .* It comes from the run's margin source"),
        ("data", r"The loss is not finite .* The data's margin of 'p\d\d\d' is 3e\+30: correct it"),
    ],
)
def test_the_likely_cause_is_named(
    configure: Configure, policies: list[Any], tmp_path: Path, data_path: str, kind: str, said: str
) -> None:
    """A margin of minus infinity once gave a loss of 0, and a training that looked perfect."""
    rows = [json.loads(line) for line in Path(data_path).read_text().splitlines()]
    if kind == "data":
        rows[3]["chosen_rating"], rows[5]["chosen_rating"] = 2e30, 3e30
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    change: dict[str, Any] = {"data": {"train": str(tmp_path / "rows.jsonl")}, "train": {"batch_size": 32}}
    config = configure(change, {"margin": {"source": "ratings"}} if kind == "margin" else {},
                       {"objective": {"name": "dpo_rating_margin"}} if kind == "data" else {})  # fmt: skip
    workspace = Run.read(config).workspace()
    original = training.make_loss
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "make_loss", lambda settings: poisoned(kind, original(settings)))
        with pytest.raises(RunError, match=rf"(?s){said}"):
            train(config, workspace=workspace)
    assert untouched(policies[0], workspace)


def test_weights_that_were_spoilt_before_are_named(configure: Configure) -> None:
    config = configure({"train": {"max_steps": 2}})

    class Spoiling(training.PreferenceTrainer):
        def finish_step(self) -> None:
            super().finish_step()
            next(iter(self.model.parameters())).data.fill_(math.nan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "PreferenceTrainer", Spoiling)
        with pytest.raises(RunError, match=r"step 2 .* Weights are not finite already \(.*Lower train\.learning_rate"):
            train(config)


def test_a_rating_that_fp32_does_not_hold_is_named(tmp_path: Path, configure: Configure, data_path: str) -> None:
    """It once passed `data check`; as an infinite margin it makes the loss 0."""
    rows = [json.loads(line) for line in Path(data_path).read_text().splitlines()]
    rows[3]["chosen_rating"] = 1e300
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = r"rows\.jsonl:4, column 'chosen_rating': the number is 1e\+300; .* fp32"
    found, report = scan_preferences(str(tmp_path / "rows.jsonl"))
    assert found is not None and len(found) == len(rows) - 1
    (problem,) = report.fatal
    assert re.search(said, str(problem)) and report.problem_counts == {"too_large": 1}
    with pytest.raises(DataError, match=said):
        train(configure({"data": {"train": str(tmp_path / "rows.jsonl")}}))
