"""How popmargin's step cost grows: with the tokens of a pass, the prompt's share, and k edges a preference."""

import time
from typing import Any

import numpy as np
import torch

from lengths import Pairs
from models import SHAPES, make_model
from popmargin.engine.logps import forward_plan, token_logps
from popmargin.engine.sequences import make_sequences, sequences_to
from popmargin.models.policies import device


def scaling_points() -> dict[str, list[dict[str, float]]]:
    """Forward and backward passes of SmolLM2's shape in bf16, seconds; best of three."""
    torch.set_num_threads(2)
    model = make_model("smollm2", torch.float32).to(device())
    return {
        "tokens": [_measure(model, _pairs(count, 120, 120)) for count in (1, 2, 4, 8, 16)],
        "prompt_share": [_measure(model, _pairs(4, prompt, 120)) for prompt in (15, 60, 120, 240, 480)],
        # k edges a preference: every preference stands in k rows of an epoch and is forwarded once a batch.
        "edges": [{"k": k, **_distinct(k)} for k in (1, 2, 4)],
    }


def _pairs(count: int, prompt: int, completion: int) -> Pairs:
    random = np.random.default_rng(0)

    def tokens(length: int) -> list[np.ndarray]:
        return [random.integers(3, SHAPES["smollm2"]["vocab_size"], size=length) for _ in range(count)]

    return Pairs(tokens(prompt), tokens(completion), tokens(completion))


def _measure(model: Any, pairs: Pairs) -> dict[str, float]:
    plan = forward_plan(model)
    sequences = make_sequences(pairs.prompt * 2, pairs.chosen + pairs.rejected, 2, plan.layout)
    sequences = sequences_to(sequences, device())
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        token_logps(model, sequences, precision="bf16", plan=plan).sum().backward()
        best = min(best, time.perf_counter() - started)
        model.zero_grad()
    tokens = float(sequences["input_ids"].numel())
    whole = float(
        sum(2 * len(p) + len(c) + len(r) for p, c, r in zip(pairs.prompt, pairs.chosen, pairs.rejected, strict=True))
    )
    return {"tokens": tokens, "padded_tokens": whole, "prompt": float(len(pairs.prompt[0])), "seconds": best}


def _distinct(k: int) -> dict[str, float]:
    """Preferences forwarded in a clustered batch of 32 edges, of 256 preferences with k random edges each."""
    from popmargin.training.batches import TrainingRows, clustered_order

    random = np.random.default_rng(0)
    stronger = np.tile(np.arange(256), k)
    weaker = (stronger + random.integers(1, 256, size=len(stronger))) % 256
    rows = TrainingRows.of_edges(stronger, weaker, 256, everyone=False)
    found = {}
    for name, order in (
        ("random", random.permutation(len(rows))),
        ("clustered", np.array(clustered_order(rows, 32, 0))),
    ):
        batches = [order[start : start + 32] for start in range(0, len(order), 32)]
        found[name] = float(np.mean([len(set(stronger[b]) | set(weaker[b])) for b in batches]))
    return found
