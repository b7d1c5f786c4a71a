"""Draw the demo's completions from SmolLM2-135M-Instruct and rate them with VADER.

Every prompt gets `draws` completions in one batch; the first four that end by themselves within the token limit are
kept, in the order drawn, and a prompt with fewer is dropped. Nothing is selected by rating.

    python -m popmargin.demo.make_data OUT.parquet
"""

import argparse
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from popmargin.demo.prompts import SYSTEM, prompts
from popmargin.demo.sentiment import sentiment
from popmargin.files import PARQUET, whole_file
from popmargin.models.policies import load_model, load_tokenizer

KEEP = 4
SAMPLING: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "top_k": 50, "top_p": 1.0}


def draw(model: Any, tokenizer: Any, user_prompts: list[str], draws: int, max_new_tokens: int) -> list[list[str]]:
    """Completions that ended by themselves, for each prompt, in the order drawn."""
    chats = [[{"role": "system", "content": SYSTEM}, {"role": "user", "content": p}] for p in user_prompts]
    texts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
    batch = tokenizer(
        [t for t in texts for _ in range(draws)],
        return_tensors="pt",
        padding=True,
        padding_side="left",
        add_special_tokens=False,
    )
    with torch.no_grad():
        output = model.generate(**batch, max_new_tokens=max_new_tokens, pad_token_id=tokenizer.pad_token_id, **SAMPLING)
    rows = output[:, batch["input_ids"].shape[1] :].tolist()
    kept: list[list[str]] = [[] for _ in user_prompts]
    for position, row in enumerate(rows):
        if tokenizer.eos_token_id in row:
            text = tokenizer.decode(row[: row.index(tokenizer.eos_token_id)], skip_special_tokens=True).strip()
            if text and text not in kept[position // draws]:
                kept[position // draws].append(text)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--max_new_tokens", type=int, default=36)
    parser.add_argument("--seed", type=int, default=20260901)
    parser.add_argument("--prompts_per_batch", type=int, default=8)
    args = parser.parse_args()

    model, tokenizer = load_model("demo", torch.bfloat16), load_tokenizer("demo")
    model.eval()
    everything = prompts()
    rows: list[dict[str, Any]] = []
    for start in range(0, len(everything), args.prompts_per_batch):
        chunk = everything[start : start + args.prompts_per_batch]
        torch.manual_seed(args.seed + start)  # each batch has its own seed: adding prompts does not change the others
        for prompt, kept in zip(chunk, draw(model, tokenizer, chunk, args.draws, args.max_new_tokens), strict=True):
            if len(kept) >= KEEP:
                rows.append(
                    {
                        "prompt": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}],
                        "responses": [{"text": t, "rating": round(sentiment(t), 4)} for t in kept[:KEEP]],
                    }
                )
        print(f"{start + len(chunk)} prompts drawn, {len(rows)} kept", flush=True)
    with whole_file(args.out, PARQUET) as partial:
        pq.write_table(pa.Table.from_pylist(rows), partial, compression="zstd")
    print(f"wrote {len(rows)} prompts x {KEEP} completions to {args.out}")


if __name__ == "__main__":
    main()
