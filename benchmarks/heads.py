"""Seconds to train a reward head on a frozen trunk: on cached hidden states, and with the trunk in every step.

    python benchmarks/heads.py ../shared/data/ukpconvarg.jsonl.gz --json heads.json

The preferences are the majority of five votes. Each training is the whole of `popmargin train`: loading, the account of
the data, steps, saving the classifier. The trunk in every step is measured over a few steps, which cost the same in all
epochs. Processor seconds are those of one thread, whatever else runs on the machine.
"""

import argparse
import gzip
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
os.environ |= {"TOKENIZERS_PARALLELISM": "false"}

import numpy as np

from popmargin.config import RunConfig, from_dict
from popmargin.engine.rewards import HEAD
from popmargin.models import reward_models
from popmargin.tasks import reward
from popmargin.training.build import Run
from popmargin.training.run import train

BATCH = 32


def write_votes(source: Path, out: Path, count: int) -> None:
    """Some preferences of a file with votes, in no order, without ties."""
    with gzip.open(source, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    rows = [row for row in rows if row["votes_a"] != row["votes_b"] and row["response_a"] != row["response_b"]]
    lines: list[str] = []
    for place in np.random.default_rng(0).permutation(len(rows))[:count]:
        row = rows[place]
        better, worse = ("a", "b") if row["votes_a"] > row["votes_b"] else ("b", "a")
        sides = {"chosen": row[f"response_{better}"], "rejected": row[f"response_{worse}"]}
        strength = abs(row["votes_a"] - row["votes_b"])
        lines.append(json.dumps({"prompt": row["prompt"], **sides, "strength": strength}))
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def measured(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Seconds of some work, by the clock and of the processor, and its result."""
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    taken = {"seconds": time.perf_counter() - clock, "processor_seconds": time.process_time() - processor}
    return {name: round(value, 2) for name, value in taken.items()}, result


def freeze_trunks() -> None:
    """Make `train: full` train the head alone, with the trunk in every forward pass."""

    def make(start: Any, config: Any, *, own: Any = None) -> Any:
        model = reward_models.make_reward_model(start, config, own=own)
        model.requires_grad_(False).get_submodule(HEAD).requires_grad_(True)
        return model

    reward.make_reward_model = make


def run(folder: Path, data: Path, settings: dict[str, Any], name: str, seed: int) -> RunConfig:
    """One training."""
    values: dict[str, Any] = {
        "name": name, "output": str(folder / name), "task": "reward", "seed": seed,
        "data": {"train": str(data), "test_size": 1},
        "reference": {"cache": str(folder / "cache")},
        "train": {"batch_size": BATCH, "learning_rate": 1e-2, "save_minutes": 0} | settings.pop("train"),
    }  # fmt: skip
    return from_dict(RunConfig, values | settings)


def measure(data: Path, folder: Path, *, epochs: int, steps: int, model: str) -> dict[str, Any]:
    """All trainings, one after the other."""
    found: dict[str, Any] = {}
    head = {"path": model, "train": "head"}
    first = run(folder, data, {"train": {"epochs": epochs}, "model": dict(head)}, "first", 0)
    workspace = Run.read(first).workspace()
    found["load"], _ = measured(lambda: (workspace.train, workspace.task.start_fingerprint))
    found["hidden states"], features = measured(lambda: workspace.task.features(workspace.train.encoded))
    found["distinct responses"] = len(features.responses)
    found["tokens"] = int(workspace.train.encoded.prompt.lengths.sum() * 2 + sum(
        side.lengths.sum() for side in (workspace.train.encoded.chosen, workspace.train.encoded.rejected)))  # fmt: skip
    found["head"], _ = measured(lambda: train(first, workspace=workspace))
    second = run(
        folder, data, {"train": {"epochs": epochs}, "model": dict(head), "objective": {"name": "pop"}}, "pop", 1
    )
    found["head, another objective"], _ = measured(lambda: train(second, workspace=workspace))
    found["head, new process"], _ = measured(
        lambda: train(run(folder, data, {"train": {"epochs": epochs}, "model": dict(head)}, "again", 2))
    )
    rows = len(workspace.train)
    freeze_trunks()
    plain = {"train": {"max_steps": steps}, "model": {"path": model}}
    _, (directory, _) = measured(lambda: train(run(folder, data, plain, "plain", 0)))
    lines = [json.loads(line) for line in (directory.path / "timing.jsonl").read_text().splitlines()]
    found["trunk in every step"] = {"steps": steps, "train_seconds": round(directory.facts()["train_seconds"], 2)}
    found["trunk in every step"]["last line"] = lines[-1]
    found["steps of the head's training"] = epochs * -(-rows // BATCH)
    return found


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("votes", type=Path, help="a gzip JSONL file of votes")
    parser.add_argument("--count", type=int, default=1001, help="preferences, of which one is held out")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="steps with the trunk")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "votes.jsonl"
        write_votes(words.votes, data, words.count)
        found = measure(data, Path(folder), epochs=words.epochs, steps=words.steps, model=words.model)
    print(json.dumps(found, indent=1))
    if words.json is not None:
        words.json.write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
