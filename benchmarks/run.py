"""All comparisons, one after the other; writes docs/performance.md and its figure from what was measured.

    python benchmarks/run.py            run what is not in benchmarks/results.jsonl yet, then write the page
    python benchmarks/run.py --write    only write the page

A comparison takes minutes. One that was stopped is run again the next time; delete its line to measure it anew.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu
from frozen import compare_frozen
from images import compare as compare_images
from performance_page import write_page
from reference import compare_reference
from scaling import scaling_points
from sides import Setting
from step import compare
from stored import measure_missing, read_results
from targets import compare_targets

RESULTS = Path(__file__).parent / "results.jsonl"


def plan() -> dict[str, Callable[[], Any]]:
    """Name of every comparison, and what runs it."""
    entries: dict[str, Callable[[], Any]] = {}

    def step(name: str, profile: str, *, steps: int = 4, spread: bool = True, **values: Any) -> None:
        entries[name] = lambda: compare(Setting(**values), profile, steps=steps, peer=True, spread=spread)

    step("chat, fp32", "chat", dtype="fp32")
    step("chat, bf16", "chat", dtype="bf16")
    step("long prompt, bf16", "long_prompt", dtype="bf16", batch=2)  # 4 do not fit into the peer's 24 GB
    step("long completion, bf16", "long_completion", dtype="bf16", batch=2)
    step("chat, bf16, compiled", "chat", dtype="bf16", compile=True)
    step("chat, fp32, compiled", "chat", dtype="fp32", compile=True)
    step("chat, bf16, LoRA", "chat", dtype="bf16", lora=True)
    step("chat, bf16, equal lengths", "chat", dtype="bf16", spread=False)
    step("chat, fp32, equal lengths", "chat", dtype="fp32", spread=False)
    step("long prompt, bf16, equal lengths", "long_prompt", dtype="bf16", batch=2, spread=False)
    step("chat, fp32, 512 tokens a pass", "chat", dtype="fp32", tokens_per_batch=512)
    step("chat, fp32, TRL's reference every step", "chat", dtype="fp32", reference="every_step")
    for profile in ("chat", "long_prompt", "long_completion"):
        step(f"tiny model, {profile.replace('_', ' ')}, fp32", profile, model="tiny", batch=8, steps=10)
    step("long prompt, fp32", "long_prompt", dtype="fp32", batch=1)  # nor do 2 in fp32
    step("long completion, fp32", "long_completion", dtype="fp32", batch=1)
    step("chat, fp32, LoRA", "chat", dtype="fp32", lora=True)
    for dtype in ("fp32", "bf16"):
        entries[f"reference pass, {dtype}"] = lambda dtype=dtype: compare_reference(Setting(dtype=dtype), "chat")
    entries["targets, full, bf16"] = lambda: compare_targets(Setting(dtype="bf16"))
    entries["targets, LoRA, bf16"] = lambda: compare_targets(Setting(dtype="bf16", lora=True))
    entries["frozen layers"] = compare_frozen
    entries["scaling"] = scaling_points
    for size, draws in ((128, 0), (128, 8), (256, 0), (256, 8)):
        name = f"images of {size} pixels, {f'{draws} fixed draws' if draws else 'new draws in every step'}"
        entries[name] = lambda size=size, draws=draws: compare_images(
            channels=32, size=size, batch=4, steps=6, draws=draws, threads=1
        )
    return entries


def results() -> dict[str, Any]:
    """What was measured, by name."""
    return read_results(RESULTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="only write the page")
    parser.add_argument("--only", help="run only comparisons whose name contains this")
    args = parser.parse_args()
    if not args.write:
        measure_missing(RESULTS, plan(), args.only)
    write_page(results(), list(plan()), gpu.results())


if __name__ == "__main__":
    main()
