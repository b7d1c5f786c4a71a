"""The data of the budget study: human votes, human ratings, and a judge's, in layouts that `popmargin` reads.

    python docs/studies/budget_data.py ukpconvarg.jsonl.gz runs/budget/ukp.jsonl
    python docs/studies/budget_data.py hanna.jsonl.gz runs/budget/hanna.jsonl
    python docs/studies/budget_data.py ultrafeedback.jsonl.gz runs/budget/ultrafeedback.jsonl
    python docs/studies/budget_data.py alpacaeval.jsonl.gz runs/budget/alpacaeval.jsonl --skip 110 --responses 4

UKP arguments keep their votes; the topic has both of its positions, which stay together in every split. A story of
HANNA is rated by the mean of its six criteria, and an answer of UltraFeedback by GPT-4. Of AlpacaEval, prompts and
models are drawn by a hash. A response's rating is the log-odds of its win probability, which the judge gives down to
one in a million: most are below one in a thousand, where popmargin itself would cut them off, and they are still in
order.
"""

import argparse
import gzip
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LEAST = 1e-6  # of a win probability: the judge gives no smaller one
CRITERIA = ("Relevance", "Coherence", "Empathy", "Surprise", "Engagement", "Complexity")


def rank(seed: str, text: str) -> bytes:
    """A fixed random order that does not depend on the order of the rows."""
    return hashlib.sha256(f"{seed}\x1f{text}".encode()).digest()


def ukp(row: dict[str, Any], number: int) -> dict[str, Any]:
    topic = row["topic"].partition("_")[0].strip("-").replace("-", " ")
    return {
        "id": f"ukp-{number}",
        "prompt": f"{topic.capitalize()}? Give one argument for this position: {row['stance']}.",
        **{name: row[name] for name in ("response_a", "response_b", "votes_a", "votes_equal", "votes_b")},
        "topic": topic,
    }


def hanna(row: dict[str, Any], number: int) -> dict[str, Any]:
    stories = [{"text": one["text"], "rating": sum(one[name] for name in CRITERIA) / 6} for one in row["responses"]]
    return {"id": f"hanna-{number}", "prompt": row["prompt"], "responses": stories}


def ultrafeedback(row: dict[str, Any], number: int) -> dict[str, Any]:
    sides = ("chosen", "rejected")
    answers = [{"text": row[side], "rating": row[f"score_{side}"]} for side in sides]
    return {"id": f"ultrafeedback-{number}", "prompt": row["prompt"], "responses": answers}


def log_odds(probability: float) -> float:
    kept = min(max(probability, _LEAST), 1 - _LEAST)
    return math.log(kept / (1 - kept))


def alpacaeval(rows: list[dict[str, Any]], skip: int, prompts: int, responses: int) -> Iterator[dict[str, Any]]:
    drawn = sorted(rows, key=lambda row: rank("prompt", row["prompt"]))
    for row in [row for row in drawn if len(row["responses"]) >= responses][skip:][:prompts]:
        some = sorted(row["responses"], key=lambda one: rank(row["prompt"], one["model"]))[:responses]
        yield {
            "id": rank("id", row["prompt"]).hex()[:12],
            "prompt": row["prompt"],
            "responses": [{"text": one["text"], "rating": log_odds(one["winprob"])} for one in some],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--skip", type=int, default=0, help="prompts of AlpacaEval that an earlier study used")
    parser.add_argument("--prompts", type=int, default=1000, help="of AlpacaEval, at most")
    parser.add_argument("--responses", type=int, default=4, help="to each prompt of AlpacaEval")
    args = parser.parse_args()
    with gzip.open(args.source, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    if "votes_a" in rows[0]:
        made = [ukp(row, number) for number, row in enumerate(rows) if row["response_a"] != row["response_b"]]
    elif "score_chosen" in rows[0]:
        made = [ultrafeedback(row, number) for number, row in enumerate(rows)]
    elif CRITERIA[0] in rows[0]["responses"][0]:
        made = [hanna(row, number) for number, row in enumerate(rows)]
    else:
        made = list(alpacaeval(rows, args.skip, args.prompts, args.responses))
    args.target.parent.mkdir(parents=True, exist_ok=True)
    args.target.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    print(f"{args.target}: {len(made)} of {len(rows)} rows")


if __name__ == "__main__":
    main()
