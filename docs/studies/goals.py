"""A study of reward-augmented data: does a policy that was trained on goals follow them, and what does that gain?

    python docs/studies/goals.py docs/studies/goals.yaml
    python docs/studies/goals.py docs/studies/goals.yaml --base.train.max_steps 400 --seeds '[0,1,2,3,4]'

The file holds a study as `popmargin compare` reads it, with `data`, `goals` and the `rows` of each arm:

    plain     the pairs as they are, without goals
    both      every pair at both goals (popmargin data augment)
    half      one of the two, at random
    constant  the pairs as they are, under a goal that is the same for all

All are made once, from the demo's completions, four a prompt and rated by VADER. Then the study is run seed by seed: a
stopped one goes on, and has whole seeds. The report in its folder has the plot of reward against goal; the table is
printed here. Differences are from the baseline arm, which is asked for no goal: of the reward at the highest goal.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.config import DataConfig, from_dict
from popmargin.data.augment import REVERSED, augment
from popmargin.data.goals import SCORES, goal_facts, with_goal, without_goal
from popmargin.data.schema import Preferences
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.generative import generative_differences, generative_metrics
from popmargin.evaluation.goal_sweep import GOALS, GoalSweep, goal_curve
from popmargin.files import digest
from popmargin.report.metrics import DASH
from popmargin.study.compare import compare
from popmargin.study.config import StudyConfig
from popmargin.training.sides import load_split

sys.path.insert(0, str(Path(__file__).parent))
from driver import arguments
from tables import cell

VADER = (-1.0, 1.0)
"""The ends of VADER's scale."""


def make_rows(data: Mapping[str, Any], highest: float) -> dict[str, Preferences]:
    """Training rows by what the arms call them, and the held-out preferences as `test`."""
    settings = DataConfig(
        train="demo", pairs=data["pairs"], test_size=data["test_prompts"], limit=data["train_prompts"],
        split_seed=data["seed"],
    )  # fmt: skip
    plain, test = load_split(settings)
    both = augment(plain, scale=VADER)
    facts = goal_facts(both)
    forward = both.select(np.flatnonzero([not row[REVERSED] for row in both.dataset]))
    bodies = [without_goal(row["prompt"], facts) for row in forward.dataset]
    constant = {"prompt": with_goal(bodies, highest, facts), SCORES: [[highest]] * len(forward)}
    made = {
        "plain": plain,
        "both": both,
        "half": augment(plain, scale=VADER, half=True, seed=data["seed"]),
        "constant": forward.with_columns(constant),
    }
    smoothed = {"soft_label": 1 - data["smoothing"]}
    return {name: rows.with_columns(smoothed) for name, rows in made.items()} | {"test": test}


def study_of(values: Mapping[str, Any]) -> StudyConfig:
    """The study, with the files of rows in place; they are written where they are missing."""
    made_by = json.dumps([values["data"], max(values["goals"])], sort_keys=True)
    folder = Path(values["output"]) / f"data-{digest(made_by.encode())[:8]}"
    rows = {arm: settings["rows"] for arm, settings in values["arms"].items()}
    wanted = {name: folder / f"{name}.parquet" for name in ("test", *rows.values())}
    if not all(file.is_file() for file in wanted.values()):
        made = make_rows(values["data"], max(values["goals"]))
        for name, file in wanted.items():
            made[name].save(file)
    arms: dict[str, Any] = {}
    for arm, settings in values["arms"].items():
        changes = {key: value for key, value in settings.items() if key != "rows"}
        own = {"data": {"train": str(wanted[rows[arm]]), "test": str(wanted["test"])}}
        own |= {} if rows[arm] == "plain" else {"evaluation": {"goals": values["goals"]}}
        arms[arm] = changes | own
    kept = {key: value for key, value in values.items() if key not in ("data", "goals")}
    return from_dict(StudyConfig, kept | {"arms": arms, "output": str(Path(values["output"]) / "study")})


def table(study: StudyConfig, seeds: list[int]) -> list[str]:
    """One row an arm: the reward at each goal, how well goals are followed, and the gain at the highest."""
    runs = {arm: [Path(study.run_config(arm, seed).output) / "evaluation" for seed in seeds] for arm in study.arms}
    answers = {arm: [Generations.load(run / "generations.parquet") for run in of] for arm, of in runs.items()}
    sweeps = {arm: [GoalSweep.load(run / GOALS) for run in of] for arm, of in runs.items()}
    asked = next(list(of[0].by_goal) for of in sweeps.values() if of[0] is not None)
    head = [
        "arm",
        *(f"reward at goal {goal:g}" for goal in asked),
        "Spearman ρ",
        "best goal",
        "at the highest − baseline",
    ]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for arm in study.arms:
        found = [sweep for sweep in sweeps[arm] if sweep is not None]
        at_highest = [sweep.by_goal[asked[-1]] for sweep in found] or answers[arm]
        change = generative_differences(at_highest, answers[study.baseline])["mean_reward"]
        gain = "baseline" if arm == study.baseline else cell(change, 3, share=False, sign=True)
        if found:
            curve = goal_curve(found)
            cells = [cell(value, 2, share=False) for value in curve.rewards.values()]
            cells += [cell(curve.spearman, 2, share=False), f"{curve.best:g}"]
        else:
            reward = generative_metrics(answers[arm])["mean_reward"]
            cells = [f"{cell(reward, 2, share=False)}, asked for none", *[DASH] * (len(asked) + 1)]
        lines.append(f"| {study.label(arm)} | {' | '.join([*cells, gain])} |")
    return lines


def main() -> None:
    values, table_only = arguments(__doc__)
    study = study_of(values)
    for count in range(1, len(study.seeds) + 1) if not table_only else ():  # seed by seed
        _, report = compare(replace(study, seeds=study.seeds[:count]))
        print(f"report: {report}", file=sys.stderr)
    done = [
        seed
        for seed in study.seeds
        if all((Path(study.run_config(arm, seed).output) / "evaluation/metrics.json").is_file() for arm in study.arms)
    ]
    if not done:
        sys.exit("No seed is finished.")
    print("\n".join([f"Seeds: {', '.join(map(str, done))}", "", *table(study, done)]))


if __name__ == "__main__":
    main()
