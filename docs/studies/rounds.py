"""A study of a recipe: arms that differ in some options, several seeds, and a table of their last policies.

    python docs/studies/rounds.py docs/studies/rounds-spa.yaml
    python docs/studies/rounds.py docs/studies/rounds-spa.yaml --base.evaluation.prompts null --seeds '[0,1,2,3,4]'

The file holds a configuration of rounds with `seeds`, `baseline`, and `arms`: a mapping from a name to what differs.
Finished arms and seeds are kept, and arms share the stages that are the same in both; several processes share
the work. Values have 95% intervals over prompts and seeds;
differences are from the baseline arm, seed by seed.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.config import from_dict, merge
from popmargin.evaluation.discriminative import discriminative_differences, discriminative_metrics
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.generative import generative_differences, generative_metrics
from popmargin.evaluation.run import HeldOutMargins
from popmargin.recipes.base import plan_of
from popmargin.report.metrics import is_known, metric
from popmargin.rounds.reuse import is_plan
from popmargin.rounds.rounds_config import RoundsConfig
from popmargin.rounds.run_rounds import run_rounds
from popmargin.statistics.intervals import Interval

sys.path.insert(0, str(Path(__file__).parent))
from driver import arguments
from tables import cell, difference

COLUMNS = ("mean_reward", "win_rate_reference", "accuracy", "kl_per_token", "length", "distinct_2")


def configurations(values: Mapping[str, Any]) -> dict[str, list[RoundsConfig]]:
    """The rounds of every arm, a seed each."""
    shared = {key: value for key, value in values.items() if key not in ("arms", "seeds", "baseline")}
    return {
        arm: [
            from_dict(
                RoundsConfig,
                merge(merge(shared, changes or {}), {"seed": seed, "output": f"{values['output']}/{arm}/seed-{seed}"}),
            )
            for seed in values["seeds"]
        ]
        for arm, changes in values["arms"].items()
    }


def last_policies(configs: list[RoundsConfig]) -> list[Path]:
    """Where the last measured policy of each seed lies."""
    return [
        Path(c.output) / [s.name for s in plan_of(c) if s.name.endswith("/measure")][-1] / "evaluation" for c in configs
    ]


def measured(
    folders: list[Path], base: list[Path] | None, reference: list[Path]
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """Metrics over all seeds, and differences from the baseline arm."""
    margins, own, start = _load(folders, reference)
    shared: dict[str, Any] = {"strength": margins[0].strength, "clusters": margins[0].clusters}
    stacked = np.stack([one.reward_margin for one in margins])
    metrics = dict(
        discriminative_metrics(reward_margin=stacked, longer_chosen=margins[0].longer_chosen, **shared).intervals
    )
    metrics |= generative_metrics(own, start)
    if base is None:
        return metrics, {}
    others, of_base, _ = _load(base, reference)
    differences = dict(discriminative_differences(stacked, np.stack([one.reward_margin for one in others]), **shared))
    return metrics, differences | generative_differences(own, of_base, start)


def _load(
    folders: list[Path], reference: list[Path]
) -> tuple[list[HeldOutMargins], list[Generations], list[Generations]]:
    return (
        [HeldOutMargins.load(folder / "margins.parquet") for folder in folders],
        [Generations.load(folder / "generations.parquet") for folder in folders],
        [Generations.load(folder / "generations.parquet") for folder in reference],
    )


def table(values: Mapping[str, Any], arms: Mapping[str, list[RoundsConfig]]) -> list[str]:
    """One row an arm."""
    reference = [Path(config.output) / "start/measure/evaluation" for config in next(iter(arms.values()))]
    base = last_policies(arms[values["baseline"]])
    found = {
        arm: measured(last_policies(configs), None if arm == values["baseline"] else base, reference)
        for arm, configs in arms.items()
    }
    shown = [key for key in COLUMNS if any(is_known(metrics.get(key)) for metrics, _ in found.values())]
    told = len(values["seeds"]) > 1
    head = ["arm", *(metric(key).title for key in shown), "mean reward − baseline", "accuracy − baseline, points"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for arm, (metrics, differences) in found.items():
        cells = [
            cell(metrics.get(key), 2 if not metric(key).is_share else 1, share=metric(key).is_share) for key in shown
        ]
        if arm == values["baseline"]:
            cells += ["baseline", "baseline"]
        else:
            cells.append(cell(differences.get("mean_reward"), 3, share=False, sign=True))
            cells.append(difference(differences.get("accuracy"), told))
        lines.append(f"| {arm.replace('_', ' ')} | {' | '.join(cells)} |")
    return lines


def round_of(manifest: Path) -> int:
    """The number of the round that a ranking belongs to."""
    return int(manifest.parts[-3].removeprefix("round-"))


def filters(arms: Mapping[str, list[RoundsConfig]]) -> list[str]:
    """How well the last ranking of each arm finds known flips, means over seeds; empty where none are known."""
    lines: list[str] = []
    for arm, configs in arms.items():
        ranks = [
            max(Path(config.output).glob("round-*/rank/manifest.json"), key=round_of, default=None)
            for config in configs
        ]
        said = [json.loads(file.read_text())["facts"].get("known_flips") for file in ranks if file is not None]
        if said and None not in said:
            found = [[one[key]["estimate"] for one in said] for key in ("auc", "precision", "recall")]
            shown = ["–" if None in values else f"{np.mean(values):.2f}" for values in found]
            lines.append(
                f"| {arm.replace('_', ' ')} | {np.mean([one['flips'] for one in said]):.0f} | {' | '.join(shown)} |"
            )
    head = "| arm | flips | AUC of the loss | dropped rows that are flips | flips that are dropped |"
    return ["", head, f"|{'---|' * 5}", *lines] if lines else []


def main() -> None:
    values, table_only = arguments(__doc__)
    arms = configurations(values)
    if not table_only:
        for configs in zip(*arms.values(), strict=True):  # seed by seed, so that a stopped study has whole seeds
            for config in configs:
                others = [Path(other.output) for other in configs if other is not config]
                run_rounds(config, plan_of(config), reuse=[folder for folder in others if is_plan(folder)])
    print("\n".join([*table(values, arms), *filters(arms)]))


if __name__ == "__main__":
    main()
