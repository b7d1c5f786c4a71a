"""The reference pass over a data set: our cache against TRL's precomputation, both from nothing to stored values.

python benchmarks/reference.py --dtype fp32 --json
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from lengths import PROFILES, draw_pairs
from models import SHAPES, make_model
from popmargin.engine.memory_pages import use_huge_pages
from popmargin.engine.reference import ReferenceCache, model_fingerprint
from popmargin.models.policies import device
from sides import Setting, make_trl, tokenized_pairs
from step import reference_logps, setting_arguments


def compare_reference(setting: Setting, profile: str, *, count: int = 24, repetitions: int = 3) -> dict[str, Any]:
    """Seconds of both passes in turn over the same preferences; the largest difference of a summed log-prob, nats."""
    from datasets import Dataset

    torch.set_num_threads(setting.threads)
    pairs = draw_pairs(profile, count, SHAPES[setting.model]["vocab_size"])
    tokenized = tokenized_pairs(pairs)
    model = make_model(setting.model, torch.float32).to(device()).eval().requires_grad_(False)
    fingerprint = model_fingerprint(model)
    seconds: list[tuple[float, float]] = []
    exact = reference_logps(setting, pairs)
    differences: list[list[float]] = [[], []]
    with tempfile.TemporaryDirectory() as folder:
        peer = make_trl(setting, pairs, exact, Path(folder) / "trl")
        peer.model = model_of_peer(setting, peer)
        rows = {"prompt_ids": pairs.prompt, "chosen_ids": pairs.chosen, "rejected_ids": pairs.rejected}
        for number in range(repetitions):
            started = time.perf_counter()
            cache = ReferenceCache(Path(folder) / f"ours{number}", fingerprint, setting.dtype, torch.float32)
            ours = cache.preferences(tokenized, lambda: model, tokens_per_batch=4096, pad_id=2)
            middle = time.perf_counter()
            data = Dataset.from_dict({name: [ids.tolist() for ids in side] for name, side in rows.items()})
            data._fingerprint = f"{number}{os.getpid()}"  # so that nothing is found from the last time
            theirs = peer._precompute_ref_logps(data, "benchmark", setting.batch)
            seconds.append((middle - started, time.perf_counter() - middle))
            sums = [float(values.sum()) for values in exact[0]]
            differences[0].append(max(abs(a - b) for a, b in zip(ours.sums()[0], sums, strict=True)))
            differences[1].append(max(abs(a - b) for a, b in zip(theirs["ref_chosen_logps"], sums, strict=True)))
    ratios = [other / mine for mine, other in seconds]
    return {
        "profile": profile,
        "setting": vars(setting),
        "preferences": count,
        "seconds": statistics.median(mine for mine, _ in seconds),
        "peer_seconds": statistics.median(other for _, other in seconds),
        "speedup": statistics.median(ratios),
        "speedup_spread": [min(ratios), max(ratios)],
        "largest_difference_nats": max(differences[0]),
        "peer_largest_difference_nats": max(differences[1]),
    }


def model_of_peer(setting: Setting, peer: Any) -> Any:
    """TRL scores its own policy before training; here that is the same unperturbed model, with TRL's head on it."""
    fresh = make_model(setting.model, torch.float32).to(device())
    peer.model.load_state_dict(fresh.state_dict())
    return peer.model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=list(PROFILES), default="chat")
    setting_arguments(parser)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    setting = Setting(model=args.model, dtype=args.dtype, batch=args.batch, threads=args.threads)
    result = compare_reference(setting, args.profile)
    print(json.dumps(result) if args.json else "\n".join(f"{key:30} {value}" for key, value in result.items()))


if __name__ == "__main__":
    use_huge_pages()
    main()
