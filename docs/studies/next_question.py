"""What `popmargin label next` reads: the gains and prices of the budget studies, as one JSON file in the package.

    python docs/studies/next_question.py docs/studies/budget.md src/popmargin/label/quality/budget_tables.json

The numbers are those of the page's tables, which docs/studies/budget_tables.py made from the studies' output. Taken are
the arms that a lead can choose; of several losses for the same comparisons, `pop_scale`.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from popmargin.study.budget.arms import ARMS

GAINS = re.compile(r"\| gain, (\S+) × the minutes again \|(.*)\n\| ---.*\n((?:\|.*\n)+)")
STUDIES = {"UKP": "short arguments (UKP)", "HANNA": "long stories (HANNA)", "AlpacaEval": "answers (AlpacaEval)"}
"""The name in brackets in a study's heading, and what to call it."""
OPTIONS = {
    "more": "more", "grade": "grade", "inline": "inline_scale", "rated": "rated", "votes": "votes",
    "ratings": "ratings", "chain": "chain_scale", "random": "random_scale",
}  # fmt: skip
"""A way to spend an hour, and its arm."""


def cell(text: str) -> list[float] | None:
    """Estimate and interval of a cell, in points; None for a dash."""
    found = [float(one.replace("−", "-")) for one in re.findall(r"[+−]\d+\.\d", text)]
    if text.strip() == "–":
        return None
    if len(found) != 3:
        raise SystemExit(f"A cell is not 'estimate [low, high]': {text!r}")
    return found


def study(name: str, section: str) -> dict[str, Any]:
    """One study's part of the file."""

    def told(pattern: str) -> Any:
        found = re.search(pattern, section)
        if found is None:
            raise SystemExit(f"{name}: the page has nothing like {pattern!r}.")
        return found.groups() if found.lastindex != 1 else found[1]

    prompt, response = told(r"Words of a preference: (\d+) of the prompt, (\d+) of each response")
    share, how = told(r"Two annotators agree: ([\d.]+)% \((\w+)")
    held, clusters = told(r"(\d+) held-out preferences of (\d+) clusters")
    sizes: list[int] = []
    budgets: list[float] = []
    gains: dict[str, dict[str, Any]] = {option: {} for option in OPTIONS}
    for budget, head, body in GAINS.findall(section):
        sizes = [int(size) for size in re.findall(r"N = (\d+)", head)]
        budgets.append(float(budget))
        rows = {line.split(" | ")[0].lstrip("| "): line.strip("|\n ").split(" | ")[1:] for line in body.splitlines()}
        for option, arm in OPTIONS.items():
            gains[option][budget] = [cell(one) for one in rows[ARMS[arm].label]]
    return {
        "name": STUDIES[name],
        "draws": int(told(r"(\d+) draws")),
        "held_out": int(held),
        "clusters": int(clusters),
        "agreement": float(share) / 100,
        "agreement_is": how,
        "words": {"prompt": int(prompt), "response": int(response)},
        "prices": {kind: float(price) for kind, price in re.findall(r"(\w+) (\d+) s[,.]", told(r"Prices: (.*)"))},
        "sizes": sizes,
        "budgets": budgets,
        "gains": gains,
    }


def tables(page: str) -> dict[str, Any]:
    """The whole file."""
    sections = {name: part for part in page.split("\n## ") for name in STUDIES if f"({name})\n" in part}
    return {
        "source": "docs/studies/budget.md",
        "made_by": "docs/studies/next_question.py",
        "unit": "points of held-out accuracy above nothing more, with 95% intervals; seconds",
        "arms": {option: ARMS[arm].label for option, arm in OPTIONS.items()},
        "studies": [study(name, sections[name]) for name in STUDIES],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    made = json.dumps(tables(args.page.read_text(encoding="utf-8")), ensure_ascii=False, indent=1)
    args.target.write_text(re.sub(r"\[\s+([^\[\]{}]+?)\s+\]", flat, made) + "\n", encoding="utf-8")


def flat(found: re.Match[str]) -> str:
    """A list of numbers on one line."""
    return "[" + " ".join(found[1].split()) + "]"


if __name__ == "__main__":
    main()
