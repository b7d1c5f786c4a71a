"""What keeping the outputs of frozen layers saves: a policy pass with an adapter on the last layers, with and without.

    python benchmarks/frozen.py --json

Forward and backward pass, batch by batch in turn, bf16, SmolLM2-135M's shape. The outputs are kept in a first epoch and
used in a second one; both are timed.
"""

import argparse
import copy
import json
import statistics
import time
from typing import Any

import torch

from lengths import draw_pairs
from models import SHAPES, make_model
from popmargin.config import ModelConfig
from popmargin.engine.frozen import FrozenOutputs
from popmargin.engine.logps import ForwardPlan, forward_plan, token_logps
from popmargin.engine.sequences import Sequences, make_sequences, sequences_to
from popmargin.models.policies import device, make_policy

LAYERS = (4, 8)


def compare_frozen(
    layers: tuple[int, ...] = LAYERS, *, model: str = "smollm2", batches: int = 6, batch: int = 4, threads: int = 2
) -> list[dict[str, float]]:
    """For every number of adapted layers: seconds a pass without and with kept outputs, and what they differ by."""
    torch.set_num_threads(threads)
    start = make_model(model, torch.bfloat16).to(device()).requires_grad_(False)
    pairs = draw_pairs("chat", batches * batch, SHAPES[model]["vocab_size"])
    rows: list[Sequences] = []
    for first in range(0, len(pairs), batch):
        some = slice(first, first + batch)
        prompts, completions = pairs.prompt[some] * 2, pairs.chosen[some] + pairs.rejected[some]
        rows.append(sequences_to(make_sequences(prompts, completions, 2, "packed"), device()))
    return [_compare(start, rows, count) for count in layers]


def _compare(start: Any, rows: list[Sequences], layers: int) -> dict[str, float]:
    plain = make_policy(start, ModelConfig(precision="bf16", lora_rank=16, lora_last_layers=layers))
    policy, outputs = copy.deepcopy(plain), FrozenOutputs(8.0)
    plan = forward_plan(plain)
    shared = outputs.share(policy, forward_plan(policy))
    if shared.lower is None:
        raise SystemExit("outputs of frozen layers are not kept here; the log says why")
    _pass(plain, plan, rows[0])  # warms up, and keeps nothing
    first, second = [[(_pass(plain, plan, row), _pass(policy, shared, row)) for row in rows] for _ in range(2)]
    ratios = [without[0] / kept[0] for without, kept in second]
    return {
        "layers": layers,
        "seconds": statistics.median(without[0] for without, _ in second),
        "kept_seconds": statistics.median(kept[0] for _, kept in second),
        "speedup": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "first_epoch": statistics.median(without[0] / kept[0] for without, kept in first),
        "largest_difference_nats": max(float((kept[1] - without[1]).abs().max()) for without, kept in second),
    }


def _pass(policy: Any, plan: ForwardPlan, row: Sequences) -> tuple[float, torch.Tensor]:
    started = time.perf_counter()
    logps = token_logps(policy, row, precision="bf16", plan=plan)
    logps.sum().backward()
    seconds = time.perf_counter() - started
    policy.zero_grad()
    return seconds, logps.detach().float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(SHAPES), default="smollm2")
    parser.add_argument("--layers", type=int, nargs="+", default=LAYERS, help="adapted layers to try")
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = compare_frozen(tuple(args.layers), model=args.model, batches=args.batches, threads=args.threads)
    if args.json:
        print(json.dumps(found))
        return
    for row in found:
        print(
            f"{row['layers']} adapted layers: {row['seconds']:.2f} s a pass, {row['kept_seconds']:.2f} s kept, "
            f"{row['speedup']:.2f}× [{row['lowest']:.2f}, {row['highest']:.2f}]; first epoch {row['first_epoch']:.2f}×"
        )


if __name__ == "__main__":
    main()
