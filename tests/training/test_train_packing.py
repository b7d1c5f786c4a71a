"""Forward passes may be cut as one likes: a step's loss is a mean over its rows, and the device is waited for once."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from few_fast import few_fast
from popmargin.config import RunConfig
from popmargin.training.arguments import training_arguments
from popmargin.training.build import Run, make_parts, make_trainer
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory

Configure = Callable[..., RunConfig]
OBJECTIVES: list[dict[str, Any]] = [
    {"objective": {"name": "dpo"}},
    {"objective": {"name": "pop"}, "target": {"tau": 0.5}},
    {"objective": {"name": "pop"}, "target": {"kind": "bank", "tau": 0.5}},
    {"objective": {"name": "pop_rank"}},
]


@pytest.mark.parametrize("objective", few_fast(OBJECTIVES, (1,)), ids=["dpo", "pop, ema", "pop, bank", "pop_rank"])
def test_every_packing_gives_the_same_steps(
    tmp_path: Path,
    configure: Configure,
    metrics: Callable[[RunDirectory], list[dict[str, Any]]],
    weights: Callable[[Path], dict[str, torch.Tensor]],
    objective: dict[str, Any],
) -> None:
    cuts: list[dict[str, Any]] = [{}, {"tokens_per_batch": 90}, {"tokens_per_batch": 1}, {"micro_batch_size": 2}]
    workspace = Run.read(configure(objective)).workspace()
    runs = [
        train(
            configure(objective, {"output": str(tmp_path / str(number)), "train": {"batch_size": 8, **cut}}),
            workspace=workspace,
        )[0]
        for number, cut in enumerate(cuts)
    ]
    whole = metrics(runs[0])
    for run in runs[1:]:
        for mine, other in zip(metrics(run), whole, strict=True):
            assert mine["loss"] == pytest.approx(other["loss"], abs=1e-5)
            assert mine["reward_margin"] == pytest.approx(other["reward_margin"], abs=1e-5)
        for name, tensor in weights(run.model).items():
            torch.testing.assert_close(tensor, weights(runs[0].model)[name], rtol=0, atol=2e-4)


@pytest.mark.parametrize("objective", few_fast(OBJECTIVES, (2,)), ids=["dpo", "pop, ema", "pop, bank", "pop_rank"])
def test_outputs_kept_of_frozen_layers_change_no_step(
    tmp_path: Path,
    configure: Configure,
    metrics: Callable[[RunDirectory], list[dict[str, Any]]],
    objective: dict[str, Any],
) -> None:
    adapter = {"model": {"lora_rank": 4, "lora_last_layers": 1}}
    workspace = Run.read(configure(objective, adapter)).workspace()
    runs: list[RunDirectory] = []
    for number, size in enumerate([0.0, 1.0, 1.0]):
        own = {"output": str(tmp_path / str(number)), "train": {"frozen_cache_gb": size}}
        run, policy = train(configure(objective, adapter, own), workspace=workspace, keep_model=True)
        assert (workspace.task.plan(policy).lower is not None) == bool(size)
        runs.append(run)
    for run in runs[1:]:
        for mine, other in zip(metrics(run), metrics(runs[0]), strict=True):
            assert mine["loss"] == pytest.approx(other["loss"], abs=1e-5)
            assert mine["reward_margin"] == pytest.approx(other["reward_margin"], abs=1e-5)


def test_nothing_is_kept_with_several_processes(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure({"model": {"lora_rank": 4, "lora_last_layers": 1}, "train": {"frozen_cache_gb": 1.0}})
    monkeypatch.setenv("WORLD_SIZE", "2")
    scorer: Any = make_parts(Run.read(config), Run.read(config).workspace()).scorer
    assert scorer.plan.lower is None
    assert "train.frozen_cache_gb has no effect with several processes" in caplog.text


class Waits(TorchDispatchMode):
    """Counts the operations that wait for a device: reading a number, and copying a tensor to the host for it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            self.found[str(func)] += 1
        return func(*args, **(kwargs or {}))


def waits(configure: Configure, folder: Path, objective: dict[str, Any], **settings: Any) -> int:
    config = configure(objective, {"output": str(folder), "train": {"max_steps": 2, "batch_size": 8, **settings}})
    workspace = Run.read(config).workspace()
    arguments = training_arguments(config.train, config.seed, folder / "checkpoints")
    trainer = make_trainer(arguments, make_parts(Run.read(config), workspace))
    with Waits() as counted:
        trainer.train()
    return sum(counted.found.values())


@pytest.mark.parametrize("objective", OBJECTIVES[:2], ids=["dpo", "pop, ema"])
def test_more_forward_passes_wait_no_more_often(
    tmp_path: Path, configure: Configure, objective: dict[str, Any]
) -> None:
    """A forward and backward pass reads nothing back: only steps and log lines do."""
    few = waits(configure, tmp_path / "one", objective)
    many = waits(configure, tmp_path / "many", objective, tokens_per_batch=1)
    assert 0 < many == few
