"""What a PoP target costs: step time and memory of each target kind, as a ratio to DPO on the same rows.

Every arm trains the same number of rows from the same start; arms are interleaved over the repetitions, so that a
change of the machine's speed meets all of them.

    python benchmarks/targets.py [--repetitions 3] [--rows 64] [--json]
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from popmargin.config import RunConfig, from_dict, merge
from popmargin.training.prepare import Workspace
from popmargin.training.run import train

ARMS: dict[str, dict[str, Any]] = {
    "dpo": {"objective": {"name": "dpo"}},
    "dpo_stronger": {"objective": {"name": "dpo_stronger"}},
    "pop, ema": {"objective": {"name": "pop"}, "target": {"kind": "ema"}},
    "pop, policy": {"objective": {"name": "pop"}, "target": {"kind": "policy"}},
    "pop, bank": {"objective": {"name": "pop"}, "target": {"kind": "bank"}},
    "pop_rank, random batches": {"objective": {"name": "pop_rank"}},
    "pop_rank, clustered batches": {"objective": {"name": "pop_rank"}, "train": {"edge_batching": "clustered"}},
}
BASE: dict[str, Any] = {
    "model": {"path": "demo", "precision": "bf16", "lora_rank": 16, "lora_last_layers": 10},
    "train": {"batch_size": 16, "learning_rate": 1e-4},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--rows", type=int, default=64, help="training preferences (and PoP edges, k = 1)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        shared = merge(BASE, {"data": {"limit": args.rows}})
        workspace = Workspace(from_dict(RunConfig, shared))
        for _ in range(args.repetitions):
            for arm, changes in ARMS.items():
                place = {"output": str(Path(folder) / "run"), "name": arm}
                config = from_dict(RunConfig, merge(merge(shared, changes), place))
                directory, _ = train(config, workspace=workspace, overwrite=True)
                facts = directory.facts()
                seconds[arm].append(facts["train_seconds"] / facts["steps"])
                memory[arm] = facts["peak_memory_mb"]
    result = {
        arm: {
            "step_seconds": statistics.median(times),
            "ratio_to_dpo": statistics.median(a / b for a, b in zip(times, seconds["dpo"], strict=True)),
            "ratio_spread": [
                min(a / b for a, b in zip(times, seconds["dpo"], strict=True)),
                max(a / b for a, b in zip(times, seconds["dpo"], strict=True)),
            ],
            "peak_memory_mb": memory[arm],
        }
        for arm, times in seconds.items()
    }
    if args.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{'arm':28} {'s/step':>8} {'ratio to DPO':>14} {'spread':>16} {'peak MB':>9}")
    for arm, row in result.items():
        low, high = row["ratio_spread"]
        print(
            f"{arm:28} {row['step_seconds']:8.2f} {row['ratio_to_dpo']:14.2f} {low:7.2f} to {high:5.2f} "
            f"{row['peak_memory_mb']:9.0f}"
        )


if __name__ == "__main__":
    main()
