"""Prompts of the best-of-n study: the first words of film reviews, and the reviews that teach the gold classifier.

    python docs/studies/best_of_n_data.py imdb.jsonl.gz runs/best-of-n

Writes `training.jsonl` and `prompts.jsonl`, the first five words of some reviews (preferences are made from samples of
the former, the latter only measure), and `reviews.jsonl`, all reviews that do not begin with the words of a prompt.
"""

import argparse
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

WORDS = 5


def rank(text: str) -> bytes:
    """A fixed random order that does not depend on the order of the rows."""
    return hashlib.sha256(f"best-of-n\x1f{text}".encode()).digest()


def opening(text: str) -> str:
    """The first words of a review."""
    return " ".join(text.split()[:WORDS])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--training", type=int, default=100, help="prompts of preferences (default: %(default)s)")
    parser.add_argument("--prompts", type=int, default=400, help="prompts that measure (default: %(default)s)")
    args = parser.parse_args()
    with gzip.open(args.source, "rt", encoding="utf-8") as lines:
        rows: list[dict[str, Any]] = sorted((json.loads(line) for line in lines), key=lambda row: rank(row["id"]))
    starts = list(dict.fromkeys(opening(row["text"]) for row in rows))[: args.training + args.prompts]
    known = set(starts)
    made = {
        "training": [{"prompt": start} for start in starts[: args.training]],
        "prompts": [{"prompt": start} for start in starts[args.training :]],
        "reviews": [{"text": row["text"], "stars": row["stars"]} for row in rows if opening(row["text"]) not in known],
    }
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, some in made.items():
        target = args.folder / f"{name}.jsonl"
        target.write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
        print(f"{target}: {len(some)} of {len(rows)} reviews")


if __name__ == "__main__":
    main()
