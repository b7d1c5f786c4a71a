"""Preferences of the UKP argument-convincingness data for the studies: topics apart, votes as ratings.

    python docs/studies/ukp.py ukpconvarg.jsonl.gz runs/ukp

Writes train.parquet and test.parquet. A rating is the share of the five votes that a response got, times five, so that
the rating gap is the strength in votes; `soft_label` is the share of chosen's votes among those that decided. Ties are
left out, and pairs with a response over 400 characters. 100 preferences of every topic: 5 topics with all their stances
are for testing, the other 8 for training and validation.
"""

import argparse
import gzip
import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

TEST_TOPICS, PER_TOPIC, LONGEST = 5, 100, 400


def preference(row: dict[str, Any], number: int) -> dict[str, Any] | None:
    """One row as a preference; None for ties and long responses."""
    votes, texts = (row["votes_a"], row["votes_b"]), (row["response_a"], row["response_b"])
    if votes[0] == votes[1] or max(map(len, texts)) > LONGEST or texts[0] == texts[1]:
        return None
    best = int(votes[1] > votes[0])
    everyone = sum(votes) + row["votes_equal"]
    question = row["topic"].partition("_")[0].strip("-").replace("-", " ")
    return {
        "id": f"ukp-{number}",
        "prompt": f"{question.capitalize()}? Give one argument for this position: {row['stance']}.",
        "chosen": texts[best],
        "rejected": texts[1 - best],
        "chosen_rating": 5 * votes[best] / everyone,
        "rejected_rating": 5 * votes[1 - best] / everyone,
        "soft_label": votes[best] / sum(votes),
        "topic": question,
    }


def order(seed: str, text: str) -> bytes:
    """A fixed random order that does not depend on the order of the rows."""
    return hashlib.sha256(f"{seed}\x1f{text}".encode()).digest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    with gzip.open(args.source, "rt", encoding="utf-8") as lines:
        rows = [found for number, line in enumerate(lines) if (found := preference(json.loads(line), number))]
    topics: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: order("row", row["id"])):
        topics[row.pop("topic")].append(row)
    names = sorted(topics, key=lambda topic: order("topic", topic))
    parts = {
        "test": [row for topic in names[:TEST_TOPICS] for row in topics[topic][:PER_TOPIC]],
        "train": [row for topic in names[TEST_TOPICS:] for row in topics[topic][:PER_TOPIC]],
    }
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        pq.write_table(pa.Table.from_pylist(part), args.folder / f"{name}.parquet")
        print(
            f"{args.folder / name}.parquet: {len(part)} preferences of {len({row['prompt'] for row in part})} prompts"
        )


if __name__ == "__main__":
    main()
