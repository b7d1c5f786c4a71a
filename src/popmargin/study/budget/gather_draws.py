"""From draws to results: accuracies and paired differences with intervals over draws and held-out clusters, and advice.

Axis suffixes: S draws, G held-out clusters, L ridges.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from popmargin.config import dump_yaml, to_dict
from popmargin.errors import DataError, RunError, counted
from popmargin.report.budget_results import Advice, ArmKind, BudgetResults, Cell, Comparison, Spending
from popmargin.statistics.jackknife import Estimate, ratio, without_each
from popmargin.statistics.power import Components, simulate
from popmargin.study.budget.arms import ARMS, MAIN
from popmargin.study.budget.budget_config import BudgetConfig
from popmargin.study.budget.draw import Ground
from popmargin.study.budget.same_settings import first_use

_STUDIES = 400  # simulated for each main comparison


def gather(rows: Sequence[Mapping[str, Any]], config: BudgetConfig, ground: Ground, *, seconds: float) -> BudgetResults:
    """The results of all draws that are finished.

    Raises:
        RunError: no draw of a size is finished.
    """
    cells: list[Cell] = []
    for size in config.sizes:
        own = sorted((row for row in rows if row["size"] == size), key=lambda row: row["draw"])
        if not own:
            raise RunError(f"No draw with {counted(size, 'preference')} is finished. Run the same command again.")
        for place, budget in enumerate(config.budgets):
            cells.append(_cell(size, budget, [row["cells"][place] for row in own], config, ground))
    held = ground.parts
    strengths = ground.strengths
    facts = {
        "Data": f"{config.data.path}: {counted(len(strengths.log_odds), 'preference')} of "
        f"{counted(len(strengths.clusters), 'cluster')}, {strengths.kind}",
        "Left out": f"{strengths.facts.get('ties_left_out', 0)} ties, "
        f"{strengths.facts.get('rows_reported', 0)} unusable rows",
        "Two annotators agree": f"{strengths.agreement:.1%}" + (
            f" (measured from {strengths.facts['votes']:g} votes each)" if "votes" in strengths.facts else " (assumed)"
        ),
        "Words of a preference": "{:.0f} of the prompt, {:.0f} of each response".format(*strengths.words),
        "Held out": f"{counted(len(held.measured), 'preference')} of {counted(len(held.clusters), 'cluster')}, the "
        "same in every draw",
        "Not held out": counted(len(held.development), "preference"),
        "Features": f"{ground.features.shape[1]} of each of {counted(len(strengths.texts), 'response')}",
    }  # fmt: skip
    return BudgetResults(
        title=config.title,
        kinds=[
            ArmKind(name=name, label=ARMS[name].label, control=ARMS[name].is_control, needs_new=ARMS[name].needs_new,
                    objective=ARMS[name].objective)
            for name in config.arm_names
        ],
        cells=cells,
        draws=len({row["draw"] for row in rows}),
        clusters=len(held.clusters),
        preferences=len(held.measured),
        prices=dict(vars(ground.prices)),
        facts=facts,
        difference=config.difference / 100,
        held_out_used=None if config.rehearse else first_use(config.output),
        config=dump_yaml(to_dict(config)),
        seconds=seconds,
        cpu_seconds=float(sum(row["seconds"] for row in rows)),
    )  # fmt: skip


def _cell(size: int, budget: float, draws: Sequence[Mapping[str, Any]], config: BudgetConfig, ground: Ground) -> Cell:
    left_out: dict[str, str] = {name: reason for draw in draws for name, reason in draw["left_out"].items()}
    if "base" in left_out:
        raise DataError(
            f"{config.data.path}: {counted(size, 'preference')} cannot be drawn: {left_out['base']}. Leave out "
            f"that size: --sizes '{[other for other in config.sizes if other < size]}'. Finished draws are kept."
        )
    names = [name for name in config.arm_names if name not in left_out]
    found: dict[str, Estimate] = {}
    chosen: dict[str, int] = {}
    for name in names:
        parts = [draw["arms"][name] for draw in draws]
        chosen[name] = int(np.mean([part["validation"] for part in parts], axis=0).argmax())
        found[name] = _estimate(np.array([part["right"][chosen[name]] for part in parts]), ground.parts.sizes)
    arms: dict[str, Spending] = {}
    for name in names:
        parts = [draw["arms"][name] for draw in draws]
        counts = {key: float(np.mean([part["counts"].get(key, 0) for part in parts])) for key in parts[0]["counts"]}
        fitted = len(parts[0]["validation"]) > 1
        arms[name] = Spending(
            name=name,
            minutes=float(np.mean([part["seconds"] for part in parts])) / 60,
            accuracy=found[name].interval(scale="share"),
            gain=found[name].minus(found["base"]),
            above_new=found[name].minus(found["more"]) if "more" in found else None,
            counts=counts,
            ridge=config.ridges[chosen[name]] if fitted else None,
            unfinished=sum(int(part.get("unfinished", 0)) for part in parts),
        )
    learn = {name: one for name, one in found.items() if not ARMS[name].is_control}
    old = {name: one for name, one in learn.items() if not ARMS[name].needs_new}
    return Cell(
        size=size, budget=budget, minutes=size * ground.prices.preference * (1 + budget) / 60, arms=arms,
        left_out=left_out, advice=advise(learn), advice_old=advise(old), main=_main(found, config),
    )  # fmt: skip


def _estimate(right_SG: Float64[np.ndarray, "S G"], sizes_G: Int64[np.ndarray, " G"]) -> Estimate:
    """The share right in every draw, and how each cluster pulls it."""
    columns = np.stack([right_SG, np.broadcast_to(sizes_G, right_SG.shape)], axis=-1).astype(np.float64)
    return replace(without_each(columns, range(len(sizes_G)), ratio), sizes=sizes_G)


def advise(found: Mapping[str, Estimate]) -> Advice:
    """The best arm, the arms that cannot be told apart from it, and the simplest of them.

    Args:
        found: arms in order, the simplest first.
    """
    best = max(found, key=lambda name: found[name].value)
    ties = [name for name, one in found.items() if name == best or not found[best].minus(one).low > 0]
    return Advice(best=best, take=ties[0], ties=ties)


def _main(found: Mapping[str, Estimate], config: BudgetConfig) -> list[Comparison]:
    """The main comparisons, with the power that the study had for them."""
    against = "more" if "more" in found else "base"
    other = found[against]
    seeds, clusters = other.pulls.shape
    if seeds < 2 or clusters < 2:
        return []
    made: list[Comparison] = []
    for name in (name for name in MAIN if name in found):
        one = found[name]
        gap = Estimate(one.per_seed - other.per_seed, one.pulls - other.pulls, one.sizes)
        drawn = simulate(Components.of(gap), clusters, seeds, studies=_STUDIES)
        made.append(
            Comparison(
                name=name,
                against=against,
                difference=one.minus(other),
                power=drawn.power(config.difference / 100),
                detectable=drawn.detectable(),
            )
        )
    return made
