"""Interrupted training goes on as if nothing had happened: metrics, weights, target and objective state."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from few_fast import few_fast
from popmargin.config import RunConfig
from popmargin.errors import RunError
from popmargin.training import build as training
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory
from popmargin.training.trainer import STATE_FILE

Configure = Callable[..., RunConfig]
STEPS = 6


class Killed(BaseException):
    """Nothing in the program catches it."""


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch, config: RunConfig) -> None:
    """Train, and die at the beginning of a step."""

    class Killer(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step:
                raise Killed

    class Dying(training.PreferenceTrainer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.add_callback(Killer())

    with monkeypatch.context() as patched:
        patched.setattr(training, "PreferenceTrainer", Dying)
        with pytest.raises(Killed):
            train(config)


def settings(output: Path) -> dict[str, Any]:
    # More than an epoch: the order of the second one must survive too.
    steps = {"max_steps": None, "epochs": 1.5, "save_steps": 2, "scheduler": "cosine"}
    return {"output": str(output), "train": steps, "pop": {"sampling": "random", "k": 1}}


VARIANTS: dict[str, dict[str, Any]] = {
    "full-ema": {"objective": {"name": "pop"}, "target": {"tau": 0.5}},
    "lora-ema": {"objective": {"name": "pop"}, "target": {"tau": 0.5}, "model": {"lora_rank": 2, "lora_dropout": 0.1}},
    "margin": {"objective": {"name": "hinge"}, "margin": {"source": "pop"}, "target": {"tau": 0.5}},
    "bank": {"objective": {"name": "pop"}, "target": {"kind": "bank", "tau": 0.5}},
    "lagrangian": {"objective": {"name": "pop_lagrangian", "lambda_lr": 0.5}},
    "authors": {"objective": {"name": "pop_lagrangian", "lambda_lr": 0.5, "ascent": "authors", "window": 3}},
    "spa": {
        "objective": {"name": "spa", "window": 12, "quantile": 0.3, "alpha": 0.5},
        "model": {"lora_rank": 2},
        "data": {"flip": 0.5},
    },
    "clustered": {"objective": {"name": "pop_rank"}, "train": {"edge_batching": "clustered"}},
    "reward": {"task": "reward", "objective": {"name": "pop"}, "target": {"tau": 0.5}},
    "reward-lora": {"task": "reward", "objective": {"name": "dpo"}, "model": {"lora_rank": 2, "lora_dropout": 0.1}},
}


@pytest.mark.parametrize("variant", few_fast(VARIANTS, (0, 3, 4, 9)))
def test_interrupted_is_uninterrupted(
    tmp_path: Path, configure: Configure, weights: Any, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    change = VARIANTS[variant]
    whole, _ = train(configure(settings(tmp_path / "whole"), change))
    steps = whole.facts()["steps"]
    assert steps >= 6
    config = configure(settings(tmp_path / "parts"), change)
    killed_at(5, monkeypatch, config)
    parts = RunDirectory(tmp_path / "parts")
    assert not parts.finished and parts.checkpoint() is not None and parts.checkpoint().name == "checkpoint-4"
    resumed, _ = train(config, resume=True)
    assert resumed.facts()["resumed"] and resumed.facts()["steps"] == steps
    assert (parts.path / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()
    ours, theirs = weights(parts.model), weights(whole.model)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    last = f"checkpoints/checkpoint-{steps}/{STATE_FILE}"
    ours, theirs = load_file(parts.path / last), load_file(whole.path / last)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def states(run: RunDirectory, step: int) -> dict[str, torch.Tensor]:
    return load_file(run.checkpoints / f"checkpoint-{step}" / STATE_FILE)


@pytest.mark.parametrize("variant", ["full-ema", "lora-ema"])
def test_the_saved_target_moved_and_is_not_the_policy(
    tmp_path: Path, configure: Configure, weights: Any, variant: str
) -> None:
    run, _ = train(configure(settings(tmp_path / "run"), VARIANTS[variant], {"train": {"save_total_limit": 5}}))
    early, late = states(run, 2), states(run, STEPS)
    assert early.keys() == late.keys() and late
    assert any(not torch.equal(early[name], late[name]) for name in late)
    policy = weights(run.checkpoints / f"checkpoint-{STEPS}")
    assert len(policy) >= len(late) - 1  # tied or renamed weights aside, the same number
    sizes = sum(tensor.double().square().sum() for tensor in policy.values())
    averaged = sum(tensor.double().square().sum() for tensor in late.values())
    assert averaged != pytest.approx(float(sizes), rel=1e-9)
    if variant == "lora-ema":
        assert all("lora_" in name for name in late)


def test_the_multiplier_is_saved(tmp_path: Path, configure: Configure) -> None:
    run, _ = train(configure(settings(tmp_path / "run"), VARIANTS["lagrangian"]))
    assert states(run, run.facts()["steps"])["objective.log_lambda"] != 0


def test_a_finished_run_is_not_trained_again(tmp_path: Path, configure: Configure) -> None:
    config = configure(settings(tmp_path / "run"))
    run, _ = train(config)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    again, policy = train(config, resume=True, keep_model=True)
    assert {path: path.read_bytes() for path in again.path.rglob("*") if path.is_file()} == before
    assert policy is not None


@pytest.mark.parametrize("variant", ["lora-ema", "lagrangian"])
def test_killed_between_the_last_checkpoint_and_the_end(
    tmp_path: Path, configure: Configure, weights: Any, variant: str
) -> None:
    config = configure(settings(tmp_path / "run"), VARIANTS[variant], {"train": {"max_steps": 4}})
    run, _ = train(config)
    lines, trained = (run.path / "metrics.jsonl").read_bytes(), weights(run.model)
    (run.path / "run.json").unlink()
    again, _ = train(config, resume=True)
    assert again.facts()["steps"] == 4 and (again.path / "metrics.jsonl").read_bytes() == lines
    assert all(torch.equal(trained[name], tensor) for name, tensor in weights(again.model).items())


def test_without_a_checkpoint_it_starts_anew(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure({"output": str(tmp_path / "run")})
    killed_at(2, monkeypatch, config)
    run, _ = train(config, resume=True)
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) == 3 and not run.facts()["resumed"]


def test_rules_of_the_run_directory(tmp_path: Path, configure: Configure) -> None:
    config = configure({"train": {"max_steps": 1}})
    run, _ = train(config)
    with pytest.raises(RunError, match=r"already contains a run: pass --resume, --overwrite"):
        train(config)
    other = configure({"train": {"max_steps": 2}})
    with pytest.raises(RunError, match="a different configuration"):
        train(other, resume=True)
    again, _ = train(other, overwrite=True)
    assert again.path == run.path and again.facts()["steps"] == 2
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="not a run directory"):
        train(configure({"output": str(foreign)}), overwrite=True)
    assert (foreign / "thesis.txt").read_text() == "mine"
