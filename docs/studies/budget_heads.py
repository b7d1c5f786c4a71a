"""Two budget studies that differ in the head alone: the difference of their accuracies, draw by draw.

    popmargin study budget docs/studies/budget-alpacaeval.yaml --output runs/budget-hidden --hidden 16 \\
        --arms '[base, more]' --budgets '[1.0]'
    python docs/studies/budget_heads.py runs/budget-alpacaeval runs/budget-hidden

The ridge of each head is the one with the highest accuracy on the validation groups, as in the studies.
"""

import argparse
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.files import read_jsonl
from popmargin.statistics.jackknife import Estimate, ratio, without_each
from popmargin.statistics.power import Components, simulate
from popmargin.study.budget.budget_config import BudgetConfig, load_budget
from popmargin.study.budget.draw import Parts
from popmargin.study.budget.human_strengths import read_strengths

Cells = dict[tuple[int, float, str], list[dict[str, Any]]]


def cells_of(folder: Path) -> Cells:
    """Size, budget and arm -> what each draw found, in the order of the draws."""
    found: Cells = {}
    for row in sorted(read_jsonl(folder / "draws.jsonl"), key=lambda row: row["draw"]):
        for cell in row["cells"]:
            for name, arm in cell["arms"].items():
                found.setdefault((row["size"], cell["budget"], name), []).append(arm | {"draw": row["draw"]})
    return found


def estimate(draws: list[dict[str, Any]], sizes: np.ndarray) -> Estimate:
    """The share right at the ridge that validates best."""
    chosen = int(np.mean([draw["validation"] for draw in draws], axis=0).argmax())
    right = np.array([draw["right"][chosen] for draw in draws], dtype=np.float64)
    columns = np.stack([right, np.broadcast_to(sizes, right.shape)], axis=-1)
    return replace(without_each(columns, range(len(sizes)), ratio), sizes=sizes)


def sizes_of(config: BudgetConfig) -> np.ndarray:
    """Preferences of each held-out cluster."""
    data = {field.name: getattr(config.data, field.name) for field in fields(config.data)}
    return Parts.of(read_strengths(data.pop("path"), **data), config).sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    args = parser.parse_args()
    sizes = sizes_of(load_budget(args.first / "budget.yaml"))
    first, second = cells_of(args.first), cells_of(args.second)
    for key in (key for key in second if key in first and len(second[key][0]["validation"]) > 1):
        drawn = {draw["draw"] for draw in first[key]} & {draw["draw"] for draw in second[key]}
        one, other = (
            estimate([draw for draw in cells[key] if draw["draw"] in drawn], sizes) for cells in (first, second)
        )
        gap = Estimate(other.per_seed - one.per_seed, other.pulls - one.pulls, sizes)
        power = simulate(Components.of(gap), len(sizes), len(drawn), studies=400).power(0.02)
        found = other.minus(one)
        low, middle, high = (f"{100 * value:+.1f}" for value in (found.low, found.estimate, found.high))
        print(f"{key[2]}, {key[0]} × {key[1]:g}: {100 * one.value:.1f}% and {100 * other.value:.1f}%, {middle} "
              f"[{low}, {high}], power {power:.0%}, {len(drawn)} draws")  # fmt: skip


if __name__ == "__main__":
    main()
