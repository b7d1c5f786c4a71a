"""The strength scale: how long a fit takes, and what active sampling is worth against random pairs.

python benchmarks/scale.py fit --preferences 200000 --edges 1000000 --json
python benchmarks/scale.py active --seeds 8 --json
"""

import argparse
import json
import resource
import time
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import kendalltau, spearmanr
from scipy.stats import t as student

from popmargin.pop.edges import PopEdges
from popmargin.pop.fit import fit_strengths
from popmargin.pop.sampling import sample_edges

NOISES = {"exact": (0.0, 0.0), "temperature 0.2": (0.2, 0.0), "temperature 0.5": (0.5, 0.0), "flip 0.1": (0.0, 0.1),
          "flip 0.3": (0.0, 0.3)}  # fmt: skip


def fit_once(preferences: int, comparisons: int, estimate: Any, seed: int = 0) -> dict[str, Any]:
    """Seconds, memory and coverage of one fit to random pairs; the truth is drawn from the prior."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=preferences) * 10**0.5
    first = rng.integers(preferences, size=comparisons)
    second = (first + rng.integers(1, preferences, size=comparisons)) % preferences
    label = rng.random(comparisons) < expit(truth[first] - truth[second])
    ids = [f"preference-{i}" for i in range(preferences)]
    sides = [np.where(label, first, second), np.where(label, second, first)]
    edges = PopEdges.from_columns(*([ids[i] for i in side.tolist()] for side in sides))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, cpu = time.perf_counter(), time.process_time()
    scale = fit_strengths(edges, ids, estimate=estimate)
    return {
        "preferences": preferences,
        "edges": comparisons,
        "estimate": estimate,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "mb_before": before / 1024,
        "correlation": float(np.corrcoef(scale.strength, truth)[0, 1]),
        "coverage": float((np.abs(scale.strength - truth) < 1.96 * scale.standard_error).mean()),
        "standard_error_error": scale.parameters["standard_error_error"],
        "converged": scale.converged,
    }


def compare_sampling(preferences: int, seeds: int, ks: tuple[int, ...] = (2, 5, 10)) -> list[dict[str, Any]]:
    """Rank correlations of the fitted with the true strengths, active and random, at as many comparisons."""
    rows: list[dict[str, Any]] = []
    ids = [f"p{i}" for i in range(preferences)]
    for noise, (temperature, flip) in NOISES.items():
        for k in ks:
            found: dict[str, list[tuple[float, float]]] = {"random": [], "active": []}
            for seed in range(seeds):
                truth = np.abs(np.random.default_rng([seed, 1]).normal(size=preferences))
                for sampling, values in found.items():
                    edges = sample_edges(
                        ids, truth, sampling=sampling, k=k, seed=seed, flip=flip, temperature=temperature
                    )
                    fitted = fit_strengths(edges, ids, errors="none").strength
                    values.append((spearmanr(fitted, truth)[0], kendalltau(fitted, truth)[0]))
            row: dict[str, Any] = {"noise": noise, "k": k, "seeds": seeds}
            for place, name in enumerate(("spearman", "kendall")):
                by = {sampling: np.array(values)[:, place] for sampling, values in found.items()}
                difference = by["active"] - by["random"]
                half = student.ppf(0.975, seeds - 1) * difference.std(ddof=1) / np.sqrt(seeds)
                row[name] = {sampling: float(values.mean()) for sampling, values in by.items()}
                row[name] |= {"difference": float(difference.mean()), "half_width": float(half)}
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fit", "active"))
    parser.add_argument("--preferences", type=int, help="default: 200000 for fit, 500 for active")
    parser.add_argument("--edges", type=int, default=1_000_000)
    parser.add_argument("--estimate", choices=("mean", "mode"), default="mean")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.what == "fit":
        result = fit_once(args.preferences or 200_000, args.edges, args.estimate)
        print(json.dumps(result) if args.json else "\n".join(f"{name:22} {value}" for name, value in result.items()))
        return
    rows = compare_sampling(args.preferences or 500, args.seeds)
    if args.json:
        print(json.dumps(rows))
        return
    print(f"{'noise':16} {'k':>3} {'random':>8} {'active':>8} {'difference, 95%':>20}   Kendall: random, active")
    for row in rows:
        s, t = row["spearman"], row["kendall"]
        print(f"{row['noise']:16} {row['k']:3} {s['random']:8.3f} {s['active']:8.3f} "
              f"{s['difference']:+9.3f} ± {s['half_width']:.3f}   {t['random']:12.3f} {t['active']:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
