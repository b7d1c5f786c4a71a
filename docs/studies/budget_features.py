"""Features of every response for the budget study: mean hidden states of the embedded model, and the log of the length.

    python docs/studies/budget_features.py runs/budget/ukp.jsonl runs/budget/ukp.npz --max-length 160

`popmargin study budget` computes features itself if no file is given. Here only the first 20 of the model's 30 layers
run, in bf16, and long texts are cut sooner: a tenth of the time.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from popmargin.models.demo_model import demo_model_path
from popmargin.study.budget.head_features import text_key

LAYERS, BATCH = (8, 14, 20), 8


def texts_of(path: Path) -> list[tuple[str, str]]:
    """Prompt and response of each distinct response, the shortest first."""
    found: dict[tuple[str, str], None] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        both = (
            [row["response_a"], row["response_b"]] if "response_a" in row else [one["text"] for one in row["responses"]]
        )
        found.update(dict.fromkeys((row["prompt"], text) for text in both))
    return sorted(found, key=lambda pair: len(pair[0]) + len(pair[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--max-length", type=int, default=160)
    args = parser.parse_args()
    path = str(demo_model_path())
    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval().model
    model.layers, model.norm = model.layers[: max(LAYERS)], torch.nn.Identity()
    texts, features, began = texts_of(args.source), list[np.ndarray](), time.perf_counter()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(texts), BATCH):
            both = ["\n".join(pair) for pair in texts[start : start + BATCH]]
            batch = tokenizer(both, return_tensors="pt", padding=True, truncation=True, max_length=args.max_length)
            states = model(**batch, output_hidden_states=True, use_cache=False).hidden_states
            mask = batch["attention_mask"][..., None].float()
            tokens = mask.sum(1)
            means = [(states[layer].float() * mask).sum(1) / tokens for layer in LAYERS]
            features.append(torch.cat([*means, tokens.log()], 1).numpy())
    keys = np.array([text_key(*pair) for pair in texts])
    np.savez(args.target, features=np.concatenate(features).astype(np.float32), keys=keys)
    print(f"{args.target}: {len(texts)} responses, {time.process_time():.0f} s of processor time, "
          f"{time.perf_counter() - began:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()
