"""Training with DeepSpeed's ZeRO on two CPU processes: the same as in one, and it goes on."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_train_sharded import CASES, EMA, Ranks, as_stopped, compare_runs

from popmargin.config import RunConfig
from popmargin.training.launch_files import launch_file
from popmargin.training.run import train

APART = Path(sys.prefix) / "deepspeed"
"""Where `make setup` puts it: if it could be imported, accelerate would import it in every training."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("deepspeed") is None and not APART.is_dir(), reason="needs DeepSpeed: make setup"
    ),
]
ROOTED = '''
import dataclasses
import torch
from popmargin.objectives.base import objective

@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    "None."

@objective("rooted", options=Options, score="log_ratio", origin="ours")
def rooted(rows, options):
    """The loss is finite, its gradient is not: that of a root at 0."""
    return torch.nn.functional.softplus(-rows.gap) + (rows.gap - rows.gap.detach()).sqrt()
'''
STAGES: dict[str, tuple[int, dict[str, Any]]] = {
    "two": (2, EMA),
    "three": (3, EMA),
    "three-lora": (3, CASES["bank"]),
    "three-reward": (3, CASES["reward"]),
    "three-policy": (3, {"objective": {"name": "pop"}, "target": {"kind": "policy"}}),
    "three-average": (3, {"objective": {"name": "dpo"}, "train": {"average": 0.5}}),
}
AGAIN = (("two", 2, 2), ("two", 2, 1), ("three", 1, 4), ("three", 2, 1))
"""Which goes on after which step, in how many processes; the last one with a checkpoint in four parts."""
CHECKPOINTS = ["checkpoint-1", "checkpoint-2", "checkpoint-3"]


def zero(stage: int) -> dict[str, Any]:
    """The launch file; with ZeRO-3 tiny weights are cut too, which it would leave whole."""
    settings = json.loads(launch_file(f"zero{stage}.json").read_text())
    if stage == 3:
        settings["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return {"train": {"trainer_arguments": {"deepspeed": settings}}}


@pytest.fixture
def ranks(tmp_path: Path, base_run: dict[str, Any], popmargin_environment: dict[str, str]) -> Ranks:
    path = f"{popmargin_environment.get('PYTHONPATH', '')}:{APART}".strip(":")
    return Ranks(tmp_path, base_run, {**popmargin_environment, "DS_ACCELERATOR": "cpu", "PYTHONPATH": path})


def test_zero_trains_as_one_process(tmp_path: Path, configure: Callable[..., RunConfig], ranks: Ranks) -> None:
    """ZeRO-2 and ZeRO-3: all weights with an averaged target, LoRA, rewards, an averaged policy.

    A run goes on with a checkpoint to the same numbers, in any number of processes. DeepSpeed leaves out a step with a
    gradient that is not finite, and training stops; a step that spoils the weights saves nothing.
    """
    saving = {"train": {"save_steps": 1, "save_total_limit": 3}}
    for name, (stage, change) in STAGES.items():
        ranks.add(name, change, zero(stage), saving if name in ("two", "three") else {})
    for name, step, processes in AGAIN:
        ranks.add(name, EMA, zero(STAGES[name][0]), saving, processes=processes, words=("--resume",),
                  remove=as_stopped(tmp_path / name, step, 3))  # fmt: skip
    (tmp_path / "rooted.py").write_text(ROOTED)
    for stage in (2, 3):
        ranks.add(f"rooted-{stage}", {"objective": {"name": f"{tmp_path}/rooted.py:rooted"}}, zero(stage))
    ranks.add("huge", {"train": {"learning_rate": 1e39, "max_steps": 1}}, zero(3))
    codes, logs = ranks.run()
    expected = [*([2] * len(STAGES)), *(processes for _, _, processes in AGAIN)]
    assert codes[:-3] == [[0] * count for count in expected], "\n".join(log[-3000:] for log in logs)
    for name, (_, change) in STAGES.items():
        compare_runs(tmp_path / name, train(configure(change, {"output": str(tmp_path / f"{name}-whole")}))[0])
    for name in ("two", "three"):
        assert json.loads((tmp_path / name / "run.json").read_text())["resumed"]
        assert [path.name for path in sorted((tmp_path / name / "checkpoints").iterdir())] == CHECKPOINTS
    for code, log in zip(codes[-3:-1], logs[-3:-1], strict=True):
        assert 2 in code and "The gradient is not finite at step 1 for the preferences p" in log, log[-3000:]
    assert 2 in codes[-1] and "Weights are not finite after step 1" in logs[-1]
    assert not (tmp_path / "huge" / "model").exists()
