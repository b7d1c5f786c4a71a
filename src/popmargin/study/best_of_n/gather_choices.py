"""From draws to results: accuracies and curves, paired differences with intervals over draws and prompts, and power.

Axis suffixes: M draws, P prompts, N numbers of samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from popmargin.config import dump_yaml, to_dict
from popmargin.errors import RunError, counted
from popmargin.evaluation.best_of_n import divergence
from popmargin.report.best_of_n_results import BestOfNResults, ChoiceArm, ChoiceCell, Difference
from popmargin.statistics.jackknife import Estimate, ratio, row_means, without_each
from popmargin.statistics.power import Components, simulate
from popmargin.study.best_of_n.best_of_n_config import GOLD, BestOfNConfig, arm_label
from popmargin.study.best_of_n.choosing_draw import Ground, told_apart
from popmargin.study.budget.arms import ARMS
from popmargin.study.budget.same_settings import first_use

_STUDIES = 400  # simulated for each comparison
_AGAINST = ("base", "more", "chain_control")
"""The arms that others are compared with, if they are there: nothing more, new preferences, stronger sides."""


def gather(
    rows: Sequence[Mapping[str, Any]],
    config: BestOfNConfig,
    ground: Ground,
    *,
    seconds: float,
    facts: Mapping[str, str],
) -> BestOfNResults:
    """The results of all draws that are finished.

    Raises:
        RunError: no draw of a size is finished.
    """
    cells: list[ChoiceCell] = []
    for size in config.sizes:
        own = sorted((row for row in rows if row["size"] == size), key=lambda row: row["draw"])
        if not own:
            raise RunError(f"No draw with {counted(size, 'preference')} is finished. Run the same command again.")
        cells.append(_cell(size, own, config, ground))
    return BestOfNResults(
        title=config.title,
        cells=cells,
        ns=ground.ns,
        divergences=[divergence(n) for n in ground.ns],
        draws=len({row["draw"] for row in rows}),
        prompts=len(ground.measured.clusters),
        facts=dict(facts),
        difference=config.difference / 100,
        gain_difference=config.gain_difference / 100,
        measured_first=None if config.rehearse else first_use(config.output),
        config=dump_yaml(to_dict(config)),
        seconds=seconds,
        cpu_seconds=float(sum(row["seconds"] for row in rows)),
    )


def _cell(size: int, draws: Sequence[Mapping[str, Any]], config: BestOfNConfig, ground: Ground) -> ChoiceCell:
    left_out: dict[str, str] = {name: reason for draw in draws for name, reason in draw["left_out"].items()}
    names = [name for name in config.arm_names if name not in left_out]
    counts_P = told_apart(ground.measured)
    clusters = ground.measured.clusters
    accuracy: dict[str, Estimate] = {}
    best: dict[str, list[Estimate]] = {}
    for name in names:
        parts = [draw["arms"][name] for draw in draws]
        right_MP = np.array([part["right"] for part in parts])
        columns = np.stack([right_MP, np.broadcast_to(counts_P, right_MP.shape)], axis=-1).astype(np.float64)
        accuracy[name] = without_each(columns, clusters, ratio)
        best_MPN = np.array([part["best"] for part in parts])
        best[name] = [row_means(best_MPN[:, :, place], clusters) for place in range(len(ground.ns))]
    start = best["base"][0].value if ground.ns[0] == 1 else float(ground.measured.gold.mean())
    possible = best[GOLD][-1].value - start
    arms = {
        name: ChoiceArm(
            name=name,
            label=arm_label(name),
            control=name == GOLD or ARMS[name].is_control,
            minutes=float(np.mean([draw["arms"][name].get("minutes", 0.0) for draw in draws])),
            accuracy=accuracy[name].interval(scale="share"),
            curve=[one.interval() for one in best[name]],
            share_of_possible=(best[name][-1].value - start) / possible,
            counts=_mean_counts([draw["arms"][name] for draw in draws]),
            unfinished=sum(int(draw["arms"][name].get("unfinished", 0)) for draw in draws),
        )
        for name in names
    }
    return ChoiceCell(
        size=size, arms=arms, left_out=left_out, possible=possible, start=start,
        differences=_differences(accuracy, best, arms, possible, config),
    )  # fmt: skip


def _mean_counts(parts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {key: float(np.mean([part["counts"].get(key, 0) for part in parts])) for key in parts[0].get("counts", {})}


def _differences(
    accuracy: Mapping[str, Estimate],
    best: Mapping[str, Sequence[Estimate]],
    arms: Mapping[str, ChoiceArm],
    possible: float,
    config: BestOfNConfig,
) -> list[Difference]:
    """Each arm that learns against the arms that it is compared with, with the power that the study had."""
    made: list[Difference] = []
    learn = [name for name, arm in arms.items() if not arm.control]
    for against in (name for name in _AGAINST if name in learn):
        for name in learn:
            if name == against or (name in _AGAINST and _AGAINST.index(name) < _AGAINST.index(against)):
                continue
            pairs = [(accuracy[name], accuracy[against])]
            pairs.append((best[name][-1], best[against][-1]))
            wanted = (config.difference / 100, config.gain_difference / 100 * possible)
            power = [_power(one, other, sought) for (one, other), sought in zip(pairs, wanted, strict=True)]
            made.append(
                Difference(
                    name=name, against=against,
                    accuracy=pairs[0][0].minus(pairs[0][1]), accuracy_power=power[0],
                    curve=[one.minus(other) for one, other in zip(best[name], best[against], strict=True)],
                    gold_power=power[1],
                )
            )  # fmt: skip
    return made


def _power(one: Estimate, other: Estimate, difference: float) -> float | None:
    """The share of such studies that would tell this difference from 0; None with a single draw or prompt."""
    gap = replace(one, per_seed=one.per_seed - other.per_seed, pulls=one.pulls - other.pulls)
    seeds, clusters = gap.pulls.shape
    if seeds < 2 or clusters < 2:
        return None
    return simulate(Components.of(gap), clusters, seeds, studies=_STUDIES).power(difference)
