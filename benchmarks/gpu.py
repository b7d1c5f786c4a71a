"""Comparisons with TRL on a GPU, and of three ways to compute attention over packed rows.

    python benchmarks/gpu.py

Adds a line to results_gpu.jsonl for each as soon as it is measured, and passes over what is there. `1b` has the shape
of Llama 3.2 1B; SmolLM2 is so small for a large card that its steps wait for Python on both sides.
"""

import argparse
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attention import compare_attention
from sides import Setting
from step import compare
from stored import measure_missing, read_results

RESULTS = Path(__file__).parent / "results_gpu.jsonl"


def plan(steps: int) -> dict[str, Callable[[], Any]]:
    """Name of every comparison, and what runs it."""
    entries: dict[str, Callable[[], Any]] = {}

    def step(name: str, profile: str, *, spread: bool = True, **values: Any) -> None:
        setting = Setting(dtype="bf16", threads=4, **values)
        entries[name] = lambda: compare(setting, profile, steps=steps, peer=True, spread=spread)

    step("1b, responses of 1,500 tokens", "long", model="1b", batch=2)
    step("1b, equal lengths", "long", model="1b", batch=2, spread=False)
    step("1b, chat", "chat", model="1b", batch=8)
    entries["attention: 1b, long"] = lambda: compare_attention("1b", "long", 2)
    entries["attention: smollm2, chat"] = lambda: compare_attention("smollm2", "chat", 16)
    step("1b, equal lengths, larger batch", "long", model="1b", batch=8, spread=False)
    step("1b, equal lengths, larger batch, compiled", "long", model="1b", batch=8, spread=False, compile=True)
    step("1b, LoRA", "long", model="1b", batch=2, lora=True)
    step("SmolLM2, responses of 1,500 tokens", "long", model="smollm2", batch=4)
    step("SmolLM2, chat", "chat", model="smollm2", batch=16)
    return entries


def results() -> dict[str, Any]:
    """What was measured, by name."""
    return read_results(RESULTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    args = parser.parse_args()
    multiprocessing.set_forkserver_preload(["sides", "trl.trainer.dpo_trainer", "popmargin.training.run"])
    measure_missing(RESULTS, plan(args.steps))


if __name__ == "__main__":
    main()
