"""A study of iterative pairwise ranking: what judges of known quality choose, and what training on it gives.

    python docs/studies/ipr.py docs/studies/ipr.yaml
    python docs/studies/ipr.py docs/studies/ipr.yaml --base.train.max_steps 200 --ranking.prompts 400

Each seed is a plan of stages (docs/rounds.md): a stopped study goes on, several processes share the work, and changed
settings are refused. Responses are sampled once a seed and ranked by four judges: the exact gold reward; the same with
logistic noise and a bias to the first place; the embedded language model; and a reward model trained on few pairs,
which scores each response once. Then DPO is trained on the pairs of each judge.

Two tables are printed: what each judge chose by each scheme, with intervals over prompts, and the policies, with
intervals over prompts and seeds.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.config import from_dict, section
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.generative import generative_differences, generative_metrics
from popmargin.report.metrics import DASH, metric, number
from popmargin.rounds.plan import Output, Plan
from popmargin.rounds.rounds_config import RoundsConfig
from popmargin.rounds.runner import run_plan
from popmargin.rounds.stages.opening import open_plan
from popmargin.rounds.stages.sample_responses import add_samples
from popmargin.rounds.stages.train_policy import add_training
from popmargin.rounds.stages.trained_models import start_model
from popmargin.statistics.intervals import Interval, Scale
from popmargin.statistics.jackknife import row_means

sys.path.insert(0, str(Path(__file__).parent))
from driver import arguments
from ipr_stages import SCORES, judge_stage, load_found
from tables import cell

from rounds import configurations

COLUMNS = ("mean_reward", "win_rate_reference", "kl_per_token", "length", "distinct_2")


@section("ranking")
class RankingOptions:
    """What is ranked, and by whom; ipr.yaml describes each.

    Attributes:
        judges: schemes by judge.
        prompts: to rank the responses of.
        samples: responses to each.
        reward_prompts: pairs of the reward model.
        max_new_tokens: longest response.
        temperature: of the noisy judge.
        bias: of the noisy judge.
        judge: the language model.
        judge_prompts: of which it ranks the responses.
        judge_prompt: file with its prompt.
        reward_steps: optimizer steps of the reward model.
    """

    judges: dict[str, list[str]]
    prompts: int = 64
    samples: int = 8
    reward_prompts: int = 40
    max_new_tokens: int = 24
    temperature: float = 0.25
    bias: float = 1.0
    judge: str = "model:demo"
    judge_prompts: int = 32
    judge_prompt: str = "docs/studies/ipr-judge.txt"
    reward_steps: int = 15


def plan_of_seed(config: RoundsConfig, options: RankingOptions) -> Plan:
    """data → sample → for each judge: (reward model) → rank → train → measure."""
    plan = Plan()
    opening = open_plan(
        plan, config, own={}, seed_prompts=options.prompts, rounds=1, prompts_per_round=options.reward_prompts
    )
    sampling = {"samples": options.samples, "max_new_tokens": options.max_new_tokens}
    responses = add_samples(
        plan, "sample", opening.base, policy=start_model(opening.base), prompts=opening.data["seed"],
        sampling=sampling, number=1, seed=config.seed,
    )["responses"]  # fmt: skip
    for judge, schemes in options.judges.items():
        settings = {
            "judge": judge,
            "prompts": min(options.prompts, options.judge_prompts) if judge == "model" else options.prompts,
            "schemes": schemes, "seed": config.seed, "gold": opening.base.evaluation.reward,
        }  # fmt: skip
        inputs: dict[str, Output | Path] = {"responses": responses}
        if judge == "noisy":
            settings |= {"temperature": options.temperature, "bias": options.bias}
        elif judge == "model":
            settings |= {"spec": options.judge}
            inputs["prompt"] = Path(options.judge_prompt).absolute()
        elif judge == "pointwise":
            changes = {
                "task": "reward",
                "objective": {"name": "dpo", "beta": 1.0},
                "train": {"max_steps": options.reward_steps, "frozen_cache_gb": 0},  # only policies have it
                "evaluation": {"reward": None},
            }
            inputs["reward"] = add_training(
                plan, "pointwise/reward", opening.base, inputs=opening.training(opening.data["round-1"]),
                changes=changes,
            )["model"]  # fmt: skip
        ranked = add_stage(plan, judge, inputs, settings)
        trained = add_training(plan, f"{judge}/train", opening.base, inputs=opening.training(ranked), changes={})
        opening.measure(judge, trained["model"])
    return plan


def add_stage(plan: Plan, judge: str, inputs: Mapping[str, Output | Path], settings: Mapping[str, Any]) -> Output:
    """Append a judge's ranking; gives its pairs."""
    outputs = {"pairs": "pairs.parquet", "found": "found.json"}
    return plan.add(f"{judge}/rank", judge_stage, inputs=inputs, settings=settings, outputs=outputs)["pairs"]


def rankings(folders: list[Path], options: RankingOptions) -> list[str]:
    """One row a judge and scheme: cost, ties, bias, and how good its choice is by the gold reward."""
    head = ["judge", "scheme", "calls a prompt", "ties", "orders contradict", "first place named", "pairs kept",
            "chosen is the best", "share of the largest gap", "chosen is worse than rejected"]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for judge, schemes in options.judges.items():
        of_seeds = [load_found(folder / judge / "rank" / "found.json") for folder in folders]
        for place, scheme in enumerate(schemes):
            found = [entries[place] for entries in of_seeds]
            rows = [row for entry in found for row in entry["prompts"]]
            kept = [row for row in rows if row["kept"]]
            name, _, orders = scheme.partition("/")
            how = "" if name == SCORES else ", one order" if orders else ", both orders"
            cells = [
                f"{sum(entry['calls'] for entry in found) / sum(entry['ranked'] for entry in found):.1f}",
                *(_mean_of(found, key) for key in ("ties", "contradictions", "first_place")),
                cell(_mean(rows, "kept", "share"), 1, share=True),
                cell(_mean(kept, "best", "share"), 1, share=True),
                cell(_mean(kept, "share", "plain"), 2, share=False),
                cell(_mean(kept, "wrong", "share"), 1, share=True),
            ]
            lines.append(f"| {' | '.join([judge, name.replace('_', ' ') + how, *cells])} |")
    return lines


def _mean(rows: list[dict[str, Any]], key: str, scale: Scale) -> Interval | None:
    """Over the prompts of all seeds; a prompt that several seeds have counts as one cluster."""
    values = np.array([[float(row[key]) for row in rows]])
    return row_means(values, [row["prompt"] for row in rows]).interval(scale=scale) if rows else None


def _mean_of(found: list[dict[str, Any]], key: str) -> str:
    known = [entry[key]["estimate"] for entry in found if entry.get(key, {}).get("estimate") is not None]
    return number(float(np.mean(known)), 1, share=True) if known else DASH


def policies(folders: list[Path], options: RankingOptions) -> list[str]:
    """One row a judge: the policy that was trained on its pairs, and the start model."""
    start = [Generations.load(folder / "start/measure/evaluation/generations.parquet") for folder in folders]
    head = ["trained on the pairs of", "pairs", *(metric(key).title for key in COLUMNS), "mean reward − start"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for judge in ("start", *options.judges):
        own = [Generations.load(folder / judge / "measure/evaluation/generations.parquet") for folder in folders]
        metrics, counts, gain = generative_metrics(own, start), DASH, DASH
        if judge != "start":
            found = [load_found(folder / judge / "rank" / "found.json")[0]["prompts"] for folder in folders]
            counts = f"{np.mean([sum(row['kept'] for row in rows) for rows in found]):.0f}"
            gain = cell(generative_differences(own, start)["mean_reward"], 3, share=False, sign=True)
        else:
            metrics |= dict.fromkeys(("win_rate_reference", "kl_per_token"))
        shown = [cell(metrics[key], 1 if metric(key).is_share else 2, share=metric(key).is_share) for key in COLUMNS]
        lines.append(f"| {' | '.join([judge if judge != 'start' else 'nothing', counts, *shown, gain])} |")
    return lines


def main() -> None:
    values, table_only = arguments(__doc__)
    options = from_dict(RankingOptions, values.pop("ranking"), "ranking")
    configs = configurations({**values, "arms": {"seeds": {}}})["seeds"]
    for config in configs if not table_only else ():
        run_plan(plan_of_seed(config, options), config.output)
    done = [
        config
        for config in configs
        if all((Path(config.output) / judge / "measure/manifest.json").is_file() for judge in options.judges)
    ]
    if not done:
        sys.exit("No seed is finished.")
    folders = [Path(config.output) for config in done]
    print(f"Seeds: {', '.join(str(config.seed) for config in done)}\n")
    print("\n".join([*rankings(folders, options), "", *policies(folders, options)]))


if __name__ == "__main__":
    main()
