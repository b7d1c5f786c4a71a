"""Training with weights divided among processes (FSDP2), and with as many processes as there happen to be."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from popmargin.config import RunConfig, dump_yaml, merge
from popmargin.files import read_jsonl
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory

DRIVER = Path(__file__).with_name("rank_driver.py")
EMA = {"objective": {"name": "pop"}, "target": {"tau": 0.5}}
CASES: dict[str, dict[str, Any]] = {
    "ema": EMA,
    "bank": {"objective": {"name": "pop"}, "target": {"kind": "bank", "tau": 0.5}, "model": {"lora_rank": 1}},
    "reward": {"task": "reward", **EMA, "model": {"lora_rank": 2}},
    "start16": {"objective": {"name": "dpo"}},
    "spa": {
        "objective": {"name": "spa", "window": 12, "quantile": 0.3, "alpha": 0.5, "warm_share": 0.0},
        "train": {"micro_batch_size": 2},
        "data": {"flip": 0.5},
    },
}
"""With an adapter of rank 1, one of two processes holds nothing of half of its matrices."""


def fsdp(**settings: Any) -> dict[str, Any]:
    return {"train": {"trainer_arguments": {"fsdp": True, "fsdp_config": {"version": 2, **settings}}}}


class Ranks:
    """Plans runs in several processes, and runs them."""

    def __init__(self, folder: Path, base: dict[str, Any], environment: dict[str, str]) -> None:
        self._folder, self._base, self._environment = folder, base, environment
        self._plan: list[dict[str, Any]] = []

    def add(
        self, name: str, *changes: dict[str, Any], words: tuple[str, ...] = (), processes: int = 2, **more: Any
    ) -> None:
        values = self._base
        for change in (*changes, {"output": str(self._folder / name)}):
            values = merge(values, change)
        place = self._folder / f"{name}-{len(self._plan)}"
        place.with_suffix(".yaml").write_text(dump_yaml(values))
        words = ("train", str(place.with_suffix(".yaml")), *words)
        self._plan.append({"processes": processes, "words": words, "log": str(place), **more})

    def run(self) -> tuple[list[list[int]], list[str]]:
        """Exit codes and the first process's log of each run."""
        (self._folder / "plan.json").write_text(json.dumps(self._plan))
        done = subprocess.run(
            [sys.executable, str(DRIVER), str(self._folder / "plan.json")],
            env=self._environment, capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1]), [Path(f"{run['log']}.0").read_text() for run in self._plan]


def as_stopped(run: Path, step: int, last: int) -> list[str]:
    """What a run has not yet written after a step."""
    later = [run / "checkpoints" / f"checkpoint-{number}" for number in range(step + 1, last + 1)]
    return [str(path) for path in (run / "run.json", *later)]


@pytest.fixture
def ranks(tmp_path: Path, base_run: dict[str, Any], popmargin_environment: dict[str, str]) -> Ranks:
    return Ranks(tmp_path, base_run, popmargin_environment)


def compare_runs(found: Path, expected: RunDirectory, steps: int = 3) -> None:
    """The same losses in every step, and the same weights at the end."""
    lines, others = (read_jsonl(run / "metrics.jsonl") for run in (found, expected.path))
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    for mine, other in zip(lines, others, strict=True):
        assert mine.keys() == other.keys()
        assert mine["loss"] == pytest.approx(other["loss"], abs=1e-5)
        for name in ("reward_margin", "target_margin_mean", "target_distance", "decoupled_margin"):
            assert mine.get(name, 0.0) == pytest.approx(other.get(name, 0.0), abs=1e-3), name
    saved, wanted = (load_file(next((run / "model").glob("*model.safetensors"))) for run in (found, expected.path))
    assert saved.keys() == wanted.keys()
    for name, tensor in saved.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=2e-5, msg=name)


@pytest.mark.slow
def test_divided_weights_train_as_whole_ones(
    tmp_path: Path, configure: Callable[..., RunConfig], ranks: Ranks, make_model: Any, tiny_tokenizer: Any
) -> None:
    """All weights with an averaged target, which four processes go on with; LoRA; rewards; a tied bf16 start; SPA."""
    start = make_model(dtype=torch.bfloat16)
    start.lm_head.weight, start.config.tie_word_embeddings = start.model.embed_tokens.weight, True
    for part in (start, tiny_tokenizer):
        part.save_pretrained(tmp_path / "bf16")
    cases = CASES | {"start16": CASES["start16"] | {"model": {"path": str(tmp_path / "bf16")}}}
    caches = {side: {"reference": {"cache": str(tmp_path / f"cache-{side}")}} for side in ("whole", "parts")}
    whole = {name: train(configure(change, caches["whole"], {"output": str(tmp_path / f"{name}-whole")}))[0]
             for name, change in cases.items()}  # fmt: skip
    for name, change in cases.items():
        kind = {"state_dict_type": "SHARDED_STATE_DICT"} if name == "ema" else {}
        ranks.add(name, change, fsdp(**kind), caches["parts"], {"train": {"save_steps": 2 if name == "ema" else 0}})
        if name == "ema":
            ranks.add(name, change, fsdp(**kind), caches["parts"], {"train": {"save_steps": 2}}, words=("--resume",),
                      processes=4, remove=as_stopped(tmp_path / "ema", 2, 3))  # fmt: skip
    ranks.add("huge", {"train": {"learning_rate": 1e39, "max_steps": 1}}, fsdp(), caches["parts"])
    codes, logs = ranks.run()
    assert codes[:-1] == [[0, 0], [0] * 4, *([[0, 0]] * 4)], "\n".join(log[-3000:] for log in logs)
    for name, run in whole.items():
        compare_runs(tmp_path / name, run)
    assert json.loads((tmp_path / "ema" / "run.json").read_text())["resumed"]
    one, two = (sorted(path.name for path in (tmp_path / f"cache-{side}").iterdir()) for side in ("whole", "parts"))
    assert one == two, "the reference has another key where it is divided"
    assert 2 in codes[-1] and "Weights are not finite after step 1" in logs[-1]
    assert not (tmp_path / "huge" / "model").exists()


@pytest.mark.slow
def test_one_process_goes_on_where_two_were_asked_to_stop(
    tmp_path: Path, configure: Callable[..., RunConfig], ranks: Ranks
) -> None:
    """SIGTERM to one of two processes: both stop after the same step, with a checkpoint."""
    change = merge(EMA, {"train": {"max_steps": 12, "save_steps": 1, "save_total_limit": 2}})
    whole, _ = train(configure(change, {"output": str(tmp_path / "whole")}))
    ranks.add("run", change, stop=str(tmp_path / "run" / "checkpoints" / "checkpoint-2" / "checkpoint.json"))
    codes, logs = ranks.run()
    assert codes == [[128 + signal.SIGTERM] * 2], logs[0][-3000:]
    assert "--resume" in logs[0]
    run = RunDirectory(tmp_path / "run")
    assert run.checkpoint() is not None and not run.finished
    again, _ = train(configure(change, {"output": str(run.path)}), resume=True)
    assert json.loads((again.path / "run.json").read_text())["resumed"]
    compare_runs(again.path, whole, steps=12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fsdp_on_the_gpu_is_training_without_it(
    tmp_path: Path, configure: Callable[..., RunConfig], base_run: dict[str, Any], popmargin_environment: dict[str, str]
) -> None:
    """One process: everything of FSDP but the exchange between processes."""
    whole, _ = train(configure(EMA, {"output": str(tmp_path / "whole")}))
    ranks = Ranks(tmp_path, base_run, {**popmargin_environment, "CUDA_VISIBLE_DEVICES": "0"})
    ranks.add("sharded", EMA, fsdp(), processes=1)
    codes, logs = ranks.run()
    assert codes == [[0]], logs[0][-3000:]
    compare_runs(tmp_path / "sharded", whole)
