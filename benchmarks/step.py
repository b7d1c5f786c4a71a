"""One training step of popmargin against TRL's DPOTrainer: same batches, same weights, same dtype, interleaved.

    python benchmarks/step.py --profile chat --dtype fp32 --json

Prints step time, tokens per second, peak memory, the differences of loss and gradient, and the ratio with its spread.
`mfu` is the share of popmargin's step that the matrix products it needs would take alone, at the rate measured for
their shapes in this run; a recomputed product counts as overhead. `teraflops` is what these products come to in a
second.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lengths import PROFILES, draw_pairs
from matmuls import needed_flops, needed_seconds
from models import SHAPES, make_model
from popmargin.engine.logps import forward_plan, token_logps
from popmargin.engine.sequences import make_sequences, sequences_to
from popmargin.models.policies import device
from sides import Setting, Side


def reference_logps(setting: Setting, pairs: Any) -> tuple[list[Any], list[Any]]:
    """Token log-probs of both responses under the unperturbed model, in fp32: both sides get the same."""
    model = make_model(setting.model, torch.float32).to(device()).eval()
    plan = forward_plan(model)
    sides: list[list[np.ndarray]] = [[], []]
    with torch.no_grad():
        for prompt, *completions in zip(pairs.prompt, pairs.chosen, pairs.rejected, strict=True):
            sequences = sequences_to(make_sequences([prompt] * 2, completions, 0, plan.layout), device())
            values = token_logps(model, sequences, plan=plan).cpu().numpy()
            for side, part in zip(sides, np.split(values, [len(completions[0])]), strict=True):
                side.append(part)
    del model, plan
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # both sides have the whole card
    return sides[0], sides[1]


def cpu_name() -> str:
    """The CPU as Linux calls it, and whether it multiplies bf16 matrices itself."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    bf16 = "with" if "avx512_bf16" in text or "amx_bf16" in text else "without"
    return f"{names[0] if names else 'cpu'} {bf16} bf16"


def compare(
    setting: Setting, profile: str, *, steps: int, peer: bool, seed: int = 0, spread: bool = True
) -> dict[str, Any]:
    """Steps of both sides in turn; the first one warms up and gives the gradient."""
    torch.set_num_threads(setting.threads)
    count = setting.batch * (steps + 1)
    pairs = draw_pairs(profile, count, SHAPES[setting.model]["vocab_size"], seed=seed, spread=spread)
    reference = reference_logps(setting, pairs)
    sides = [Side(name, setting, pairs, reference) for name in ("popmargin", "trl")[: 2 if peer else 1]]
    first = [side.step() for side in sides]
    gradients = [side.gradient() for side in sides]
    rows: list[list[dict[str, Any]]] = []
    for number in range(steps):
        turn = sides if number % 2 == 0 else sides[::-1]
        found = {side.name: side.step() for side in turn}
        rows.append([found[side.name] for side in sides])
    for side in sides:
        side.close()
    measured = range(setting.batch, len(pairs))
    lengths = [(len(pairs.prompt[i]), len(pairs.chosen[i]), len(pairs.rejected[i])) for i in measured]
    seconds = statistics.median(row[0]["seconds"] for row in rows)
    useful = sum(sum(length) for length in lengths) / steps
    steps_lengths = [lengths[n * setting.batch : (n + 1) * setting.batch] for n in range(steps)]
    result: dict[str, Any] = {
        "profile": profile,
        "equal_lengths": not spread,
        "setting": vars(setting),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{cpu_name()}, {setting.threads} threads",
        "tokens_per_step": useful,
        "step_seconds": seconds,
        "tokens_per_second": useful / seconds,
        "peak_mb": max(row[0]["peak_mb"] for row in rows),
        "mfu": statistics.median(
            needed_seconds(setting, some) / row[0]["seconds"] for some, row in zip(steps_lengths, rows, strict=True)
        ),
        "teraflops": statistics.median(
            needed_flops(setting, some) / row[0]["seconds"] / 1e12
            for some, row in zip(steps_lengths, rows, strict=True)
        ),
    }
    if peer:
        ratios = [row[1]["seconds"] / row[0]["seconds"] for row in rows]
        losses = [(row[0]["loss"], row[1]["loss"]) for row in [first, *rows]]
        ours, theirs = gradients
        result |= {
            "peer_step_seconds": statistics.median(row[1]["seconds"] for row in rows),
            "peer_peak_mb": max(row[1]["peak_mb"] for row in rows),
            "speedup": statistics.median(ratios),
            "speedup_spread": [min(ratios), max(ratios)],
            "memory_ratio": result["peak_mb"] / max(row[1]["peak_mb"] for row in rows),
            "loss_rel_diff": max(abs(mine - other) / abs(other) for mine, other in losses),
            "grad_rel_diff": float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)),
        }
    return result


def setting_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of a `Setting`."""
    parser.add_argument("--model", choices=list(SHAPES), default="smollm2")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--lora", action="store_true", help="LoRA of rank 16 on all linear layers")
    parser.add_argument("--compile", action="store_true", help="popmargin's train.compile")
    parser.add_argument("--batch", type=int, default=4, help="preferences in an optimizer step")
    parser.add_argument("--tokens_per_batch", type=int, help="popmargin's token budget of a forward pass")
    parser.add_argument("--threads", type=int, default=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=list(PROFILES), default="chat")
    setting_arguments(parser)
    parser.add_argument("--reference", choices=["cached", "every_step"], default="cached", help="of the peer")
    parser.add_argument("--no_statistics", action="store_true", help="popmargin logs no entropy and top-1 agreement")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--peer", choices=["trl", "none"], default="trl")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--equal_lengths", action="store_true", help="every prompt and completion as long as the mean")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    setting = Setting(
        model=args.model,
        dtype=args.dtype,
        lora=args.lora,
        batch=args.batch,
        tokens_per_batch=args.tokens_per_batch,
        statistics=not args.no_statistics,
        compile=args.compile,
        reference=args.reference,
        threads=args.threads,
    )
    result = compare(setting, args.profile, steps=args.steps, peer=args.peer == "trl", seed=args.seed,
                     spread=not args.equal_lengths)  # fmt: skip
    if args.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:20} {value:.4g}" if isinstance(value, float) else f"{key:20} {value}")


if __name__ == "__main__":
    main()
