"""Two processes train as one does."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from popmargin.config import RunConfig, dump_yaml, from_dict, merge
from popmargin.engine.logps import token_logps
from popmargin.engine.sequences import make_sequences
from popmargin.files import read_jsonl
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"objective": {"name": "dpo"}},
        {"objective": {"name": "pop"}, "target": {"tau": 0.5}},
        {"objective": {"name": "pop"}, "target": {"kind": "bank", "tau": 0.5}},
        {"objective": {"name": "pop_lagrangian", "lambda_lr": 0.5}},
        {"objective": {"name": "pop_rank"}, "train": {"edge_batching": "clustered", "micro_batch_size": 2}},
        {"objective": {"name": "amapo"}},
        {"objective": {"name": "amapo", "running": 0.5}, "train": {"micro_batch_size": 2}},
        {
            "objective": {"name": "spa", "window": 12, "quantile": 0.3, "alpha": 0.5, "warm_share": 0.0},
            "train": {"micro_batch_size": 2},
            "data": {"flip": 0.5},
        },
        {"task": "reward", "objective": {"name": "pop"}, "target": {"tau": 0.5}, "model": {"lora_rank": 2}},
    ],
    ids=["dpo", "pop-ema", "pop-bank", "lagrangian", "clustered", "amapo", "amapo-running", "spa", "reward-lora"],
)
def test_two_processes_are_one(
    tmp_path: Path,
    base_run: dict[str, Any],
    configure: Callable[..., RunConfig],
    popmargin: Callable[..., Any],
    change: dict[str, Any],
) -> None:
    one, _ = train(configure(change, {"output": str(tmp_path / "one")}))
    values = merge(merge(base_run, change), {"output": str(tmp_path / "two"), "train": {"save_steps": 2}})
    (tmp_path / "run.yaml").write_text(dump_yaml(values))
    done = popmargin("train", str(tmp_path / "run.yaml"), processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained run") == 1
    two = RunDirectory(tmp_path / "two")
    lines, expected = read_jsonl(two.path / "metrics.jsonl"), read_jsonl(one.path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3]
    for mine, other in zip(lines, expected, strict=True):
        assert mine.keys() == other.keys()
        assert mine["loss"] == pytest.approx(other["loss"], abs=1e-5)
        for name in (
            "accuracy",
            "reward_margin",
            "target_margin_mean",
            "violation",
            "lambda",
            "mu",
            "s",
            "margin_share",
            "decoupled_margin",
            "suspected",
            "suspect_threshold",
        ):
            if name in other:
                assert mine[name] == pytest.approx(other[name], abs=1e-4), name
    assert json.loads((two.path / "run.json").read_text())["steps"] == 3


@pytest.mark.slow
def test_weights_of_the_data_count_across_processes(
    tmp_path: Path,
    base_run: dict[str, Any],
    configure: Callable[..., RunConfig],
    rows: list[dict[str, Any]],
    popmargin: Callable[..., Any],
) -> None:
    """Σ w·loss / Σ w over the rows of both: a mean of the processes' means would count light and heavy rows alike.

    The interpreter's teardown aborts here, as a late thread of the process group can make it do: it is not reached.
    """
    heavy = np.random.default_rng(0).choice([0.0, 1.0, 20.0], size=len(rows)).tolist()
    data = tmp_path / "weighted.jsonl"
    data.write_text("".join(f"{json.dumps(row | {'weight': w})}\n" for row, w in zip(rows, heavy, strict=True)))
    change: dict[str, Any] = {
        "data": {"train": str(data)},
        "objective": {"name": "dpo_rating_margin", "beta": 1.0},
        "train": {"micro_batch_size": 2, "save_steps": 0},
    }
    one, _ = train(configure(change, {"output": str(tmp_path / "one")}))
    values = merge(merge(base_run, change), {"output": str(tmp_path / "two")})
    (tmp_path / "run.yaml").write_text(dump_yaml(values))
    code = "import atexit, os\nif 'RANK' in os.environ:\n    atexit.register(os.abort)\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    done = popmargin("train", str(tmp_path / "run.yaml"), processes=2, python_path=tmp_path)
    assert done.returncode == 0, done.stderr
    lines, expected = read_jsonl(tmp_path / "two" / "metrics.jsonl"), read_jsonl(one.path / "metrics.jsonl")
    for mine, other in zip(lines, expected, strict=True):
        for name in ("loss", "accuracy", "reward_margin", "weight_mean", "weight_effective_share"):
            assert mine[name] == pytest.approx(other[name], abs=1e-4), name
        assert 0 < mine["weight_effective_share"] < 0.9
    found, wanted = (load_file(run / "model" / "model.safetensors") for run in (tmp_path / "two", one.path))
    for name, tensor in wanted.items():  # Adam steps are 1e-3
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)


SHARDED = """
import sys
from pathlib import Path

import numpy as np
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM

from popmargin.engine.logps import forward_plan, token_logps
from popmargin.engine.sequences import make_sequences

folder = Path(sys.argv[1])
mesh = init_device_mesh("cpu", (2,))
rank = mesh.get_rank()
model = AutoModelForCausalLM.from_pretrained(folder / "model").train()
plan = forward_plan(model)
assert plan.layout == "packed" and plan.fused is not None
for layer in model.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
random = np.random.default_rng(rank)
prompt, *completions = (random.integers(3, 290, size=size) for size in (5, 7, 4))
logps = token_logps(model, make_sequences([prompt] * 2, completions, 0, "packed"), plan=plan)
logps.square().sum().backward()
gradients = {name: parameter.grad.full_tensor() for name, parameter in model.named_parameters()}
torch.save({"logps": logps.detach(), "gradients": gradients}, folder / f"rank{rank}.pt")
"""


@pytest.mark.slow
def test_sharded_weights_give_the_same_gradient(tmp_path: Path, model_path: str, popmargin_environment: Any) -> None:
    """FSDP: packed rows and the fused head see whole weights inside the modules, and shards get their gradients."""
    (tmp_path / "model").symlink_to(model_path)
    (tmp_path / "sharded.py").write_text(SHARDED)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, str(tmp_path / "sharded.py"), str(tmp_path)],
        env=popmargin_environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    model: Any = AutoModelForCausalLM.from_pretrained(model_path)
    for rank, saved in enumerate(found):
        random = np.random.default_rng(rank)
        prompt, *completions = (random.integers(3, 290, size=size) for size in (5, 7, 4))
        logps = token_logps(model, make_sequences([prompt] * 2, completions, 0, "padded"))
        torch.testing.assert_close(saved["logps"], logps.detach(), rtol=0, atol=1e-5)
        logps.square().sum().backward()
    for name, parameter in model.named_parameters():  # sharded gradients are means over the processes
        torch.testing.assert_close(found[0]["gradients"][name], parameter.grad / 2, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 2])
def test_fsdp_that_would_be_ignored_is_refused(
    tmp_path: Path, base_run: dict[str, Any], popmargin: Callable[..., Any], processes: int
) -> None:
    values = merge(base_run, {"train": {"trainer_arguments": {"fsdp": True}}})
    (tmp_path / "run.yaml").write_text(dump_yaml(values))
    refused = popmargin("train", str(tmp_path / "run.yaml"), processes=processes)
    assert refused.returncode != 0
    assert "error: train" in refused.stderr and "fsdp" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "noise", [{"source": "shared"}, {"source": "inversion", "steps": 2}], ids=["shared", "inversion"]
)
def test_two_processes_train_on_images_as_one_does(
    tmp_path: Path, popmargin: Callable[..., Any], noise: dict[str, Any]
) -> None:
    """The draws of a pair are its own, whichever process has it."""
    from tiny_pipelines import saved, write_preferences

    values: dict[str, Any] = {
        "task": {"name": "images", "noise": noise, "prompt_dropout": 0.2},
        "model": {"path": str(saved(tmp_path / "base"))},
        "data": {"train": write_preferences(tmp_path / "images"), "test_size": 4},
        "objective": {"name": "pop"},
        "target": {"kind": "ema"},
        "reference": {"cache": str(tmp_path / "cache")},
        "train": {"batch_size": 4, "learning_rate": 1e-3, "max_steps": 3, "warmup_ratio": 0.0},
    }
    one, _ = train(from_dict(RunConfig, values | {"output": str(tmp_path / "one")}))
    (tmp_path / "run.yaml").write_text(dump_yaml(values | {"output": str(tmp_path / "two")}))
    code = "import atexit, os\nif 'RANK' in os.environ:\n    atexit.register(os.abort)\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    done = popmargin("train", str(tmp_path / "run.yaml"), processes=2, python_path=tmp_path)
    assert done.returncode == 0, done.stderr
    lines, expected = read_jsonl(tmp_path / "two" / "metrics.jsonl"), read_jsonl(one.path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3]
    for mine, other in zip(lines, expected, strict=True):
        assert mine.keys() == other.keys()
        for name in ("loss", "accuracy", "target_margin_mean", "winner_error_change", "loser_error_change", "d_std"):
            assert mine[name] == pytest.approx(other[name], rel=1e-4, abs=1e-5), name
    folder = Path("unet") / "diffusion_pytorch_model.safetensors"
    found, wanted = (load_file(run / "model" / folder) for run in (tmp_path / "two", one.path))
    for name, tensor in wanted.items():  # Adam steps are 1e-3
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)
