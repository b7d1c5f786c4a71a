"""The Markdown tables of objectives.md from finished studies.

    python docs/studies/tables.py runs/objectives/results.json runs/objectives-ukp/results.json

Each value stands with its 95% interval; differences are paired with the study's baseline, and * marks an interval that
does not hold 0.
"""

import argparse
import math
from pathlib import Path

from popmargin.evaluation.statistics import Interval
from popmargin.report.results import ArmResult, StudyResults

# metric, heading, factor, digits
METRICS = [
    ("accuracy", "accuracy, %", 100, 1),
    ("spearman", "correlation with strength", 1, 2),
    ("pop_accuracy", "PoP accuracy, %", 100, 1),
    ("win_rate_reference", "win rate, %", 100, 1),
    ("mean_reward", "mean reward", 1, 2),
    ("kl_per_token", "KL per token, nats", 1, 3),
]


def cell(interval: Interval | None, factor: int, digits: int) -> str:
    """`60.1 [54.0, 66.2]`; a dash where it was not measured."""
    if interval is None or not math.isfinite(interval.estimate):
        return "–"
    estimate, low, high = (f"{factor * value:.{digits}f}" for value in (interval.estimate, interval.low, interval.high))
    return f"{estimate} [{low}, {high}]"


def difference(interval: Interval | None) -> str:
    """`+1.2 [-3.0, 5.1]` points, with * where the interval does not hold 0."""
    if interval is None or not math.isfinite(interval.low):
        return "–"
    mark = "*" if interval.low > 0 or interval.high < 0 else ""
    return f"{100 * interval.estimate:+.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]{mark}"


def table(results: StudyResults) -> list[str]:
    """One row an arm."""
    shown = [metric for metric in METRICS if any(_known(arm, metric[0]) for arm in results.arms)]
    head = ["objective", *(heading for _, heading, _, _ in shown), "accuracy − baseline, points"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for arm in results.arms:
        values = [cell(arm.metrics.get(metric), factor, digits) for metric, _, factor, digits in shown]
        own = "baseline" if arm.name == results.baseline else difference(arm.differences.get("accuracy"))
        lines.append("| " + " | ".join([arm.label, *values, own]) + " |")
    longer = results.arms[0].metrics.get("accuracy_longer")
    if longer is not None:
        rest = ["–"] * (len(head) - 2)
        lines.append("| " + " | ".join(["the longer one wins (no training)", cell(longer, 100, 1), *rest]) + " |")
    return lines


def _known(arm: ArmResult, metric: str) -> bool:
    return metric in arm.metrics and math.isfinite(arm.metrics[metric].estimate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path)
    for path in parser.parse_args().results:
        results = StudyResults.load(path)
        chosen = [
            f"- {name.removeprefix('Chosen for ')}: {value}" for name, value in results.data.items() if "Chosen" in name
        ]
        print("\n".join([f"## {results.title}", "", *table(results), "", *chosen, "", *results.reading, ""]))


if __name__ == "__main__":
    main()
