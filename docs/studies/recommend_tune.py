"""Choose learning rate and guidance of PreferDiff's arms, all on one small grid, by recall@5 of validation users.

    python docs/studies/recommend_tune.py docs/studies/recommend-beauty.yaml --output runs/recommend-tune

Every model of the comparison is trained with its first seed once for each learning rate, and stops on validation as it
does there; then each guidance w ranks the validation users again, which takes no training. Test targets are not looked
at. It prints a table, with * at each arm's best, and a second call goes on where the first one ended.
"""

import argparse
import dataclasses
from pathlib import Path

from popmargin.recommend.denoising.item_denoiser import DenoisingRecommender
from popmargin.recommend.denoising.saved_denoiser import load_item_denoiser
from popmargin.recommend.ranking_metrics import recall
from popmargin.recommend.ranks import rank_cases
from popmargin.recommend.splitting import Parts
from popmargin.study.recommenders.prepared_events import TRAIN, VALID, prepare, read_events, split_events, start_model
from popmargin.study.recommenders.recommend_config import RecommendConfig, load_recommend_config
from popmargin.training.run import train

RATES = (3e-4, 1e-3, 3e-3)
GUIDANCE = (0.0, 1.0, 2.0, 4.0, 8.0)


def tuned(study: RecommendConfig, arm: str, parts: Parts, rates: list[float]) -> dict[tuple[float, float], float]:
    """Validation recall@5 by learning rate and guidance."""
    output = Path(study.output)
    start, _, _ = start_model(parts, study.vectors_of(arm), output / "start")
    found: dict[tuple[float, float], float] = {}
    for rate in rates:
        place = {
            "output": str(output / "runs" / arm / f"{rate:g}"),
            "model": {"path": str(start)},
            "data": {"train": str(output / "data" / TRAIN), "test": str(output / "data" / VALID)},
        }
        config = study.run_config(arm, study.seeds[0], place)
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, learning_rate=rate))
        directory, _ = train(config, resume=True)
        model, catalogue = load_item_denoiser(directory.model)
        for guidance in GUIDANCE:
            model.options = dataclasses.replace(model.options, guidance=guidance)
            ranking = rank_cases(
                DenoisingRecommender(model), parts.valid, items=len(catalogue), count=1,
                exclude_history=study.evaluation.exclude_history,
            )  # fmt: skip
            found[rate, guidance] = float(recall(ranking.ranks, 5).mean())
    return found


def main() -> None:
    """Tune every arm, and print its row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--output", required=True, help="folder of the runs")
    parser.add_argument("--arms", nargs="+", help="only these")
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES), help="learning rates")
    args, changes = parser.parse_known_args()
    study = load_recommend_config(RecommendConfig, args.study, changes, {"output": args.output})
    parts = split_events(read_events(study.data), study.data)
    Path(study.output).mkdir(parents=True, exist_ok=True)
    prepare(parts, study.data, Path(study.output) / "data", overwrite=False)
    print("| arm | learning rate |" + "".join(f" w {guidance:g} |" for guidance in GUIDANCE))
    print("|---|---|" + "---|" * len(GUIDANCE))
    for arm in args.arms or study.models:
        found = tuned(study, arm, parts, args.rates)
        best = max(found, key=lambda place: found[place])
        for rate in args.rates:
            cells = "".join(f" {found[rate, w]:.4f}{'*' if (rate, w) == best else ''} |" for w in GUIDANCE)
            print(f"| {arm} | {rate:g} |{cells}", flush=True)


if __name__ == "__main__":
    main()
