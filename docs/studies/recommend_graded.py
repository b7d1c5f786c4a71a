"""What margins do with graded feedback whose true utilities are known: a generated shop, four losses, held-out users.

    python docs/studies/recommend_graded.py --output runs/recommend-graded --seeds 0 1 2

Items and users have vectors, a user's utility of an item is their inner product plus noise, and users mostly see what
they like. Grades 1 to 5 are fifths of the utility. A preference is a higher grade over a lower one (`graded_rows`); the
item vectors are given to the model, the users' are not. Held-out users say how often the preferred item has the smaller
error, and how the reward margin goes with the difference of the grades (Spearman).
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.cli.main import main as popmargin
from popmargin.config import dump_yaml, merge
from popmargin.recommend.denoising.saved_denoiser import write_start
from popmargin.recommend.graded_preferences import edges_within_users, graded_rows
from popmargin.recommend.item_vectors import whiten
from popmargin.recommend.read_sequences import load_sequences
from popmargin.recommend.splitting import leave_one_out

ITEMS, USERS, EVENTS, WIDTH = 200, 900, 12, 16
SUPERVISED = [{"name": "sft", "weight": 0.667}]
ARMS: dict[str, Mapping[str, Any]] = {
    "preferdiff": {"objective": {"name": "preferdiff", "beta": 5.0, "regression": 0.4}},
    "dpo": {"objective": {"name": "dpo", "beta": 5.0}},
    "rating margin": {
        "objective": {"name": "dpo", "beta": 5.0}, "margin": {"source": "ratings", "scale": 0.25},
    },
    "pop within users": {"objective": {"name": "pop", "beta": 5.0}, "pop": {"edges": "edges.parquet"}},
    "pop within users and regression": {
        "objective": {"name": "pop", "beta": 5.0}, "pop": {"edges": "edges.parquet"}, "regularizers": SUPERVISED,
    },
}  # fmt: skip


def write_shop(folder: Path, seed: int) -> None:
    """The start model, training and held-out preferences of different users, and edges."""
    drawn = np.random.default_rng(seed)
    items, users = drawn.standard_normal((ITEMS, WIDTH)), drawn.standard_normal((USERS, WIDTH))
    utility = users @ items.T / np.sqrt(WIDTH) + 0.3 * drawn.standard_normal((USERS, ITEMS))
    fifths = np.quantile(utility, [0.2, 0.4, 0.6, 0.8])
    events: list[dict[str, Any]] = []
    for user in range(USERS):
        chance = np.exp(2 * utility[user])
        seen = drawn.choice(ITEMS, EVENTS, replace=False, p=chance / chance.sum())
        for time, item in enumerate(seen.tolist()):
            grade = 1.0 + float(np.searchsorted(fifths, utility[user, item]))
            events.append({"user": f"u{user:04}", "item": f"i{item:03}", "time": time, "feedback": grade})
    data = load_sequences(events)
    rows, step = graded_rows(data, leave_one_out(data))
    print(step.arithmetic, step.notes)
    names = [int(name[1:]) for name in data.catalogue.names]
    write_start(folder / "start", data.catalogue, whiten(items[names].astype(np.float32)))
    held_out = [row for row in rows if row["cluster"] >= f"u{int(USERS * 0.8):04}"]
    training = [row for row in rows if row["cluster"] < f"u{int(USERS * 0.8):04}"]
    for name, part in (("train", training), ("test", held_out)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    edges_within_users(training, seed=seed).save(folder / "edges.parquet")


def measured(folder: Path, arm: str, seed: int, epochs: int) -> dict[str, float]:
    """Held-out metrics of an arm, trained unless it is."""
    run = folder / arm.replace(" ", "-")
    base: dict[str, Any] = {
        "output": str(run), "seed": seed,
        "task": {"name": "items", "schedule": "cosine"},
        "model": {"path": str(folder / "start")},
        "data": {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl")},
        "target": {"kind": "ema", "tau": 0.9},
        "train": {"batch_size": 128, "learning_rate": 3e-3, "weight_decay": 0.0, "epochs": epochs, "logging_steps": 20},
    }  # fmt: skip
    config = merge(base, ARMS[arm])
    if "pop" in config:
        config = merge(config, {"pop": {"edges": str(folder / "edges.parquet")}})
    (folder / "run.yaml").write_text(dump_yaml(config))
    for words in (["train", str(folder / "run.yaml"), "--resume"], ["eval", str(run)]):
        if popmargin(words):
            raise SystemExit(1)
    found = json.loads((run / "evaluation" / "metrics.json").read_text())["intervals"]
    return {name: interval["estimate"] for name, interval in found.items()}


def main() -> None:
    """Train, measure, and print a table of means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for seed in args.seeds:
        folder = args.output.absolute() / f"seed-{seed}"
        if not (folder / "edges.parquet").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_shop(folder, seed)
        for arm in ARMS:
            found[arm].append(measured(folder, arm, seed, args.epochs))
    names = ("accuracy", "spearman", "ece", "reward_margin")
    print("| |" + "".join(f" {name} |" for name in names) + "\n|---|" + "---|" * len(names))
    for arm, values in found.items():
        print(f"| {arm} |" + "".join(f" {np.mean([each[name] for each in values]):.3f} |" for name in names))


if __name__ == "__main__":
    main()
