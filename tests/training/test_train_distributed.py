"""Two processes train as one does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popmargin.config import RunConfig, dump_yaml, merge
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory, read_jsonl


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
    ],
    ids=["dpo", "pop-ema", "pop-bank", "lagrangian", "clustered", "amapo", "amapo-running"],
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
        ):
            if name in other:
                assert mine[name] == pytest.approx(other[name], abs=1e-4), name
    assert json.loads((two.path / "run.json").read_text())["steps"] == 3


SHARDED = {"fsdp": "full_shard auto_wrap", "fsdp_config": {"transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]}}


@pytest.mark.slow
def test_sharded_weights_train_as_whole_ones(
    tmp_path: Path, base_run: dict[str, Any], configure: Callable[..., RunConfig], popmargin: Callable[..., Any]
) -> None:
    """FSDP: packed rows and the fused head work on sharded weights; what they do not support is refused."""
    one, _ = train(configure({"output": str(tmp_path / "one")}))
    values = merge(base_run, {"output": str(tmp_path / "two"), "train": {"trainer_arguments": SHARDED}})
    (tmp_path / "run.yaml").write_text(dump_yaml(values))
    done = popmargin("train", str(tmp_path / "run.yaml"), processes=2)
    assert done.returncode == 0, done.stderr
    for mine, other in zip(
        read_jsonl(tmp_path / "two" / "metrics.jsonl"), read_jsonl(one.path / "metrics.jsonl"), strict=True
    ):
        for name in ("loss", "grad_norm", "reward_margin"):
            assert mine[name] == pytest.approx(other[name], abs=1e-5), name
    refused = popmargin(
        "train", str(tmp_path / "run.yaml"), "--train.tokens_per_batch", "64", "--overwrite", processes=2
    )
    assert refused.returncode != 0 and "Sharded training needs as many forward passes" in refused.stderr
