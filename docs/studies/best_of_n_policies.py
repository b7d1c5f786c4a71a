"""The arms of a best-of-n study as policies: LoRA on what the same annotators sold for the same minutes.

    python docs/studies/best_of_n_policies.py docs/studies/best-of-n-vader.yaml runs/best-of-n-policies
    python docs/studies/best_of_n_policies.py docs/studies/best-of-n-vader.yaml runs/best-of-n-policies --table-only

A draw buys the preferences, labels and comparisons of the same draw of `popmargin study best-of-n`, so noise and edges
are drawn anew with each. All arms take the same number of steps of the same size, and are measured on the prompts among
whose samples the reward models choose. Finished runs are kept. Values have 95% intervals over prompts and draws;
differences are from the first labels alone, draw by draw.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import popmargin
from popmargin.evaluation.generating import generate_and_score
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.held_out import held_out as held_out_of
from popmargin.evaluation.run import evaluate_policy
from popmargin.pop.edges import PopEdges
from popmargin.report.metrics import is_known, metric
from popmargin.rewards.configured import configured_rewards
from popmargin.study.best_of_n.best_of_n_config import BestOfNConfig, load_best_of_n
from popmargin.study.best_of_n.choosing_draw import Ground, market_of
from popmargin.study.best_of_n.gold_samples import Samples, read_samples
from popmargin.study.budget.arms import ARMS
from popmargin.study.budget.price_list import Prices
from popmargin.study.budget.purchases import buy
from popmargin.training.build import Run

sys.path.insert(0, str(Path(__file__).parent))
from tables import cell, difference

from rounds import measured

BASELINE, START = "base", "start"
NAMES = (BASELINE, "more", "chain_control", "chain_pop", "chain_scale")
PAIRS = 1  # of samples of a measured prompt, for the accuracy
COLUMNS = ("mean_reward", "win_rate_reference", "accuracy", "kl_per_token", "length", "distinct_2")
MODEL = {"lora_rank": 16, "lora_last_layers": 8}
TRAINING = {"batch_size": 8, "learning_rate": 1e-3, "warmup_ratio": 0.1, "frozen_cache_gb": 2}


def row_of(samples: Samples, better: int, worse: int, name: str) -> dict[str, Any]:
    """A preference between two training samples."""
    (prompt, chosen), (_, rejected) = (samples.raw[samples.strengths.texts[place]] for place in (better, worse))
    return {"id": name, "prompt": prompt, "chosen": chosen, "rejected": rejected}


def bought(name: str, samples: Samples, config: BestOfNConfig, draw: int) -> tuple[list[dict[str, Any]], Any]:
    """Preferences and edges of an arm in a draw."""
    strengths = samples.strengths
    nothing = np.zeros((0, 0)), np.zeros(0, dtype=np.int64)
    prices = Prices.of(config.prices, strengths)
    ground = Ground(
        measured=samples.measured, strengths=strengths, features=nothing[0], place=nothing[1], prices=prices, ns=[]
    )
    arm, market = ARMS[name], market_of(ground, config, draw)
    found = buy(arm, market, config.sizes[0], config.budget)
    rows = [
        row_of(samples, *((better, worse) if right else (worse, better)), f"p{row}")
        for row, right, better, worse in zip(
            found.rows, found.right, strengths.better[found.rows], strengths.worse[found.rows], strict=True
        )
    ]
    count = found.counts.get("comparisons")
    if count is None:
        return rows, None
    asked = market.answers.compared(found.rows, count, scheme=arm.scheme, signed=arm.signed, noise=market.noise)
    stronger, weaker = ([f"p{found.rows[place]}" for place in side] for side in asked[:2])
    return rows, PopEdges.from_columns(stronger, weaker, source="simulated")


def held_out(samples: Samples, prompts: int) -> list[dict[str, Any]]:
    """Pairs of measured samples that the gold reward tells apart, of the first prompts."""
    rng, texts, gold = np.random.default_rng(0), samples.measured.texts, samples.measured.gold
    rows: list[dict[str, Any]] = []
    for place in samples.measured.places[:prompts]:
        order = place.start + rng.permutation(place.stop - place.start)
        pairs = [(a, b) for a, b in zip(order[::2], order[1::2], strict=False) if gold[a] != gold[b]][:PAIRS]
        for a, b in pairs:
            better, worse = (a, b) if gold[a] > gold[b] else (b, a)
            (prompt, chosen), (_, rejected) = samples.raw[texts[better]], samples.raw[texts[worse]]
            rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected,
                         "chosen_rating": float(gold[better]), "rejected_rating": float(gold[worse])})  # fmt: skip
    return rows


def train(name: str, samples: Samples, config: BestOfNConfig, draw: int, args: argparse.Namespace) -> None:
    """Train and measure one arm in one draw; the start model's samples are drawn once for all."""
    rows, edges = bought(name, samples, config, draw)
    output = args.output / name / f"draw-{draw}"
    evaluation = {"prompts": args.prompts, "samples": args.samples, "max_new_tokens": 20, "generation_batch_size": 256}
    trained = popmargin.train(
        rows, model="demo", objective={"name": ARMS[name].objective, "beta": 0.1}, edges=edges,
        test=held_out(samples, args.prompts), output=output, overwrite=output.exists(),
        config={"model": MODEL, "train": TRAINING | {"max_steps": args.steps}, "evaluation": evaluation, "seed": draw},
    )  # fmt: skip
    run = Run.opened(output)
    workspace = run.workspace(held_out_of(run).preferences)
    rewards = configured_rewards(run.evaluation, images=False, first=config.samples.reward)
    start = args.output / START / "generations.parquet"
    if not start.exists():
        found = generate_and_score(None, run.evaluation, workspace, rewards, prompts=args.prompts, progress=True)
        found.save(start)
    evaluate_policy(trained.model, run, workspace, rewards=rewards, reference=Generations.load(start))


def table(folders: dict[str, list[Path]], start: Path) -> list[str]:
    """One row an arm."""
    base = folders[BASELINE]
    found = {
        name: measured(own, None if name == BASELINE else base, [start] * len(own)) for name, own in folders.items()
    }
    shown = [key for key in COLUMNS if any(is_known(metrics.get(key)) for metrics, _ in found.values())]
    head = [
        "arm",
        *(metric(key).title for key in shown),
        "gold reward − first labels",
        "accuracy − first labels, points",
    ]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, (metrics, differences) in found.items():
        cells = [cell(metrics.get(key), 1 if metric(key).is_share else 3, share=metric(key).is_share) for key in shown]
        more = [
            cell(differences.get("mean_reward"), 3, share=False, sign=True),
            difference(differences.get("accuracy"), True),
        ]
        lines.append(f"| {ARMS[name].label} | {' | '.join([*cells, *(more if differences else ['', ''])])} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--draws", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first draw (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="of 8 rows, for every arm (default: %(default)s)")
    parser.add_argument("--prompts", type=int, default=100, help="that measure (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=2, help="of each prompt (default: %(default)s)")
    parser.add_argument("--arms", nargs="+", default=NAMES, choices=sorted(ARMS), metavar="ARM")
    parser.add_argument("--table-only", action="store_true", help="of what is finished; run nothing")
    args = parser.parse_args()
    draws = range(args.first, args.first + args.draws)
    folders = {name: [args.output / name / f"draw-{draw}" / "evaluation" for draw in draws] for name in args.arms}
    if not args.table_only:
        config = load_best_of_n(args.study)
        samples = read_samples(config)
        for draw in draws:  # draw by draw, so that a stopped study has whole draws
            for name in args.arms:
                if not (args.output / name / f"draw-{draw}" / "evaluation" / "metrics.json").exists():
                    train(name, samples, config, draw, args)
    print("\n".join(table(folders, args.output / START)))


if __name__ == "__main__":
    main()
