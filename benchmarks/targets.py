"""What a PoP target costs: step time and memory of each kind as a ratio to DPO on the same rows, step by step in turn.

    python benchmarks/targets.py --dtype bf16 --lora --json

Every arm trains on the same preferences; edges are random, one a preference, so that weaker sides are mostly distinct.
"""

import argparse
import dataclasses
import json
import statistics
from typing import Any

from lengths import PROFILES, draw_pairs
from models import SHAPES
from sides import Setting, Side
from step import reference_logps, setting_arguments

ARMS: dict[str, dict[str, str]] = {
    "pop, ema": {"objective": "pop", "target": "ema"},
    "pop, policy": {"objective": "pop", "target": "policy"},
    "pop, bank": {"objective": "pop", "target": "bank"},
    "pop_rank": {"objective": "pop_rank"},
}


def compare_targets(setting: Setting, profile: str = "chat", *, steps: int = 4) -> dict[str, Any]:
    """Seconds a step and peak memory of every arm, each in turn with DPO; the first step of each warms up."""
    pairs = draw_pairs(profile, setting.batch * (steps + 1), SHAPES[setting.model]["vocab_size"])
    reference = reference_logps(setting, pairs)
    result: dict[str, Any] = {"setting": vars(setting), "profile": profile, "arms": {}}
    for arm, values in ARMS.items():
        changed = dataclasses.replace(setting, **values)  # pyright: ignore[reportArgumentType]
        sides = [Side("popmargin", each, pairs, reference) for each in (setting, changed)]
        rows = [[side.step() for side in sides] for _ in range(steps + 1)][1:]
        for side in sides:
            side.close()
        ratios = [row[1]["seconds"] / row[0]["seconds"] for row in rows]
        for name, place in (("dpo", 0), (arm, 1)):
            result["arms"][name] = {
                "step_seconds": statistics.median(row[place]["seconds"] for row in rows),
                "ratio_to_dpo": statistics.median(ratios) if place else 1.0,
                "ratio_spread": [min(ratios), max(ratios)] if place else [1.0, 1.0],
                "peak_mb": max(row[place]["peak_mb"] for row in rows),
            }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=list(PROFILES), default="chat")
    setting_arguments(parser)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    setting = Setting(model=args.model, dtype=args.dtype, lora=args.lora, batch=args.batch, threads=args.threads)
    result = compare_targets(setting, args.profile, steps=args.steps)
    if args.json:
        print(json.dumps(result))
        return
    print(f"{'arm':20} {'s/step':>8} {'ratio to DPO':>14} {'spread':>16} {'peak MB':>9}")
    for arm, row in result["arms"].items():
        low, high = row["ratio_spread"]
        print(f"{arm:20} {row['step_seconds']:8.2f} {row['ratio_to_dpo']:14.2f} {low:8.2f} to {high:5.2f} "
              f"{row['peak_mb']:9.0f}")  # fmt: skip


if __name__ == "__main__":
    main()
