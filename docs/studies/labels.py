"""How many PoP labels a strength is worth: simulated annotators over real ratings, and models trained on their labels.

    python docs/studies/labels.py scale ultrafeedback.jsonl.gz
    python docs/studies/labels.py ties ukpconvarg.jsonl.gz
    python docs/studies/labels.py train ukpconvarg.jsonl.gz

`scale` prints the rank correlation of estimated with true strengths for each number of comparisons, and how many
comparisons tell as much as one rating. `ties` prints the same correlation where annotators see that two strengths are
equal, and where they flip a coin between equal ones. `train` prints the accuracy of a linear reward on TF-IDF
features of topics that it was not trained on.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds
from scipy.stats import spearmanr
from scipy.stats import t as student
from torch.nn.functional import softplus

from popmargin.data.load import load_preferences
from popmargin.pop.edges import PopEdges
from popmargin.pop.fit import fit_strengths
from popmargin.pop.sampling import sample_edges
from popmargin.pop.strengths import soft_labels

SAMPLINGS = ("random", "iterative", "active")
KS = (1, 2, 3, 5, 10)
TEMPERATURES = (0.2, 0.5, 1.0)  # of the answers, in standard deviations of the true strengths
RATING_NOISES = (0.25, 0.5, 1.0, 2.0)  # standard deviation of one rating's error, in the same unit
PREFERENCES, SEEDS = 500, 6


def comparisons(edges: PopEdges, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers (stronger, weaker) of the edges that compare two preferences and call one of them stronger."""
    stronger, weaker = edges.resolve(ids)
    return stronger[weaker >= 0], weaker[weaker >= 0]


def wins(edges: PopEdges, ids: Sequence[str]) -> np.ndarray:
    """What raw edges say of each preference: its share of won comparisons, ties half, drawn towards one half."""
    count = len(ids)
    stronger, weaker = comparisons(edges, ids)
    ties = edges.table.filter(edges.table["tie"])
    place = {name: row for row, name in enumerate(ids)}
    tied = [place[name] for side in ("stronger", "weaker") for name in ties[side].to_pylist()]
    won, lost, equal = (np.bincount(rows, minlength=count) for rows in (stronger, weaker, np.array(tied, dtype=int)))
    return (won + equal / 2 + 1) / (won + lost + equal + 2)


def mean_and_half_width(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half of its 95% interval over seeds."""
    array = np.asarray(values)
    return float(array.mean()), float(student.ppf(0.975, len(array) - 1) * array.std(ddof=1) / len(array) ** 0.5)


def shown(values: Sequence[float]) -> str:
    """Mean ± half width for a table."""
    return "{:.3f} ± {:.3f}".format(*mean_and_half_width(values))


def study_scale(source: Path) -> None:
    """Correlation of estimated with true strengths."""
    everything = load_preferences(str(source), bad_rows="drop")
    truth_all = everything.strength / everything.strength.std()
    found: defaultdict[tuple[float, str, int, str], list[float]] = defaultdict(list)
    rated: defaultdict[float, list[float]] = defaultdict(list)
    asked: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    for seed in range(SEEDS):
        rng = np.random.default_rng([seed, 5])
        rows = rng.choice(len(truth_all), size=min(PREFERENCES, len(truth_all)), replace=False)
        truth, ids = truth_all[rows], [everything.ids[row] for row in rows]
        for noise in RATING_NOISES:
            rated[noise].append(spearmanr(truth + noise * rng.normal(size=len(truth)), truth)[0])
        for temperature in TEMPERATURES:
            for sampling in SAMPLINGS:
                for k in KS:
                    edges = sample_edges(ids, truth, sampling=sampling, k=k, seed=seed, temperature=temperature)
                    asked[sampling, k].append(edges.parameters["comparisons"] / len(ids))
                    fitted = fit_strengths(edges, ids, errors="none").strength
                    for way, value in (("edges", wins(edges, ids)), ("scale", fitted)):
                        found[temperature, sampling, k, way].append(spearmanr(value, truth)[0])
    print("| temperature | sampling | estimate | " + " | ".join(f"k = {k}" for k in KS) + " |")
    print("|---" * (3 + len(KS)) + "|")
    for temperature in TEMPERATURES:
        for sampling in SAMPLINGS:
            for way in ("edges", "scale"):
                cells = [shown(found[temperature, sampling, k, way]) for k in KS]
                print(f"| {temperature} | {sampling} | {way} | {' | '.join(cells)} |")
    print("\ncomparisons asked for a preference:")
    for sampling in SAMPLINGS:
        print(f"{sampling}: " + ", ".join(f"k = {k}: {np.mean(asked[sampling, k]):.2f}" for k in KS))
    print("\n| noise of a rating | its correlation | " + " | ".join(f"T = {t}, {s}" for t in TEMPERATURES
                                                                    for s in ("random", "active")) + " |")  # fmt: skip
    print("|---" * (2 + 2 * len(TEMPERATURES)) + "|")
    for noise in RATING_NOISES:
        goal = float(np.mean(rated[noise]))
        cells = [
            needed([float(np.mean(found[temperature, sampling, k, "scale"])) for k in KS], goal)
            for temperature in TEMPERATURES
            for sampling in ("random", "active")
        ]
        print(f"| {noise} | {shown(rated[noise])} | {' | '.join(cells)} |")


def study_ties(source: Path) -> None:
    """Correlation of estimated with true strengths when equal strengths are called ties, and when a coin decides."""
    everything = load_preferences(str(source), bad_rows="drop")
    truth_all = everything.strength / everything.strength.std()
    some, shares = (1, 3, 10), list[float]()
    print("| temperature | equal strengths | " + " | ".join(f"k = {k}" for k in some) + " |")
    print("|---" * (2 + len(some)) + "|")
    for temperature in TEMPERATURES:
        found: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
        for seed in range(SEEDS):
            rng = np.random.default_rng([seed, 5])
            rows = rng.choice(len(truth_all), size=min(PREFERENCES, len(truth_all)), replace=False)
            truth, ids = truth_all[rows], [everything.ids[row] for row in rows]
            # So little that equal strengths are told apart by nothing but a coin.
            apart = truth + 1e-6 * rng.permutation(len(truth))
            for k in some:
                for name, seen in (("ties", truth), ("coin flip", apart)):
                    edges = sample_edges(ids, seen, sampling="random", k=k, seed=seed, temperature=temperature)
                    shares += [float(np.mean(edges.table["tie"].to_numpy()))] if name == "ties" else []
                    fitted = fit_strengths(edges, ids, errors="none").strength
                    found[name, k].append(spearmanr(fitted, truth)[0])
        for name in ("ties", "coin flip"):
            print(f"| {temperature} | {name} | {' | '.join(shown(found[name, k]) for k in some)} |")
    print(f"\nshare of comparisons that are ties: {np.mean(shares):.1%}")


def needed(correlation: Sequence[float], goal: float) -> str:
    """Comparisons a preference that reach a correlation, between the measured numbers on a logarithmic scale."""
    if goal <= correlation[0]:
        return f"≤ {KS[0]}"
    for place in range(1, len(KS)):
        if goal <= correlation[place]:
            share = (goal - correlation[place - 1]) / (correlation[place] - correlation[place - 1])
            return f"{KS[place - 1] * (KS[place] / KS[place - 1]) ** share:.1f}"
    return f"> {KS[-1]}"


def features(texts: Sequence[str], *, width: int = 2**14, rank: int = 200) -> np.ndarray:
    """TF-IDF of words, reduced to its first directions, and the logarithm of the length (texts, rank + 1)."""
    words = [Counter(hash_word(word) % width for word in text.lower().split()) for text in texts]
    rows = np.repeat(np.arange(len(texts)), [len(counts) for counts in words])
    columns = np.array([column for counts in words for column in counts])
    values = np.array([1 + np.log(count) for counts in words for count in counts.values()])
    matrix = csr_matrix((values, (rows, columns)), shape=(len(texts), width))
    seen = np.asarray((matrix > 0).sum(0)).ravel()
    matrix = matrix.multiply(np.log((1 + len(texts)) / (1 + seen))).tocsr()
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
    matrix = csr_matrix(matrix.multiply(1 / np.maximum(norms, 1e-9)[:, None]))
    left, sizes, _ = svds(matrix, k=rank, rng=np.random.default_rng(0))
    length = np.log([max(len(text.split()), 1) for text in texts])
    return np.column_stack([left * sizes * 3, (length - length.mean()) / length.std()])


def hash_word(word: str) -> int:
    """A number of a word that is the same in every process."""
    number = 0
    for letter in word.encode():
        number = (number * 257 + letter) % (2**61 - 1)
    return number


Loss = Callable[[torch.Tensor], torch.Tensor]


def fit_reward(difference: torch.Tensor, loss: Loss, decay: float) -> torch.Tensor:
    """Weights of a linear reward: 150 full-batch Adam steps on the loss of the margins, plus decay."""
    weight = torch.zeros(difference.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        (loss(difference @ weight) + decay * weight.square().sum()).backward()
        optimizer.step()
    return weight.detach()


def losses(edges: PopEdges, ids: Sequence[str]) -> dict[str, Loss]:
    """What can be made of the same comparisons."""
    stronger, weaker = (torch.from_numpy(side) for side in comparisons(edges, ids))
    p = torch.from_numpy(soft_labels(fit_strengths(edges, ids, errors="none").strength)).float()

    def pop(m: torch.Tensor) -> torch.Tensor:
        return softplus(m[weaker].detach().clamp(0, 1) - m[stronger]).mean()

    def rank(m: torch.Tensor) -> torch.Tensor:
        return softplus(-m).mean() + softplus(m[weaker] - m[stronger]).mean()

    def scale(m: torch.Tensor) -> torch.Tensor:
        return (p * softplus(-m) + (1 - p) * softplus(m)).mean()

    return {
        "control: stronger sides": lambda m: softplus(-m[stronger]).mean(),
        "pop, raw edges": pop,
        "pop_rank, raw edges": rank,
        "pop_scale, soft labels": scale,
    }


def study_train(source: Path) -> None:
    """Accuracy of a linear reward: preferences labelled by one vote, PoP labels from all votes with noise."""
    data = load_preferences(str(source), bad_rows="drop")
    topics = np.array([row["prompt"].partition("_")[0] for row in data.dataset])
    names = sorted(set(topics))
    texts = sorted({str(row[side]) for row in data.dataset for side in ("chosen", "rejected")})
    place = {text: number for number, text in enumerate(texts)}
    reduced = features(texts)
    chosen = reduced[[place[str(row["chosen"])] for row in data.dataset]]
    difference_all = torch.from_numpy(chosen - reduced[[place[str(row["rejected"])] for row in data.dataset]]).float()
    share, strength = data.soft_label, data.strength
    accuracy: defaultdict[tuple[str, str, int], list[float]] = defaultdict(list)
    for fold in range(SEEDS):
        rng = np.random.default_rng([fold, 11])
        order = rng.permutation(len(names))
        parts = [np.isin(topics, [names[i] for i in order[at]]) for at in (slice(0, 4), slice(4, 6), slice(6, None))]
        test, validation, pool = (np.flatnonzero(part) for part in parts)
        rows = rng.choice(pool, size=1500, replace=False)
        sign = np.where(rng.random(len(rows)) < share[rows], 1.0, -1.0)  # one of the votes decides
        x = difference_all[rows] * torch.from_numpy(sign).float()[:, None]
        ids, truth = [data.ids[row] for row in rows], strength[rows] / strength.std()

        def measure(
            loss: Loss, x: torch.Tensor = x, test: np.ndarray = test, validation: np.ndarray = validation
        ) -> float:
            fits = [fit_reward(x, loss, decay) for decay in (1e-4, 1e-3, 1e-2)]
            best = max(fits, key=lambda weight: float(((difference_all[validation] @ weight) > 0).float().mean()))
            return float(((difference_all[test] @ best) > 0).float().mean())

        soft = torch.from_numpy(np.where(sign > 0, share[rows], 1 - share[rows])).float()
        accuracy["no PoP labels", "Bradley–Terry", 0].append(measure(lambda m: softplus(-m).mean()))
        accuracy["all five votes", "soft labels", 0].append(
            measure(lambda m, soft=soft: (soft * softplus(-m) + (1 - soft) * softplus(m)).mean())
        )
        lengths = difference_all[test][:, -1]
        accuracy["the longer one wins", "no training", 0].append(
            float(((lengths > 0).float() + 0.5 * (lengths == 0).float()).mean())
        )
        for sampling in SAMPLINGS:
            for k in (1, 2, 5):
                edges = sample_edges(ids, truth, sampling=sampling, k=k, seed=fold, temperature=0.5)
                for name, loss in losses(edges, ids).items():
                    accuracy[sampling, name, k].append(measure(loss))
    base = np.array(accuracy["no PoP labels", "Bradley–Terry", 0])
    print(
        "| comparisons | objective | k | accuracy, other topics | difference from no PoP labels |\n"
        "|---|---|---|---|---|"
    )
    for (sampling, name, k), values in accuracy.items():
        difference = "{:+.3f} ± {:.3f}".format(*mean_and_half_width(np.array(values) - base))
        difference = difference if k or "votes" in sampling else "–"
        print(f"| {sampling} | {name} | {k or '–'} | {shown(values)} | {difference} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("scale", "ties", "train"))
    parser.add_argument("source", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    {"scale": study_scale, "ties": study_ties, "train": study_train}[args.what](args.source)


if __name__ == "__main__":
    main()
