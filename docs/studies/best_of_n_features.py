"""Features of every sample for the best-of-n study: mean hidden states over its tokens, and the log of its length.

    python docs/studies/best_of_n_features.py runs/best-of-n/features.npz runs/best-of-n/*.parquet

`popmargin study best-of-n` computes features itself if no file is given. Here only the first 8 of the model's 30
layers run: a third of the time. Samples that the file has already are not computed again.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from popmargin import Responses
from popmargin.models.demo_model import demo_model_path
from popmargin.study.budget.head_features import text_key

LAYERS, BATCH = (4, 8), 128


def distinct(files: list[Path]) -> list[tuple[str, str]]:
    """Prompt and response of each distinct sample, the shortest first."""
    found: dict[tuple[str, str], None] = {}
    for file in files:
        for row in Responses.load(file):
            found.update(dict.fromkeys((row["prompt"], one["text"]) for one in row["responses"] if one["text"].strip()))
    return sorted(found, key=lambda pair: len(pair[0]) + len(pair[1]))


@torch.no_grad()
def states(model: Any, tokenizer: Any, pairs: list[tuple[str, str]]) -> np.ndarray:
    """Mean hidden states of each layer over the tokens of the responses, and the log of their number."""
    prompts = [tokenizer(prompt)["input_ids"] for prompt, _ in pairs]
    whole = [[*ids, *tokenizer(text, add_special_tokens=False)["input_ids"]]
             for ids, (_, text) in zip(prompts, pairs, strict=True)]  # fmt: skip
    width = max(map(len, whole))
    ids, mask, own = torch.zeros(3, len(pairs), width, dtype=torch.long)
    for row, (start, tokens) in enumerate(zip(prompts, whole, strict=True)):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
        own[row, len(start) : len(tokens)] = 1
    found = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states
    weight, count = own[..., None].float(), own.sum(1, keepdim=True).float()
    return torch.cat([*((found[layer] * weight).sum(1) / count for layer in LAYERS), count.log()], 1).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("samples", type=Path, nargs="+")
    args = parser.parse_args()
    known: dict[str, np.ndarray] = {}
    if args.target.exists():
        with np.load(args.target) as held:
            known = dict(zip(held["keys"].tolist(), held["features"], strict=True))
    pairs = [pair for pair in distinct(args.samples) if text_key(*pair) not in known]
    path, began = str(demo_model_path()), time.perf_counter()
    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval().model
    model.layers, model.norm = model.layers[: max(LAYERS)], torch.nn.Identity()
    for start in range(0, len(pairs), BATCH):
        some = pairs[start : start + BATCH]
        known.update(zip((text_key(*pair) for pair in some), states(model, tokenizer, some), strict=True))
    np.savez(args.target, features=np.array(list(known.values()), dtype=np.float32), keys=np.array(list(known)))
    print(f"{args.target}: {len(known)} samples, {len(pairs)} of them new; {time.process_time():.0f} s of processor "
          f"time, {time.perf_counter() - began:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()
