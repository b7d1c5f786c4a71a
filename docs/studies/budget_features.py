"""Features of every response for the budget study: mean hidden states of the embedded model, and the log of the length.

    python docs/studies/budget_features.py runs/budget/ukp.jsonl runs/budget/ukp.npz --max-length 160 --bf16
    python docs/studies/budget_features.py runs/budget/alpacaeval.jsonl runs/budget/alpacaeval.npz --layers 8 14 \
        --max-length 96 --prompt-tokens 24

`popmargin study budget` computes features itself if no file is given. Here only the first of the model's 30 layers run,
and long texts are cut sooner: a tenth of the time. --bf16 is faster on a CPU that has it, and far slower on others.

With --prompt-tokens a long prompt leaves room for the response: its last tokens are kept, the means are over the
response's tokens, and the length is that of the whole response in characters.
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

BATCH = 8


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


def encoded(tokenizer: Any, pair: tuple[str, str], max_length: int, prompt_tokens: int | None) -> tuple[list[int], int]:
    """Tokens of prompt and response, and how many of them are context only."""
    if prompt_tokens is None:
        return tokenizer("\n".join(pair))["input_ids"][:max_length], 0
    prompt = tokenizer(pair[0] + "\n")["input_ids"][-prompt_tokens:]
    return (prompt + tokenizer(pair[1] + "\n")["input_ids"])[:max_length], len(prompt)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--max-length", type=int, default=160, help="tokens of prompt and response")
    parser.add_argument("--prompt-tokens", type=int, help="tokens that are left of a prompt")
    parser.add_argument("--layers", type=int, nargs="+", default=[8, 14, 20])
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    path = str(demo_model_path())
    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval().model
    model.layers, model.norm = model.layers[: max(args.layers)], torch.nn.Identity()
    began = time.perf_counter()
    texts = texts_of(args.source)
    rows = [encoded(tokenizer, pair, args.max_length, args.prompt_tokens) for pair in texts]
    order = sorted(range(len(rows)), key=lambda place: len(rows[place][0]))
    features = np.empty((len(rows), len(args.layers) * model.config.hidden_size + 1), dtype=np.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            lengths = torch.tensor([len(rows[place][0]) for place in some])
            ids = torch.zeros(len(some), int(lengths.max()), dtype=torch.long)
            for row, place in enumerate(some):
                ids[row, : lengths[row]] = torch.tensor(rows[place][0])
            steps = torch.arange(ids.shape[1])[None]
            before = torch.tensor([rows[place][1] for place in some])
            states = model(
                input_ids=ids, attention_mask=(steps < lengths[:, None]).long(), output_hidden_states=True,
                use_cache=False,
            ).hidden_states  # fmt: skip
            mask = ((steps >= before[:, None]) & (steps < lengths[:, None]))[..., None].float()
            tokens = mask.sum(1)
            means = [(states[layer].float() * mask).sum(1) / tokens for layer in args.layers]
            whole = torch.tensor([[1.0 + len(texts[place][1])] for place in some])
            length = tokens if args.prompt_tokens is None else whole
            features[some] = torch.cat([*means, length.log()], 1).numpy()
            if start % (32 * BATCH) == 0:
                print(f"{start} of {len(rows)}, {time.process_time():.0f} s", flush=True)
    keys = np.array([text_key(*pair) for pair in texts])
    np.savez(args.target, features=features, keys=keys)
    print(f"{args.target}: {len(texts)} responses, {time.process_time():.0f} s of processor time, "
          f"{time.perf_counter() - began:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()
