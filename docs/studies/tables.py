"""The Markdown tables of objectives.md from finished studies.

    python docs/studies/tables.py runs/objectives runs/objectives-ukp
    python docs/studies/tables.py runs/objectives-ukp-flipped --against runs/objectives-ukp

Each value stands with its 95% interval. The last two columns are paired differences in accuracy, in points: to the
study's baseline, and to the rule that the longer response wins; * marks an interval that does not include 0, but for
arms of one seed, which nothing tells from the luck of training. With
--against, also what every arm lost or gained against the same arm of another study with the same test preferences.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from popmargin.evaluation.discriminative import discriminative_differences
from popmargin.evaluation.run import HeldOutMargins
from popmargin.report.discoveries import seeds_tell
from popmargin.report.metrics import DASH, decimals, has_bounds, is_known, metric, number
from popmargin.report.results import ArmResult, StudyResults
from popmargin.statistics.intervals import Interval

COLUMNS = ("accuracy", "spearman", "pop_accuracy", "win_rate_reference", "mean_reward", "kl_per_token")


def cell(interval: Interval | None, places: int, *, share: bool, sign: bool = False) -> str:
    """`60.1% [54.0%, 66.2%]`; a dash where it was not measured."""
    if interval is None or not is_known(interval):
        return DASH
    estimate, low, high = (
        number(value, places, share=share, sign=sign) for value in (interval.estimate, interval.low, interval.high)
    )
    return f"{estimate} [{low}, {high}]"


def difference(interval: Interval | None, told: bool) -> str:
    """`+1.2 [−3.0, +5.1]` points of a share, with * where the interval does not include 0 and several seeds tell."""
    if interval is None or not is_known(interval):
        return DASH
    points = Interval(100 * interval.estimate, 100 * interval.low, 100 * interval.high)
    clear = has_bounds(points) and (points.low > 0 or points.high < 0)
    return cell(points, 1, share=False, sign=True) + ("*" if clear and told else "")


def held_out(folder: Path, arm: str, seeds: Sequence[int]) -> list[HeldOutMargins]:
    """What an arm's runs gave for the test preferences."""
    runs = [folder / "runs" / arm / f"seed-{seed}" for seed in seeds]
    return [HeldOutMargins.load(run / "evaluation" / "margins.parquet") for run in runs]


def against_longer(folder: Path, arm: ArmResult) -> Interval:
    """Accuracy of an arm minus that of the rule that the longer response wins, on the same preferences."""
    runs = held_out(folder, arm.name, arm.seeds)
    margins = np.stack([run.reward_margin for run in runs])
    longer = np.broadcast_to(runs[0].longer_chosen - 0.5, margins.shape)  # a "margin" with the rule's sign
    found = discriminative_differences(margins, longer, strength=runs[0].strength, clusters=runs[0].clusters)
    return found["accuracy"]


def against_study(folder: Path, other: Path, arm: ArmResult) -> Interval:
    """Accuracy of an arm minus that of the same arm in another study; seeds that both have."""
    seeds = [seed for seed in arm.seeds if (other / "runs" / arm.name / f"seed-{seed}").is_dir()]
    runs, others = (held_out(place, arm.name, seeds) for place in (folder, other))
    mine, theirs = (np.stack([run.reward_margin for run in some]) for some in (runs, others))
    found = discriminative_differences(mine, theirs, strength=runs[0].strength, clusters=runs[0].clusters)
    return found["accuracy"]


def table(folder: Path, results: StudyResults) -> list[str]:
    """One row an arm, and one for the rule."""
    shown = [key for key in COLUMNS if any(is_known(arm.metrics.get(key)) for arm in results.arms)]
    places = {
        key: decimals([arm.metrics.get(key) for arm in results.arms], share=metric(key).is_share) for key in shown
    }
    head = [
        "objective",
        *(metric(key).title for key in shown),
        "accuracy − baseline, points",
        "accuracy − longer wins, points",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    base = next(arm for arm in results.arms if arm.name == results.baseline)
    for arm in results.arms:
        values = [cell(arm.metrics.get(key), places[key], share=metric(key).is_share) for key in shown]
        own = (
            "baseline"
            if arm.name == results.baseline
            else difference(arm.differences.get("accuracy"), seeds_tell(arm, base))
        )
        lines.append(
            "| "
            + " | ".join([arm.label, *values, own, difference(against_longer(folder, arm), len(arm.seeds) > 1)])
            + " |"
        )
    longer = cell(results.arms[0].metrics.get("accuracy_longer"), 1, share=True)
    lines.append("| " + " | ".join(["the longer one wins (no training)", longer, *[DASH] * (len(head) - 2)]) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", type=Path, help="folders of finished studies")
    parser.add_argument("--against", type=Path, help="folder of another study with the same arms and test preferences")
    args = parser.parse_args()
    for folder in args.studies:
        results = StudyResults.load(folder / "results.json")
        settings = {name: value for name, value in results.data.items() if name.startswith("Chosen for ")}
        chosen = [f"- {name.removeprefix('Chosen for ')}: {value}" for name, value in settings.items()]
        if args.against is not None:
            chosen += [
                f"- {arm.label}: {difference(against_study(folder, args.against, arm), len(arm.seeds) > 1)}"
                for arm in results.arms
            ]
        print("\n".join([f"## {results.title}", "", *table(folder, results), "", *chosen, "", *results.reading, ""]))


if __name__ == "__main__":
    main()
